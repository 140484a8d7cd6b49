#include "lib/nn/unit.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <optional>
#include <utility>
#include <vector>

#include "lib/device/simulated_device.h"

namespace distorch::nn {
namespace {

constexpr int64_t kMiB = 1 << 20;
const at::Device kSim0(at::kPrivateUse1, 0), kSim1(at::kPrivateUse1, 1);

// Layers without weights that tell where they ran.
class Probe {
 public:
  explicit Probe(const Scope& scope) { scope.store().AddEmpty(scope.name()); }

  // Changes `x` in place.
  at::Device Forward(at::Tensor& x, const at::Tensor& shared) const {
    x.add_(shared);
    return x.device();
  }
  // `count` is no tensor.
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& undefined, int64_t count) const {
    EXPECT_FALSE(undefined.defined());
    return x * count;
  }
};

class UnitTest : public testing::Test {
 protected:
  UnitTest()
      : store_(&no_tensors_),
        meter_({{"cuda", 0}, {"cuda", 1}, {}}),
        first_(Scope(&store_, "first")),
        second_(Scope(&store_, "second")) {
    EXPECT_TRUE(ConfigureSimulatedDevices({{{"cuda", 0}, kMiB}, {{"cuda", 1}, kMiB}}).ok());
  }

  void Place(std::optional<at::Device> first, std::optional<at::Device> second) {
    store_.PlaceUnits(std::vector{first, second}, &meter_);
  }
  int64_t Bytes(int from, int to) const {
    for (const TransferMeter::Link& link : meter_.Links()) {
      if (meter_.IndexOf(link.from) == from && meter_.IndexOf(link.to) == to) return link.bytes;
    }
    return 0;
  }

  const NamedTensors no_tensors_;
  WeightStore store_;
  TransferMeter meter_;
  const Unit<Probe> first_, second_;
};

TEST_F(UnitTest, NamesItsSlots) {
  ASSERT_EQ(store_.units().size(), 2u);
  EXPECT_EQ(store_.units()[1]->name, "second");
  EXPECT_EQ(store_.units()[1]->first_slot, 1u);
  EXPECT_EQ(store_.units()[1]->end_slot, 2u);
}

TEST_F(UnitTest, RunsWhereThePassBeganUnlessItIsPlaced) {
  at::Tensor x = at::ones({4}).to(kSim0);
  Pass pass(x);
  Shared one(at::ones({4}).to(kSim0));
  EXPECT_EQ(first_.Forward(pass, x, one), kSim0);
  EXPECT_EQ(pass.Home(x).device(), kSim0);
  EXPECT_TRUE(meter_.Links().empty());
}

TEST_F(UnitTest, ActivationsMoveWithTheUnitsAndComeHome) {
  Place(kSim1, std::nullopt);
  const at::Tensor input = at::ones({4}).to(kSim0);
  at::Tensor x = input;
  Pass pass(x);
  Shared one(at::ones({4}).to(kSim0));
  EXPECT_EQ(first_.Forward(pass, x, one), kSim1);
  EXPECT_EQ(first_.Forward(pass, x, one), kSim1);
  EXPECT_EQ(Bytes(0, 1), 2 * 16);  // x, and what is shared once
  EXPECT_EQ(second_.Forward(pass, x, one), kSim0);
  EXPECT_EQ(first_.Forward(pass, x, one), kSim1);
  EXPECT_EQ(Bytes(0, 1), 3 * 16);
  const at::Tensor home = pass.Home(std::move(x));
  EXPECT_EQ(home.device(), kSim0);
  EXPECT_EQ(Bytes(1, 0), 2 * 16);
  EXPECT_TRUE(home.to(at::kCPU).equal(at::full({4}, 5.f)));
  EXPECT_TRUE(input.to(at::kCPU).equal(at::ones({4})));  // what moved was changed, not this
}

TEST_F(UnitTest, PassesOnWhatIsNoTensor) {
  Place(kSim1, std::nullopt);
  at::Tensor x = at::ones({4}).to(kSim0);
  Pass pass(x);
  const at::Tensor y = first_.Forward(pass, std::move(x), at::Tensor(), int64_t{3});
  EXPECT_FALSE(x.defined());
  EXPECT_EQ(y.device(), kSim1);
  EXPECT_TRUE(y.to(at::kCPU).equal(at::full({4}, 3.f)));
}

TEST_F(UnitTest, OutOfMemoryOnTheHolderIsThrownAsElsewhere) {
  Place(kSim1, std::nullopt);
  at::Tensor x = at::ones({kMiB / 4}).to(kSim0);
  const at::Tensor full = at::ones({kMiB / 8}).to(kSim1);
  Pass pass(x);
  EXPECT_THROW(first_.Forward(pass, std::move(x), at::Tensor(), int64_t{1}), c10::OutOfMemoryError);
}

}  // namespace
}  // namespace distorch::nn
