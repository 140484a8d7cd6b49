// How a placement, its blocks and the times of phases look on a terminal.
#ifndef CLIENT_CTL_PLACEMENT_VIEW_H_
#define CLIENT_CTL_PLACEMENT_VIEW_H_

#include <google/protobuf/map.h>

#include <string>

#include "client/ctl/render.h"
#include "proto/distorch.pb.h"

namespace distorch::ctl {

// A plan has no measured bytes; a loaded checkpoint's shares are of the measured ones.
enum class PlacementKind { kPlanned, kLoaded };

// One row a component and device, with a bar for the device's share of the component; the compute
// device is marked and shown even when it holds nothing.
std::string RenderPlacement(const v1::Placement& placement, PlacementKind kind,
                            const Terminal& terminal);
// One row a block.
std::string RenderBlocks(const v1::Placement& placement);
// "cuda:0 1.20 GiB, cpu 300 MiB": what is measured, or planned where nothing is.
std::string RenderDeviceBytes(const google::protobuf::RepeatedPtrField<v1::DeviceBytes>& devices);
// "plan 1 ms, weights 1.23 s", in the order in which phases happen; phases unknown here come last,
// by name.
// "predicted: 1.20 s a step", a line.
std::string RenderPrediction(double seconds_per_step);

std::string RenderPhases(const google::protobuf::Map<std::string, double>& phase_seconds);

}  // namespace distorch::ctl

#endif  // CLIENT_CTL_PLACEMENT_VIEW_H_
