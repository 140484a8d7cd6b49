// What the phases of requests need for their activations, counted from the models' shapes: at
// least, what the largest of their operations reads and writes; as expected, several of those, and
// what is kept beside them.
#ifndef LIB_SERVING_PHASE_MEMORY_H_
#define LIB_SERVING_PHASE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "lib/device/device_id.h"
#include "lib/pipeline/sample_latent.h"
#include "lib/serving/activation_room.h"
#include "lib/serving/registry.h"

namespace distorch {

// `component` computes on `device` in all of these. `devices` are DeviceManager's.

// Prompts of at most `prompt_bytes`.
PhaseMemory TextMemory(const LoadedComponent& component, const DeviceId& device,
                       size_t prompt_bytes);

// Sampling `inputs`, whose conditionings are there. `spread`: other devices may compute a share of
// it; on these, nothing is held for that, and one that has no memory for it is left out
// (lib/pipeline/device_team.h). `kept`: what else is on the device meanwhile, for runs to be told
// apart by.
PhaseMemory SamplingMemory(const LoadedComponent& component, const DeviceId& device,
                           const std::vector<DeviceId>& devices,
                           const pipeline::SampleInputs& inputs, bool spread,
                           const std::string& kept);

// One evaluation of `size`; its element_bytes are the component's.
PhaseMemory DenoiseMemory(const LoadedComponent& component, const DeviceId& device,
                          const std::vector<DeviceId>& devices, const models::StepSize& size);

// A VAE's way between a latent and a picture, of height x width in latent pixels or in the
// picture's. `tile_size`: of the picture, 0: whole.
PhaseMemory DecodeMemory(const LoadedComponent& component, const DeviceId& device, int64_t height,
                         int64_t width, int64_t tile_size);
PhaseMemory EncodeMemory(const LoadedComponent& component, const DeviceId& device, int64_t height,
                         int64_t width, int64_t tile_size);

}  // namespace distorch

#endif  // LIB_SERVING_PHASE_MEMORY_H_
