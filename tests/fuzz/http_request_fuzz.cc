// Any text as the body of a request for pictures: an error that names a field, or a request within
// the limits.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "server/http/openai_request.h"
#include "server/http/webui_request.h"
#include "tests/fuzz/require.h"

using distorch::InferSpec;
using distorch::Require;

namespace {

constexpr distorch::RequestLimits kLimits = {
    .image_side = 1024, .batch = 4, .steps = 100, .prompt_bytes = 256};

template <typename Request>
void Check(const absl::StatusOr<Request>& request) {
  if (!request.ok()) {
    Require(absl::IsInvalidArgument(request.status()));
    Require(request.status().message().find(": ") != std::string_view::npos);
    return;
  }
  const InferSpec& spec = request->image.spec;
  Require(spec.width >= 16 && spec.width <= 1024 && spec.width % 8 == 0);
  Require(spec.height >= 16 && spec.height <= 1024 && spec.height % 8 == 0);
  Require(spec.batch_size >= 1 && spec.batch_size <= 4);
  Require(spec.options.steps >= 1 && spec.options.steps <= 100);
  Require(spec.options.cfg >= 0 && spec.options.denoise >= 0 && spec.options.denoise <= 1);
  Require(spec.prompt.size() <= 256 && spec.negative_prompt.size() <= 256);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  Check(distorch::ReadGeneration(body, kLimits));
  Check(distorch::ReadWebui(body, false, kLimits));
  Check(distorch::ReadWebui(body, true, kLimits));
  return 0;
}
