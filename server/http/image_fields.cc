#include "server/http/image_fields.h"

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "lib/base/utf8.h"

namespace distorch {
namespace {

// What every client's numbers can say exactly.
constexpr int64_t kMaxSeed = (int64_t{1} << 53) - 1;

}  // namespace

std::string ReadPrompt(const char* name, const RequestLimits& limits, JsonFields* fields) {
  std::string text = fields->Text(name);
  if (text.size() > static_cast<std::size_t>(limits.prompt_bytes)) {
    fields->Refuse(name, absl::StrCat("has ", text.size(), " bytes; the server takes ",
                                      limits.prompt_bytes, " (--max_prompt_bytes)"));
  } else if (Utf8PrefixLength(text) != text.size()) {
    fields->Refuse(name, "is not UTF-8");
  }
  return text;
}

int CheckSide(const char* name, int64_t side, const RequestLimits& limits, JsonFields* fields) {
  if (side < kMinImageSide || side > limits.image_side) {
    fields->Refuse(name, absl::StrCat(side, " is not from ", kMinImageSide, " to ",
                                      limits.image_side, ", the server's --max_image_side"));
  } else if (side % 8 != 0) {
    fields->Refuse(name, absl::StrCat(side, " is not a multiple of 8"));
  }
  return static_cast<int>(side);
}

uint64_t ReadSeed(JsonFields* fields) {
  const int64_t seed = fields->Integer("seed", -1, -1, kMaxSeed);
  if (seed >= 0) return static_cast<uint64_t>(seed);
  absl::BitGen random;
  return absl::Uniform<uint64_t>(random, 0, uint64_t{1} << 32);
}

}  // namespace distorch
