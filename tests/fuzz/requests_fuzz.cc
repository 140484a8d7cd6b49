// Any bytes as a request of either protocol, the first of them saying which. What the translation
// lets through keeps what translate.h and open_inference_request.h promise.
#include <google/protobuf/stubs/logging.h>

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "lib/base/dtype.h"
#include "lib/base/utf8.h"
#include "server/open_inference_request.h"
#include "server/translate.h"
#include "tests/fuzz/require.h"

namespace distorch {
namespace {

void Check(const HostTensor& tensor) {
  std::size_t bytes = DTypeSize(tensor.dtype);
  for (const int64_t dim : tensor.shape) {
    Require(dim > 0);
    bytes *= static_cast<std::size_t>(dim);
  }
  Require(bytes == tensor.data.size());
}

void Check(const SamplingOptions& options) {
  Require(options.steps >= 1 && options.steps <= 10'000);
  Require(std::isfinite(options.cfg) && options.denoise >= 0 && options.denoise <= 1);
}

void Check(const InferSpec& spec) {
  Check(spec.options);
  for (const int side : {spec.width, spec.height})
    Require(side >= 16 && side <= 8192 && side % 8 == 0);
  Require(spec.batch_size >= 1 && spec.batch_size <= 64);
}

void Check(const LoadSpec& spec) {
  Require(!spec.ckpt_name.empty());
  for (const auto& gb : {spec.unet_virtual_vram_gb, spec.clip_virtual_vram_gb})
    Require(!gb.has_value() || (*gb >= 0 && *gb <= 128));
}

void Check(const SampleSpec& spec) {
  Check(spec.options);
  Check(spec.latent);
}
void Check(const DenoiseSpec& spec) { Check(spec.x); }
void Check(const DecodeLatentSpec& spec) { Check(spec.latent); }
void Check(const EncodeImageSpec& spec) {
  if (spec.pixels.has_value()) Check(*spec.pixels);
}
void Check(const OpenLoad& load) { Check(load.spec); }
void Check(const OpenInfer& infer) {
  Require(!infer.items.empty() && infer.items.size() <= 64 && !infer.outputs.empty());
  for (const auto& item : infer.items) {
    Check(infer.SpecOf(item));
    Require(Utf8PrefixLength(item.prompt) == item.prompt.size());
  }
}

template <typename Request, typename Translate>
void Try(const uint8_t* data, std::size_t size, Translate translate) {
  Request request;
  if (!request.ParseFromArray(data, static_cast<int>(size))) return;
  const auto spec = translate(request);
  if (spec.ok()) {
    Check(*spec);
  } else {
    Require(absl::IsInvalidArgument(spec.status()) && !spec.status().message().empty());
  }
}

}  // namespace
}  // namespace distorch

// Protobuf would write a line for every string that is not UTF-8.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  google::protobuf::SetLogHandler(nullptr);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace distorch;  // NOLINT
  if (size == 0) return 0;
  const uint8_t which = *data++;
  --size;
  switch (which % 8) {
    case 0:
      Try<v1::LoadCheckpointRequest>(data, size, ToLoadSpec);
      break;
    case 1:
      Try<v1::InferRequest>(data, size, [](const auto& in) { return ToInferSpec(in); });
      break;
    case 2:
      Try<v1::SampleRequest>(data, size, [](const auto& in) { return ToSampleSpec(in); });
      break;
    case 3:
      Try<v1::DenoiseRequest>(data, size, [](const auto& in) { return ToDenoiseSpec(in); });
      break;
    case 4:
      Try<v1::DecodeLatentRequest>(data, size,
                                   [](const auto& in) { return ToDecodeLatentSpec(in); });
      break;
    case 5:
      Try<v1::EncodeImageRequest>(data, size, [](const auto& in) { return ToEncodeImageSpec(in); });
      break;
    case 6:
      Try<inference::ModelInferRequest>(data, size, [](const inference::ModelInferRequest& in) {
        return ToOpenInfer(in, {"m", "c", "v"});
      });
      break;
    default:
      Try<inference::RepositoryModelLoadRequest>(data, size, ToOpenLoad);
      break;
  }
  return 0;
}
