#include "tests/support/torch_archive_writer.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace distorch {
namespace {

template <typename T>
void Append(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendSizes(std::string* out, uint64_t size, bool zip64) {
  const auto in_header = zip64 ? UINT32_MAX : static_cast<uint32_t>(size);
  Append<uint32_t>(out, 0);          // CRC
  Append<uint32_t>(out, in_header);  // compressed
  Append<uint32_t>(out, in_header);
}

std::string LocalHeader(const ZipMember& member) {
  const std::string& name = member.local_name ? *member.local_name : member.name;
  std::string out("PK\x03\x04", 4);
  Append<uint16_t>(&out, 20);
  Append(&out, member.flags);
  Append(&out, member.method);
  Append<uint32_t>(&out, 0);  // time and date
  AppendSizes(&out, member.data.size(), false);
  Append(&out, static_cast<uint16_t>(name.size()));
  Append<uint16_t>(&out, 0);
  return out + name;
}

std::string CentralHeader(const ZipMember& member, uint64_t offset, bool zip64) {
  const uint64_t size = member.size.value_or(member.data.size());
  offset = member.header_offset.value_or(offset);
  std::string out("PK\x01\x02\x14\0\x14\0", 8);
  Append(&out, member.flags);
  Append(&out, member.method);
  Append<uint32_t>(&out, 0);
  AppendSizes(&out, size, zip64);
  Append(&out, static_cast<uint16_t>(member.name.size()));
  Append<uint16_t>(&out, zip64 ? 28 : 0);
  out.append(10, '\0');  // comment's length, disk, attributes
  Append(&out, zip64 ? UINT32_MAX : static_cast<uint32_t>(offset));
  out += member.name;
  if (zip64) {
    Append<uint16_t>(&out, 1);
    Append<uint16_t>(&out, 24);
    Append(&out, size);
    Append(&out, size);
    Append(&out, offset);
  }
  return out;
}

std::string End64(uint64_t entries, uint64_t size, uint64_t start) {
  std::string out("PK\x06\x06", 4);
  Append<uint64_t>(&out, 44);
  Append<uint32_t>(&out, 0x002D002D);
  Append<uint64_t>(&out, 0);  // disks
  Append(&out, entries);
  Append(&out, entries);
  Append(&out, size);
  Append(&out, start);
  out.append("PK\x06\x07", 4);
  Append<uint32_t>(&out, 0);
  Append(&out, start + size);
  Append<uint32_t>(&out, 1);
  return out;
}

}  // namespace

std::string ZipBytes(const std::vector<ZipMember>& members, bool zip64) {
  std::string file, directory;
  for (const ZipMember& member : members) {
    directory += CentralHeader(member, file.size(), zip64);
    file += LocalHeader(member) + member.data;
  }
  const uint64_t start = file.size();
  file += directory;
  if (zip64) file += End64(members.size(), directory.size(), start);
  file.append("PK\x05\x06\0\0\0\0", 8);
  const auto count = zip64 ? UINT16_MAX : static_cast<uint16_t>(members.size());
  Append<uint16_t>(&file, count);
  Append<uint16_t>(&file, count);
  Append(&file, zip64 ? UINT32_MAX : static_cast<uint32_t>(directory.size()));
  Append(&file, zip64 ? UINT32_MAX : static_cast<uint32_t>(start));
  Append<uint16_t>(&file, 0);
  return file;
}

namespace pickle {

std::string Text(std::string_view text) {
  std::string out = "X";
  Append(&out, static_cast<uint32_t>(text.size()));
  return absl::StrCat(out, text);
}

std::string Int(int32_t value) {
  std::string out = "J";
  Append(&out, value);
  return out;
}

std::string Global(std::string_view module, std::string_view name) {
  return absl::StrCat("c", module, "\n", name, "\n");
}

std::string Tuple(const std::vector<std::string>& items) {
  return absl::StrCat("(", absl::StrJoin(items, ""), "t");
}

std::string List(const std::vector<std::string>& items) {
  return absl::StrCat("](", absl::StrJoin(items, ""), "e");
}

std::string Dict(const std::vector<std::string>& keys_and_values) {
  return absl::StrCat("}(", absl::StrJoin(keys_and_values, ""), "u");
}

std::string Call(const std::string& function, const std::vector<std::string>& arguments) {
  return absl::StrCat(function, Tuple(arguments), "R");
}

std::string Tensor(std::string_view key, int32_t elements, int32_t offset,
                   const std::vector<int32_t>& shape, const std::vector<int32_t>& strides) {
  const auto sizes = [](const std::vector<int32_t>& values) {
    std::vector<std::string> items;
    for (const int32_t value : values) items.push_back(Int(value));
    return Tuple(items);
  };
  const std::string storage = Tuple({Text("storage"), Global("torch", "FloatStorage"), Text(key),
                                     Text("cpu"), Int(elements)}) +
                              "Q";
  return Call(Global("torch._utils", "_rebuild_tensor_v2"),
              {storage, Int(offset), sizes(shape), sizes(strides), "\x89",
               Call(Global("collections", "OrderedDict"), {})});
}

std::string Whole(const std::string& root) { return absl::StrCat("\x80\x02", root, "."); }

}  // namespace pickle

std::vector<ZipMember> ArchiveMembers(const std::string& pickle,
                                      const std::vector<std::string>& storages) {
  std::vector<ZipMember> members = {{"archive/data.pkl", pickle}};
  for (size_t i = 0; i < storages.size(); ++i) {
    members.push_back({absl::StrCat("archive/data/", i), storages[i]});
  }
  return members;
}

LegacyParts LegacyFile(const std::string& object, const std::vector<std::string>& storages) {
  LegacyParts parts;
  parts.object = object;
  std::vector<std::string> keys;
  for (const std::string& storage : storages) {
    keys.push_back(pickle::Text(absl::StrCat(keys.size())));
    Append<uint64_t>(&parts.storages, storage.size() / sizeof(float));
    parts.storages += storage;
  }
  parts.keys = pickle::Whole(pickle::List(keys));
  return parts;
}

}  // namespace distorch
