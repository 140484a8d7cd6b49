#include "client/ctl/placement_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace distorch::ctl {
namespace {

using testing::HasSubstr;

void AddDevice(v1::ComponentPlacement& component, const char* name, int64_t planned,
               int64_t measured, int blocks) {
  v1::DeviceBytes& device = *component.add_devices();
  device.set_device(name);
  device.set_planned_bytes(planned);
  device.set_measured_bytes(measured);
  device.set_blocks(blocks);
}

v1::Placement TwoComponents() {
  v1::Placement placement;
  v1::ComponentPlacement& unet = *placement.add_components();
  unet.set_component("unet");
  unet.set_compute_device("cuda:0");
  AddDevice(unet, "cuda:0", 3 << 20, 3 << 20, 30);
  AddDevice(unet, "cpu", 1 << 20, 1 << 20, 12);
  v1::ComponentPlacement& clip = *placement.add_components();
  clip.set_component("clip");
  clip.set_compute_device("cuda:0");
  AddDevice(clip, "cpu", 2048, 2048, 4);
  return placement;
}

TEST(RenderPlacementTest, LoadedShowsSharesAndMarksWhereItComputes) {
  EXPECT_EQ(RenderPlacement(TwoComponents(), PlacementKind::kLoaded, Terminal()),
            "COMPONENT  DEVICE    SHARE                               PLANNED  MEASURED  BLOCKS\n"
            "unet       cuda:0 *  ##################......   75.0 %  3.00 MiB  3.00 MiB      30\n"
            "           cpu       ######..................   25.0 %  1.00 MiB  1.00 MiB      12\n"
            "clip       cuda:0 *  ........................    0.0 %       0 B       0 B       0\n"
            "           cpu       ########################  100.0 %  2.00 KiB  2.00 KiB       4\n"
            "* computes here\n");
}

TEST(RenderPlacementTest, MarksWhereUnitsRunAndSaysWhatAutoChose) {
  v1::Placement placement = TwoComponents();
  v1::ComponentPlacement& unet = *placement.mutable_components(0);
  AddDevice(unet, "cuda:1", 1 << 20, 1 << 20, 8);
  (*unet.mutable_units())["cuda:1"] = 2;
  unet.set_allocation("auto#cuda:0;4.0;cpu = cuda:0,0.01gb;cpu,0.01gb (spread)");
  const std::string text = RenderPlacement(placement, PlacementKind::kLoaded, Terminal());
  EXPECT_THAT(text, HasSubstr("\n           cuda:1 *"));
  EXPECT_THAT(text, HasSubstr("* computes here\nunet auto: cuda:0,0.01gb;cpu,0.01gb (spread)\n"));
}

TEST(RenderPredictionTest, IsALine) {
  EXPECT_EQ(RenderPrediction(1.5), "predicted: 1.50 s a step\n");
}

TEST(RenderPlacementTest, PlanHasNoMeasuredColumn) {
  v1::Placement placement = TwoComponents();
  for (auto& component : *placement.mutable_components()) {
    for (auto& device : *component.mutable_devices()) device.set_measured_bytes(0);
  }
  std::string text =
      RenderPlacement(placement, PlacementKind::kPlanned, {.tty = true, .unicode = true});
  EXPECT_THAT(text, Not(HasSubstr("MEASURED")));
  EXPECT_THAT(text, HasSubstr("██████████████████░░░░░░   75.0 %  3.00 MiB      30"));
}

TEST(RenderPlacementTest, EmptyComponentIsNoDivisionByZero) {
  v1::Placement placement;
  placement.add_components()->set_component("vae");
  EXPECT_EQ(RenderPlacement({}, PlacementKind::kPlanned, Terminal()),
            "COMPONENT  DEVICE  SHARE    PLANNED  BLOCKS\n* computes here\n");
  placement.mutable_components(0)->set_compute_device("cpu");
  EXPECT_THAT(RenderPlacement(placement, PlacementKind::kPlanned, Terminal()), HasSubstr("cpu *"));
}

TEST(RenderBlocksTest, OneRowABlock) {
  v1::Placement placement = TwoComponents();
  v1::BlockPlacement& block = *placement.mutable_components(0)->add_blocks();
  block.set_name("diffusion_model.out.2");
  block.set_device("cpu");
  block.set_bytes(11520);
  EXPECT_EQ(RenderBlocks(placement),
            "COMPONENT  BLOCK                  DEVICE  BYTES\n"
            "unet       diffusion_model.out.2  cpu     11520\n");
}

TEST(RenderDeviceBytesTest, MeasuredElsePlanned) {
  v1::ComponentPlacement component;
  AddDevice(component, "cuda:0", 1, 2048, 1);
  AddDevice(component, "cpu", 512, 0, 1);
  EXPECT_EQ(RenderDeviceBytes(component.devices()), "cuda:0 2.00 KiB, cpu 512 B");
}

TEST(RenderPhasesTest, InTheOrderTheyHappenUnknownLast) {
  google::protobuf::Map<std::string, double> phases;
  for (const char* name : {"weights", "zzz", "plan", "aaa", "open"}) phases[name] = 0.25;
  EXPECT_EQ(RenderPhases(phases),
            "open 250 ms, plan 250 ms, weights 250 ms, aaa 250 ms, zzz 250 ms");
}

}  // namespace
}  // namespace distorch::ctl
