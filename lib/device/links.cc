#include "lib/device/links.h"

namespace distorch {

void LinkTable::Set(const DeviceId& from, const DeviceId& to, LinkSpeed speed) {
  entries_.insert_or_assign({from, to}, speed);
}

const LinkSpeed* LinkTable::Find(const DeviceId& from, const DeviceId& to) const {
  const auto entry = entries_.find({from, to});
  return entry == entries_.end() ? nullptr : &entry->second;
}

double LinkTable::Seconds(const DeviceId& from, const DeviceId& to, int64_t bytes) const {
  if (from == to) return 0;
  const LinkSpeed* speed = Find(from, to);
  return speed == nullptr ? 0 : speed->Seconds(bytes);
}

}  // namespace distorch
