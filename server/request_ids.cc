#include "server/request_ids.h"

#include <algorithm>
#include <cstdint>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace distorch {
namespace {

constexpr std::size_t kMaxRequestId = 128;
// "00-" trace id "-" parent id "-" flags.
constexpr std::size_t kTraceId = 3, kParentId = 36, kFlags = 53, kLength = 55;

bool IsLowerHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsZero(std::string_view text) { return text.find_first_not_of('0') == text.npos; }

bool IsTraceparent(std::string_view text) {
  if (text.size() < kLength) return false;
  const std::string_view version = text.substr(0, 2), trace = text.substr(kTraceId, 32),
                         parent = text.substr(kParentId, 16), flags = text.substr(kFlags, 2);
  if (text[kTraceId - 1] != '-' || text[kParentId - 1] != '-' || text[kFlags - 1] != '-')
    return false;
  if (!IsLowerHex(version) || !IsLowerHex(trace) || !IsLowerHex(parent) || !IsLowerHex(flags))
    return false;
  if (version == "ff" || IsZero(trace) || IsZero(parent)) return false;
  if (version == "00") return text.size() == kLength;
  return text.size() == kLength || text[kLength] == '-';
}

std::string MakeTraceparent() {
  absl::BitGen random;
  const auto nonzero = [&random] { return absl::Uniform<uint64_t>(random, 1, UINT64_MAX); };
  return absl::StrFormat("00-%016x%016x-%016x-00", nonzero(), nonzero(), nonzero());
}

bool IsRequestId(std::string_view text) {
  return !text.empty() && text.size() <= kMaxRequestId &&
         std::all_of(text.begin(), text.end(), absl::ascii_isgraph);
}

}  // namespace

RequestIds MakeRequestIds(std::string_view request_id, std::string_view traceparent) {
  RequestIds ids;
  ids.traceparent = IsTraceparent(traceparent)
                        ? absl::StrCat("00", traceparent.substr(2, kLength - 2))
                        : MakeTraceparent();
  ids.request_id = IsRequestId(request_id) ? request_id : ids.trace_id();
  return ids;
}

}  // namespace distorch
