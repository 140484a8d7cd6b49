#include "lib/checkpoint/dequantize.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>

#include "lib/checkpoint/dequantize_host.h"
#include "lib/device/cuda_device.h"
#include "lib/device/simulated_device.h"

namespace distorch {
namespace {

const c10::Device kSimulated(c10::DeviceType::PrivateUse1, 0);

constexpr DType kTypes[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0,   DType::kQ5_1,
                            DType::kQ8_0, DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,
                            DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS};

// Blocks for a matrix of 129 rows of 512, with small finite scales wherever a format has them: no
// byte is over 0x3B, as the high byte of a half below 1.
at::Tensor RandomBlocks(DType dtype) {
  return at::randint(0, 0x3C, {static_cast<int64_t>(BytesOf(dtype, 129 * 512))}, at::kByte);
}

at::Tensor Expected(DType dtype, const at::Tensor& blocks) {
  at::Tensor out = at::empty({129, 512}, at::kFloat);
  DequantizeBlocks(dtype, {static_cast<const std::byte*>(blocks.const_data_ptr()), blocks.nbytes()},
                   {out.mutable_data_ptr<float>(), static_cast<size_t>(out.numel())});
  return out;
}

TEST(DequantizeTest, IsTheHostsArithmeticRoundedOnce) {
  for (const DType dtype : kTypes) {
    const at::Tensor blocks = RandomBlocks(dtype);
    const at::Tensor expected = Expected(dtype, blocks);
    for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble}) {
      EXPECT_TRUE(at::equal(Dequantize(dtype, blocks, {129, 512}, type), expected.to(type)))
          << DTypeName(dtype) << " as " << type;
    }
  }
}

TEST(DequantizeTest, StaysOnASimulatedDevice) {
  ASSERT_TRUE(ConfigureSimulatedDevices({{{"cuda", 0}, 8 << 20}}).ok());
  const at::Tensor blocks = RandomBlocks(DType::kQ4_K);
  const at::Tensor there = Dequantize(DType::kQ4_K, blocks.to(kSimulated), {129, 512}, at::kFloat);
  EXPECT_EQ(there.device(), kSimulated);
  EXPECT_TRUE(at::equal(there.cpu(), Expected(DType::kQ4_K, blocks)));
}

TEST(DequantizeTest, StaysOnCuda) {
  const auto devices = DiscoverCudaDevices();
  if (!devices.ok() || devices->empty()) GTEST_SKIP() << "no CUDA device";
  for (const DType dtype : kTypes) {
    const at::Tensor blocks = RandomBlocks(dtype);
    for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble}) {
      const at::Tensor there = Dequantize(dtype, blocks.to(at::kCUDA), {129, 512}, type);
      EXPECT_TRUE(at::equal(there.cpu(), Expected(dtype, blocks).to(type)))
          << DTypeName(dtype) << " as " << type;
    }
  }
}

TEST(DequantizeTest, RefusesBytesThatAreNotTheElements) {
  const at::Tensor blocks = RandomBlocks(DType::kQ8_0);
  EXPECT_THROW(Dequantize(DType::kQ8_0, blocks, {128, 512}, at::kFloat), c10::Error);
  EXPECT_THROW(Dequantize(DType::kF16, blocks, {129, 512}, at::kFloat), c10::Error);
}

}  // namespace
}  // namespace distorch
