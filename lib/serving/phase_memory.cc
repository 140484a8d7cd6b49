#include "lib/serving/phase_memory.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/models/vae_work.h"
#include "lib/pipeline/two_sided_model.h"
#include "lib/sampling/sampler.h"

namespace distorch {
namespace {

// Operations of the largest kind whose inputs and outputs are alive at one time, as is expected.
constexpr int64_t kAlive = 4;
// Copies of a weight beside the stored one: brought from elsewhere, and in the compute type.
constexpr int64_t kWeightCopies = 2;
// Latents in float32 that samplers keep.
constexpr int64_t kSamplerLatents = 16;
// Bytes of a prompt that a text encoder reads at once.
constexpr size_t kChunkBytes = 256;

int64_t ElementBytes(const LoadedComponent& component) {
  return static_cast<int64_t>(c10::elementSize(component.component->compute().dtype));
}

int64_t LargestWeight(const ModelShape& shape, int64_t element_bytes) {
  int64_t largest = 0;
  for (const BlockShape& block : shape.blocks) {
    int64_t elements = block.weight.empty() ? 0 : 1;
    for (const int64_t size : block.weight) elements *= size;
    largest = std::max(largest, elements);
  }
  return largest * element_bytes;
}

PhaseMemory Memory(std::string phase, const LoadedComponent& component) {
  PhaseMemory memory;
  memory.holder = absl::StrCat(component.ckpt_name, " (", phase, ")");
  memory.key.family = component.family;
  memory.key.phase = std::move(phase);
  memory.key.model = component.base_handle;
  memory.key.element_bytes = ElementBytes(component);
  return memory;
}

ActivationNeed Need(double bytes_at_once, double of_least, int64_t kept) {
  ActivationNeed need;
  need.at_least = static_cast<int64_t>(of_least);
  need.expected = kAlive * static_cast<int64_t>(bytes_at_once) + kept;
  return need;
}

// The position in `devices` of where each of the model's blocks runs.
std::vector<int> DevicesOfBlocks(const LoadedComponent& component, const StepWork& work,
                                 int compute) {
  std::vector<int> devices(work.blocks.size(), compute);
  const std::vector<int>& units = component.step.unit_devices;
  if (units.size() != work.units.size()) return devices;
  for (size_t i = 0; i < units.size(); ++i) {
    const UnitSpan& span = work.units[i].blocks;
    std::fill(devices.begin() + static_cast<std::ptrdiff_t>(span.first),
              devices.begin() + static_cast<std::ptrdiff_t>(span.end), units[i]);
  }
  return devices;
}

// What is made for a unit that does not run next: a UNet's skips.
int64_t KeptForLater(const StepWork& work) {
  int64_t bytes = 0;
  for (const StepWork::Unit& unit : work.units) {
    for (size_t i = 1; i < unit.inputs.size(); ++i) bytes += unit.inputs[i].bytes;
  }
  return bytes;
}

// Of evaluations of size `size`, of which some may only be of `least`.
ActivationNeeds ModelNeeds(const LoadedComponent& component, const DeviceId& device,
                           const std::vector<DeviceId>& devices, const models::StepSize& size,
                           const models::StepSize& least) {
  const models::DiffusionModel& model = component.model();
  const StepWork work = model.Work(size), least_work = model.Work(least);
  const int compute = static_cast<int>(std::ranges::find(devices, device) - devices.begin());
  const std::vector<int> ran_on = DevicesOfBlocks(component, work, compute);
  const int64_t weights =
      kWeightCopies * LargestWeight(models::ShapeOf(model.store()), size.element_bytes);
  const int64_t latents = kSamplerLatents * size.batch * model.latent_format().channels *
                          size.height * size.width * static_cast<int64_t>(sizeof(float));
  ActivationNeeds needs;
  for (size_t d = 0; d < devices.size(); ++d) {
    const bool computes = static_cast<int>(d) == compute;
    double at_once = 0, of_least = 0;
    for (size_t i = 0; i < work.blocks.size(); ++i) {
      if (ran_on[i] != static_cast<int>(d)) continue;
      at_once = std::max(at_once, work.blocks[i].bytes_at_once);
      of_least = std::max(of_least, least_work.blocks[i].bytes_at_once);
    }
    if (!computes && at_once == 0) continue;
    const int64_t kept = weights + KeptForLater(work) + (computes ? latents : 0);
    needs[devices[d]] = Need(at_once, of_least, kept);
  }
  return needs;
}

// Tokens; 0 where the conditioning, which is not checked yet, has none.
int64_t ContextOf(const text::Conditioning& conditioning) {
  const at::Tensor& context = conditioning.cross_attention;
  return context.defined() && context.dim() == 3 ? context.size(1) : 0;
}

struct Side {
  int64_t height, width;
};

// The tiles that lib/models/tiling.h cuts an input of `whole` into.
std::vector<Side> Tiles(const Side& whole, int64_t tile) {
  if (tile == 0) return {whole};
  std::vector<Side> tiles;
  for (const Side& shape : {Side{2 * tile, tile / 2}, Side{tile / 2, 2 * tile}, Side{tile, tile}})
    tiles.push_back({std::min(shape.height, whole.height), std::min(shape.width, whole.width)});
  return tiles;
}

using BytesAtOnce = int64_t (*)(const ModelShape&, int64_t, int64_t, int64_t);

// `input` as `bytes_at_once` takes it, `tile` in the same units.
PhaseMemory VaeMemory(const char* phase, const LoadedComponent& component, const DeviceId& device,
                      const Side& input, int64_t tile, BytesAtOnce bytes_at_once) {
  PhaseMemory memory = Memory(tile == 0 ? phase : absl::StrCat(phase, " by tiles"), component);
  memory.key.height = input.height;
  memory.key.width = input.width;
  if (tile != 0) memory.key.detail = absl::StrCat("tiles of ", tile);
  const ModelShape shape = models::ShapeOf(component.component->store());
  const int64_t element_bytes = memory.key.element_bytes;
  int64_t at_once = 0;
  for (const Side& side : Tiles(input, tile))
    at_once = std::max(at_once, bytes_at_once(shape, side.height, side.width, element_bytes));
  const auto bytes = static_cast<double>(at_once);
  memory.counted[device] = Need(bytes, bytes, kWeightCopies * LargestWeight(shape, element_bytes));
  return memory;
}

}  // namespace

PhaseMemory TextMemory(const LoadedComponent& component, const DeviceId& device,
                       size_t prompt_bytes) {
  PhaseMemory memory = Memory("text", component);
  const auto chunks = static_cast<int64_t>(prompt_bytes / kChunkBytes) + 1;
  memory.key.context = chunks;
  const ModelShape shape = models::ShapeOf(component.component->store());
  const int64_t element_bytes = memory.key.element_bytes;
  const auto most = [&](int64_t texts) {
    double bytes = 0;
    for (const StepWork::Block& block : models::TextWork(shape, texts, element_bytes).blocks)
      bytes = std::max(bytes, block.bytes_at_once);
    return bytes;
  };
  memory.counted[device] =
      Need(most(chunks), most(1), kWeightCopies * LargestWeight(shape, element_bytes));
  return memory;
}

PhaseMemory SamplingMemory(const LoadedComponent& component, const DeviceId& device,
                           const std::vector<DeviceId>& devices,
                           const pipeline::SampleInputs& inputs, bool spread,
                           const std::string& kept) {
  PhaseMemory memory = Memory("sample", component);
  const auto sampler = sampling::FindSampler(inputs.args.sampler_name);
  const bool both_sides = inputs.cfg != 1 || (sampler.ok() && (*sampler)->needs_uncond);
  const int64_t positive = ContextOf(inputs.positive), negative = ContextOf(inputs.negative);
  std::optional<int64_t> joined;
  if (both_sides && positive > 0 && negative > 0)
    joined = pipeline::JoinedLength(component.model(), inputs.negative, inputs.positive);
  models::StepSize size;
  size.height = inputs.latent.size(2);
  size.width = inputs.latent.size(3);
  size.batch = inputs.latent.size(0) * (joined ? 2 : 1);
  size.context = joined ? *joined : both_sides ? std::max(positive, negative) : positive;
  size.element_bytes = memory.key.element_bytes;
  models::StepSize least = size;
  if (!joined) least.context = positive;
  if (spread) least.batch = 1;
  memory.key.height = size.height;
  memory.key.width = size.width;
  memory.key.batch = size.batch;
  memory.key.context = size.context;
  memory.key.detail = absl::StrCat(inputs.args.sampler_name, ", ", kept);
  memory.counted = ModelNeeds(component, device, devices, size, least);
  return memory;
}

PhaseMemory DenoiseMemory(const LoadedComponent& component, const DeviceId& device,
                          const std::vector<DeviceId>& devices, const models::StepSize& size) {
  PhaseMemory memory = Memory("denoise", component);
  memory.key.height = size.height;
  memory.key.width = size.width;
  memory.key.batch = size.batch;
  memory.key.context = size.context;
  models::StepSize evaluated = size;
  evaluated.element_bytes = memory.key.element_bytes;
  memory.counted = ModelNeeds(component, device, devices, evaluated, evaluated);
  return memory;
}

PhaseMemory DecodeMemory(const LoadedComponent& component, const DeviceId& device, int64_t height,
                         int64_t width, int64_t tile_size) {
  return VaeMemory("decode", component, device, {height, width},
                   tile_size / component.vae().downscale(), &models::DecodeBytesAtOnce);
}

PhaseMemory EncodeMemory(const LoadedComponent& component, const DeviceId& device, int64_t height,
                         int64_t width, int64_t tile_size) {
  const int64_t cell = component.vae().downscale();  // pictures are cropped to whole ones
  return VaeMemory("encode", component, device, {height / cell * cell, width / cell * cell},
                   tile_size, &models::EncodeBytesAtOnce);
}

}  // namespace distorch
