#include "lib/models/shape_reader.h"

#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace distorch::models {
namespace {

constexpr int64_t kMaxSize = 1 << 18;  // a vocabulary is the largest

}  // namespace

ShapeReader::ShapeReader(const NamedTensors& tensors, std::string prefix)
    : tensors_(tensors), prefix_(std::move(prefix)) {}

bool ShapeReader::Has(const std::string& name) const {
  return tensors_.contains(absl::StrCat(prefix_, name));
}

int64_t ShapeReader::Size(const std::string& name, size_t rank, size_t dim) {
  const std::string full = absl::StrCat(prefix_, name);
  auto found = tensors_.find(full);
  if (found == tensors_.end()) return Fail(absl::StrCat(full, " is missing"));
  const std::vector<int64_t>& shape = found->second.shape;
  if (shape.size() != rank || shape[dim] < 1 || shape[dim] > kMaxSize) {
    return Fail(absl::StrCat(full, " has shape ", ShapeString(shape), ", expected ", rank,
                             " dimensions between 1 and ", kMaxSize));
  }
  return shape[dim];
}

int64_t ShapeReader::Count(const std::string& before, const std::string& after) const {
  int64_t n = 0;
  while (Has(absl::StrCat(before, n, after))) ++n;
  return n;
}

int64_t ShapeReader::CountBlocks(const std::string& before) {
  const std::string prefix = absl::StrCat(prefix_, before);
  std::map<int64_t, std::string> blocks;  // by number: the first tensor of each
  for (const auto& [name, tensor] : tensors_) {
    if (!absl::StartsWith(name, prefix)) continue;
    const std::string_view rest = std::string_view(name).substr(prefix.size());
    int64_t number = 0;
    if (!absl::SimpleAtoi(rest.substr(0, rest.find('.')), &number) || number < 0) continue;
    const auto block = blocks.try_emplace(number, name).first;
    if (name < block->second) block->second = name;
  }
  int64_t count = 0;
  for (const auto& [number, name] : blocks) {
    if (number != count) return Fail(absl::StrCat(name, " is there, but no ", prefix, count));
    ++count;
  }
  return count;
}

void ShapeReader::RequireDivisible(const std::string& name, int64_t value, int64_t by) {
  if (value % by != 0)
    Fail(absl::StrCat(prefix_, name, " is ", value, " wide, not a multiple of ", by));
}

void ShapeReader::Require(bool condition, const std::string& problem) {
  if (!condition) Fail(absl::StrCat(prefix_, problem));
}

int64_t ShapeReader::Fail(const std::string& problem) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(problem);
  return 1;
}

}  // namespace distorch::models
