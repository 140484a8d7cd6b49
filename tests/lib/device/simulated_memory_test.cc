#include "lib/device/simulated_memory.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "lib/device/simulated_device.h"
#include "tests/lib/device/error_of.h"

namespace distorch {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMiB = 1 << 20;
const at::Device kSim0(at::kPrivateUse1, 0);
const at::Device kSim1(at::kPrivateUse1, 1);

int64_t Allocated(int index = 0) { return GetSimulatedDeviceStats(index).allocated_bytes; }
int64_t Peak(int index = 0) { return GetSimulatedDeviceStats(index).peak_bytes; }

class SimulatedMemoryTest : public ::testing::Test {
 protected:
  SimulatedMemoryTest() {
    EXPECT_TRUE(
        ConfigureSimulatedDevices({{{"cuda", 0}, 64 * kMiB}, {{"cuda", 1}, 8 * kMiB}}).ok());
  }
  ~SimulatedMemoryTest() override {
    EXPECT_EQ(Allocated(0), 0);
    EXPECT_EQ(Allocated(1), 0);
  }

  const c10::InferenceMode no_autograd_;
};

TEST_F(SimulatedMemoryTest, CountsLiveStoragesToTheByte) {
  at::Tensor a = at::empty({3, 5}, at::TensorOptions(kSim0));
  EXPECT_EQ(Allocated(), 60);
  at::Tensor b = at::zeros({7}, at::TensorOptions(kSim0).dtype(at::kHalf));
  EXPECT_EQ(Allocated(), 74);
  const at::Tensor other = at::zeros({1000}, at::TensorOptions(kSim1).dtype(at::kByte));
  EXPECT_EQ(Allocated(0), 74);
  EXPECT_EQ(Allocated(1), 1000);
  a = at::Tensor();
  EXPECT_EQ(Allocated(), 14);
  b.reset();
  EXPECT_EQ(Allocated(), 0);
}

TEST_F(SimulatedMemoryTest, ViewsShareTheirStorage) {
  at::Tensor x = at::randn({4, 6}).to(kSim0);
  std::vector<at::Tensor> views = x.chunk(2, 1);
  views.push_back(x.view({24}));
  views.push_back(x.t());
  views.push_back(x.unfold(0, 2, 1));
  views.push_back(x.detach());
  views.push_back(x.view(at::kByte));
  views.push_back(x.contiguous());
  EXPECT_EQ(Allocated(), 96);
  for (const at::Tensor& view : views) EXPECT_TRUE(view.is_alias_of(x));
  x.reset();
  EXPECT_EQ(Allocated(), 96);
  views.clear();
  EXPECT_EQ(Allocated(), 0);
}

TEST_F(SimulatedMemoryTest, InPlaceOperatorsAllocateNothing) {
  const at::Tensor x = at::randn({1024}).to(kSim0);
  const void* data = x.const_data_ptr();
  ResetSimulatedPeak(0);
  x.add_(1).mul_(x).relu_();
  at::sigmoid_out(const_cast<at::Tensor&>(x), x);
  EXPECT_EQ(Peak(), 4096);
  EXPECT_EQ(x.const_data_ptr(), data);
}

TEST_F(SimulatedMemoryTest, OutputsAreAdoptedWithoutACopy) {
  const at::Tensor x = at::randn({1024}).to(kSim0);
  ResetSimulatedPeak(0);
  const at::Tensor y = x + x;
  EXPECT_EQ(Allocated(), 2 * 4096);
  EXPECT_EQ(Peak(), 2 * 4096);
}

TEST_F(SimulatedMemoryTest, OutputsThatShareAStorageAreCountedOnce) {
  const at::Tensor x = at::randn({8, 4}).to(kSim0);
  const std::vector<at::Tensor> parts = at::unsafe_split(x, 2);
  EXPECT_EQ(Allocated(), 128);
  auto [sign, logarithm] = at::slogdet(x.narrow(0, 0, 4));
  EXPECT_EQ(Allocated(), 128 + 8);
}

TEST_F(SimulatedMemoryTest, ResizedTensorsAreCountedAtTheirNewSize) {
  at::Tensor x = at::arange(4, at::TensorOptions(kSim0).dtype(at::kFloat));
  x.resize_({256});
  EXPECT_EQ(x.sizes(), at::IntArrayRef({256}));
  EXPECT_EQ(Allocated(), 1024);
  EXPECT_EQ(x[3].item<float>(), 3);
  at::Tensor out = at::empty({0}, x.options());
  at::mul_out(out, x, x);
  EXPECT_EQ(out.storage().nbytes(), 1024u);
  EXPECT_EQ(Allocated(), 2048);
  EXPECT_EQ(out[3].item<float>(), 9);
}

TEST_F(SimulatedMemoryTest, PeakIsTheHighestSinceTheReset) {
  { const at::Tensor x = at::zeros({2 * kMiB}, at::TensorOptions(kSim0).dtype(at::kByte)); }
  EXPECT_EQ(Peak(), 2 * kMiB);
  const at::Tensor y = at::zeros({kMiB}, at::TensorOptions(kSim0).dtype(at::kByte));
  EXPECT_EQ(Peak(), 2 * kMiB);
  ResetSimulatedPeak(0);
  EXPECT_EQ(Peak(), kMiB);
}

TEST_F(SimulatedMemoryTest, AnAllocationOverCapacityFailsInTheUsersTerms) {
  const at::Tensor held = at::zeros({6 * kMiB}, at::TensorOptions(kSim1).dtype(at::kByte));
  const std::string message = ErrorOf<c10::OutOfMemoryError>(
      [] { at::empty({3 * kMiB}, at::TensorOptions(kSim1).dtype(at::kByte)); });
  EXPECT_EQ(message,
            "cuda:1 (simulated): out of memory. Tried to allocate 3.00 MiB; capacity 8.00 MiB, "
            "6.00 MiB in use");
  EXPECT_EQ(Allocated(1), 6 * kMiB);
  // What fits to the byte is no failure.
  EXPECT_NO_THROW(at::empty({2 * kMiB}, at::TensorOptions(kSim1).dtype(at::kByte)));
}

TEST_F(SimulatedMemoryTest, AnOutputOverCapacityFailsAndLeavesNothing) {
  const at::Tensor x = at::zeros({3, kMiB / 2}, at::TensorOptions(kSim1));
  EXPECT_THAT(ErrorOf<c10::OutOfMemoryError>([&] { x + x; }), HasSubstr("allocate 6.00 MiB"));
  EXPECT_THAT(ErrorOf<c10::OutOfMemoryError>([&] {
                at::cat({x, x});
              }),
              HasSubstr("allocate 12.00 MiB"));
  EXPECT_EQ(Allocated(1), 6 * kMiB);
}

TEST_F(SimulatedMemoryTest, AFailedResizeLeavesTheTensorAsItWas) {
  at::Tensor x = at::ones({kMiB}, at::TensorOptions(kSim1));
  EXPECT_THAT(ErrorOf<c10::OutOfMemoryError>([&] { x.resize_({2 * kMiB}); }),
              HasSubstr("cuda:1 (simulated)"));
  EXPECT_EQ(x.numel(), kMiB);
  EXPECT_EQ(x.sum().item<float>(), kMiB);
  EXPECT_EQ(Allocated(1), 4 * kMiB);
}

TEST_F(SimulatedMemoryTest, SetFollowsAnotherStorage) {
  const at::Tensor x = at::arange(6, at::TensorOptions(kSim0).dtype(at::kFloat));
  at::Tensor y = at::empty({0}, x.options());
  y.set_(x.storage(), 2, {2, 2}, {2, 1});
  EXPECT_TRUE(y.is_alias_of(x));
  EXPECT_EQ(y[1][1].item<float>(), 5);
  at::Tensor z = at::empty({0}, x.options());
  z.set_(y);
  EXPECT_EQ(z.sum().item<float>(), 14);
  z.set_(x.storage());
  EXPECT_EQ(z.numel(), 6);
  EXPECT_EQ(Allocated(), 24);
}

TEST_F(SimulatedMemoryTest, CapacityHoldsWhenThreadsRace) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([] {
      std::vector<at::Tensor> held;
      for (int round = 0; round < 1000; ++round) {
        try {
          held.push_back(at::empty({kMiB}, at::TensorOptions(kSim1).dtype(at::kByte)));
        } catch (const c10::OutOfMemoryError&) {
          held.clear();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(Peak(1), 8 * kMiB);
  EXPECT_EQ(Allocated(1), 0);
}

}  // namespace
}  // namespace distorch
