#include "lib/device/simulated_ops.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "lib/device/simulated_device.h"
#include "tests/lib/device/error_of.h"

namespace distorch {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const at::Device kSim0(at::kPrivateUse1, 0);
const at::Device kSim1(at::kPrivateUse1, 1);

void ConfigureTwoDevices() {
  constexpr int64_t kCapacity = 256 << 20;
  ASSERT_TRUE(ConfigureSimulatedDevices({{{"cuda", 0}, kCapacity}, {{"cuda", 1}, kCapacity}}).ok());
}

int64_t Allocated(int index = 0) { return GetSimulatedDeviceStats(index).allocated_bytes; }

using Tensors = std::vector<at::Tensor>;

struct Case {
  std::string name;
  std::function<Tensors()> inputs;
  std::function<Tensors(Tensors)> body;
};

at::Tensor Random(at::IntArrayRef sizes) { return at::randn(sizes); }
at::Tensor ChannelsLast(at::IntArrayRef sizes) {
  return at::randn(sizes).contiguous(at::MemoryFormat::ChannelsLast);
}

std::vector<Case> Cases() {
  const auto image = [] { return Tensors{Random({2, 32, 12, 10})}; };
  const auto image_channels_last = [] { return Tensors{ChannelsLast({2, 32, 12, 10})}; };
  const auto pair = [] { return Tensors{Random({2, 6, 40}), Random({2, 6, 40})}; };
  const auto conv = [] {
    return Tensors{Random({2, 32, 12, 10}), Random({24, 32, 3, 3}), Random({24})};
  };
  const auto conv_channels_last = [] {
    return Tensors{ChannelsLast({2, 32, 12, 10}), ChannelsLast({24, 32, 3, 3}), Random({24})};
  };
  const auto linear = [] { return Tensors{Random({2, 6, 40}), Random({24, 40}), Random({24})}; };
  const auto attention = [] {
    return Tensors{Random({2, 4, 37, 16}), Random({2, 4, 77, 16}), Random({2, 4, 77, 16})};
  };
  const auto matrices = [] { return Tensors{Random({4, 9, 16}), Random({4, 16, 7})}; };
  const auto norm = [] { return Tensors{Random({2, 32, 12, 10}), Random({32}), Random({32})}; };
  const auto norm_channels_last = [] {
    return Tensors{ChannelsLast({2, 32, 12, 10}), Random({32}), Random({32})};
  };
  return {
      {"Conv2d", conv, [](Tensors x) { return Tensors{at::conv2d(x[0], x[1], x[2], 1, 1)}; }},
      {"Conv2dStride", conv, [](Tensors x) { return Tensors{at::conv2d(x[0], x[1], x[2], 2, 1)}; }},
      {"Conv2dWithoutBias", conv, [](Tensors x) { return Tensors{at::conv2d(x[0], x[1])}; }},
      {"Conv2dChannelsLast", conv_channels_last,
       [](Tensors x) { return Tensors{at::conv2d(x[0], x[1], x[2], 1, 1)}; }},
      {"Conv2dPointwise",
       [] {
         return Tensors{Random({2, 32, 12, 10}), Random({24, 32, 1, 1}), Random({24})};
       },
       [](Tensors x) { return Tensors{at::conv2d(x[0], x[1], x[2])}; }},
      {"Conv1d",
       [] {
         return Tensors{Random({2, 8, 20}), Random({6, 8, 3})};
       },
       [](Tensors x) { return Tensors{at::conv1d(x[0], x[1], {}, 1, 1)}; }},
      {"ConvTranspose2d",
       [] {
         return Tensors{Random({2, 8, 6, 6}), Random({8, 4, 2, 2})};
       },
       [](Tensors x) { return Tensors{at::conv_transpose2d(x[0], x[1], {}, 2)}; }},
      {"Linear", linear, [](Tensors x) { return Tensors{at::linear(x[0], x[1], x[2])}; }},
      {"LinearWithoutBias", linear, [](Tensors x) { return Tensors{at::linear(x[0], x[1])}; }},
      {"LinearOfPermuted", linear,
       [](Tensors x) { return Tensors{at::linear(x[0].transpose(0, 1), x[1], x[2])}; }},
      {"Addmm",
       [] {
         return Tensors{Random({7}), Random({9, 16}), Random({16, 7})};
       },
       [](Tensors x) { return Tensors{at::addmm(x[0], x[1], x[2])}; }},
      {"Bmm", matrices, [](Tensors x) { return Tensors{at::bmm(x[0], x[1])}; }},
      {"Baddbmm",
       [] {
         return Tensors{Random({4, 9, 7}), Random({4, 9, 16}), Random({4, 16, 7})};
       },
       [](Tensors x) { return Tensors{at::baddbmm(x[0], x[1], x[2], 0.5, 0.125)}; }},
      {"Matmul", matrices, [](Tensors x) { return Tensors{at::matmul(x[0], x[1])}; }},
      {"MatmulBroadcast", matrices,
       [](Tensors x) {
         return Tensors{at::matmul(x[0], x[1][0]), at::matmul(x[0][0], x[1])};
       }},
      {"Einsum", matrices,
       [](Tensors x) {
         return Tensors{at::einsum("bij,bjk->bik", {x[0], x[1]})};
       }},
      {"Attention", attention,
       [](Tensors x) { return Tensors{at::scaled_dot_product_attention(x[0], x[1], x[2])}; }},
      {"CausalAttention",
       [] {
         return Tensors{Random({2, 4, 77, 16}), Random({2, 4, 77, 16}), Random({2, 4, 77, 16})};
       },
       [](Tensors x) {
         return Tensors{at::scaled_dot_product_attention(x[0], x[1], x[2], {}, 0.0, true)};
       }},
      {"MaskedAttention",
       [attention] {
         Tensors x = attention();
         x.push_back(Random({37, 77}));
         return x;
       },
       [](Tensors x) { return Tensors{at::scaled_dot_product_attention(x[0], x[1], x[2], x[3])}; }},
      {"AttentionOfTransposed",
       [] {
         return Tensors{Random({2, 37, 4, 16})};
       },
       [](Tensors x) {
         const at::Tensor q = x[0].transpose(1, 2);
         return Tensors{at::scaled_dot_product_attention(q, q, q)};
       }},
      {"Softmax", pair,
       [](Tensors x) {
         return Tensors{x[0].softmax(-1), x[0].log_softmax(1)};
       }},
      {"GroupNorm", norm,
       [](Tensors x) { return Tensors{at::group_norm(x[0], 8, x[1], x[2], 1e-6)}; }},
      {"GroupNormChannelsLast", norm_channels_last,
       [](Tensors x) { return Tensors{at::group_norm(x[0], 8, x[1], x[2], 1e-6)}; }},
      {"NativeGroupNorm", norm,
       [](Tensors x) {
         auto [y, mean, rstd] = at::native_group_norm(x[0], x[1], x[2], 2, 32, 120, 8, 1e-5);
         return Tensors{y, mean, rstd};
       }},
      {"LayerNorm",
       [] {
         return Tensors{Random({2, 6, 40}), Random({40}), Random({40})};
       },
       [](Tensors x) { return Tensors{at::layer_norm(x[0], {40}, x[1], x[2])}; }},
      {"LayerNormWithoutAffine", pair,
       [](Tensors x) { return Tensors{at::layer_norm(x[0], {40})}; }},
      {"RmsNorm",
       [] {
         return Tensors{Random({2, 6, 40}), Random({40})};
       },
       [](Tensors x) { return Tensors{at::rms_norm(x[0], {40}, x[1], 1e-6)}; }},
      {"Activations", pair,
       [](Tensors x) {
         return Tensors{at::gelu(x[0]), at::gelu(x[0], "tanh"),           at::silu(x[0]),
                        at::relu(x[0]), x[0] * at::sigmoid(1.702 * x[0]), at::tanh(x[0])};
       }},
      {"Embedding",
       [] {
         return Tensors{Random({30, 8})};
       },
       [](Tensors x) {
         const at::Tensor ids = at::arange(12, x[0].options().dtype(at::kLong)).view({2, 6});
         return Tensors{at::embedding(x[0], ids), at::embedding(x[0], ids.to(at::kInt))};
       }},
      {"CatStackChunkSplit", pair,
       [](Tensors x) {
         Tensors out = at::chunk(x[0], 3, -1);
         for (at::Tensor& t : at::split(x[1], 2, 1)) out.push_back(t);
         for (at::Tensor& t : at::unbind(x[1])) out.push_back(t);
         out.push_back(at::cat({x[0], x[1]}, 1));
         out.push_back(at::stack({x[0], x[1]}, 2));
         return out;
       }},
      {"UpsampleNearest", image,
       [](Tensors x) {
         return Tensors{at::upsample_nearest2d(x[0], {24, 20}),
                        at::upsample_nearest2d(x[0], at::OptionalIntArrayRef(),
                                               at::ArrayRef<double>({2.0, 2.0}))};
       }},
      {"UpsampleChannelsLast", image_channels_last,
       [](Tensors x) {
         return Tensors{at::upsample_nearest2d(x[0], {24, 20}),
                        at::upsample_bilinear2d(x[0], {18, 15}, false),
                        at::upsample_bicubic2d(x[0], {18, 15}, false)};
       }},
      {"Pad", image,
       [](Tensors x) {
         return Tensors{at::constant_pad_nd(x[0], {0, 1, 0, 1}), at::pad(x[0], {1, 1, 1, 1}),
                        at::reflection_pad2d(x[0], {1, 1, 1, 1})};
       }},
      {"Pooling", image,
       [](Tensors x) {
         return Tensors{at::avg_pool2d(x[0], 2), at::adaptive_avg_pool2d(x[0], {3, 3}),
                        at::max_pool2d(x[0], 2)};
       }},
      {"Arithmetic", pair,
       [](Tensors x) {
         return Tensors{x[0] + x[1],
                        x[0] - 1.5,
                        2 - x[0],
                        x[0] * x[1],
                        x[0] / 0.18215,
                        x[0].pow(2),
                        x[0].clamp(-1, 1),
                        x[0].add(x[1], 0.5),
                        at::addcmul(x[0], x[0], x[1], 2.0),
                        -x[0],
                        at::lerp(x[0], x[1], 0.25)};
       }},
      {"Elementary", pair,
       [](Tensors x) {
         return Tensors{x[0].exp(),         x[0].sin(),       x[0].cos(),
                        x[0].abs().sqrt(),  x[0].abs().log(), x[0].erf(),
                        x[0].abs().rsqrt(), x[0].floor(),     x[0].round()};
       }},
      {"Comparisons", pair,
       [](Tensors x) {
         return Tensors{x[0] < x[1], x[0] == x[0], at::where(x[0] > 0, x[0], x[1]),
                        at::maximum(x[0], x[1]), x[0].masked_fill(x[1] > 0, -1e4)};
       }},
      {"Reductions", pair,
       [](Tensors x) {
         return Tensors{x[0].sum(),     x[0].mean({-1}, true), x[0].std({1}, true, true),
                        x[0].amax(-1),  x[0].norm(),           x[0].cumsum(-1),
                        x[0].argmax(-1)};
       }},
      {"Indexing", pair,
       [](Tensors x) {
         const at::Tensor rows = at::arange(3, x[0].options().dtype(at::kLong));
         return Tensors{at::index_select(x[0], 1, rows),
                        x[0].index({at::Tensor(), rows}),
                        at::gather(x[0], 1, rows.view({1, 3, 1}).expand({2, 3, 40})),
                        x[0].select(1, 2),
                        x[0].slice(2, 3, 30, 2),
                        x[0].narrow(1, 1, 4)};
       }},
      {"Sorting", pair,
       [](Tensors x) {
         auto [values, indices] = x[0].sort(-1);
         auto [top, top_indices] = x[0].topk(5);
         return Tensors{values, indices, top, top_indices};
       }},
      {"Views", image,
       [](Tensors x) {
         return Tensors{
             x[0].permute({0, 2, 3, 1}),   x[0].permute({0, 2, 3, 1}).reshape({2, 120, 32}),
             x[0].view({2, 8, 4, 120}),    x[0].flatten(2).transpose(1, 2).contiguous(),
             x[0].unsqueeze(0).squeeze(0), x[0][0].expand({3, 32, 12, 10}),
             x[0].repeat({1, 2, 1, 1}),    x[0].repeat_interleave(2, 1),
             at::pixel_shuffle(x[0], 2),   at::flip(x[0], {3}),
             at::roll(x[0], 1, 2),         x[0].unfold(2, 4, 2)};
       }},
      {"MemoryFormats", image,
       [](Tensors x) {
         return Tensors{x[0].contiguous(at::MemoryFormat::ChannelsLast),
                        x[0].to(at::MemoryFormat::ChannelsLast).clone(),
                        at::empty_like(x[0].contiguous(at::MemoryFormat::ChannelsLast)).zero_(),
                        at::silu(x[0].contiguous(at::MemoryFormat::ChannelsLast))};
       }},
      {"Conversions", pair,
       [](Tensors x) {
         return Tensors{x[0].to(at::kHalf),   x[0].to(at::kBFloat16),
                        x[0].to(at::kDouble), x[0].to(at::kFloat8_e4m3fn).to(at::kFloat),
                        x[0].to(at::kInt),    (x[0] * 255).clamp(0, 255).to(at::kByte),
                        x[0].view(at::kByte)};
       }},
      {"Factories", pair,
       [](Tensors x) {
         const at::TensorOptions options = x[0].options();
         return Tensors{at::zeros({3}, options),         at::ones_like(x[0]),
                        at::full({2, 2}, 7, options),    at::arange(0, 10, 0.5, options),
                        at::linspace(0, 1, 11, options), at::eye(4, options),
                        at::scalar_tensor(3, options),   at::tril(at::ones({4, 4}, options))};
       }},
      {"InPlace", pair,
       [](Tensors x) {
         at::Tensor y = x[0].clone();
         y.add_(x[1]).mul_(2).div_(3).clamp_(-1, 1);
         y.select(1, 0).copy_(x[1].select(1, 1));
         y.slice(2, 0, 4).zero_();
         y.index_put_({at::Tensor(), at::zeros({1}, y.options().dtype(at::kLong))},
                      at::ones({1}, y.options()));
         y.unsqueeze_(0).transpose_(1, 2);
         at::Tensor z = at::empty({0}, y.options());
         at::add_out(z, x[0], x[1]);
         at::Tensor w = at::empty_like(x[0]);
         at::sigmoid_out(w, x[0]);
         return Tensors{y, z, w, at::relu_(w.sub_(0.5))};
       }},
      {"LinearAlgebra",
       [] {
         return Tensors{Random({6, 6})};
       },
       [](Tensors x) {
         const at::Tensor a = x[0].to(at::kFloat);
         auto [q, r] = at::linalg_qr(a);
         return Tensors{q, r, at::linalg_inv(a), at::linalg_vector_norm(a), at::kron(a, a)};
       }},
      {"Fourier", image,
       [](Tensors x) {
         const at::Tensor f = at::fft_fftn(x[0].to(at::kFloat), {}, {{2, 3}});
         return Tensors{at::real(at::fft_ifftn(f, {}, {{2, 3}})).contiguous()};
       }},
  };
}

// The sizes, strides and bits of two tensors agree.
void ExpectSame(const at::Tensor& cpu, const at::Tensor& simulated) {
  ASSERT_EQ(simulated.device(), kSim0);
  ASSERT_EQ(simulated.dtype(), cpu.dtype());
  ASSERT_EQ(simulated.sizes(), cpu.sizes());
  EXPECT_EQ(simulated.strides(), cpu.strides());
  const auto bits = [](const at::Tensor& t) {
    return t.cpu().contiguous().view({-1}).view(at::kByte);
  };
  EXPECT_TRUE(at::equal(bits(cpu), bits(simulated)));
}

struct Mode {
  std::string name;
  bool inference;
  at::ScalarType dtype;
};

class ParityTest : public ::testing::TestWithParam<std::tuple<Case, Mode>> {
 protected:
  void SetUp() override { ConfigureTwoDevices(); }
  void TearDown() override { EXPECT_EQ(Allocated(), 0); }
};

TEST_P(ParityTest, BitsAreTheCpus) {
  const auto& [test, mode] = GetParam();
  std::optional<c10::InferenceMode> inference;
  if (mode.inference) inference.emplace();
  const c10::NoGradGuard no_grad;
  at::manual_seed(7);
  Tensors inputs = test.inputs();
  Tensors simulated;
  for (at::Tensor& input : inputs) {
    input = input.to(mode.dtype);
    simulated.push_back(input.to(kSim0));
  }
  const Tensors expected = test.body(inputs);
  const Tensors actual = test.body(simulated);
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "output " << i);
    ExpectSame(expected[i], actual[i]);
    EXPECT_EQ(actual[i].is_inference(), expected[i].is_inference());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Operators, ParityTest,
    ::testing::Combine(::testing::ValuesIn(Cases()),
                       ::testing::Values(Mode{"Float", true, at::kFloat},
                                         Mode{"FloatNoGrad", false, at::kFloat},
                                         Mode{"Half", true, at::kHalf},
                                         Mode{"BFloat16", true, at::kBFloat16})),
    [](const auto& info) { return std::get<0>(info.param).name + std::get<1>(info.param).name; });

class OperatorTest : public ::testing::Test {
 protected:
  void SetUp() override { ConfigureTwoDevices(); }
  void TearDown() override {
    EXPECT_EQ(Allocated(0), 0);
    EXPECT_EQ(Allocated(1), 0);
  }

  const c10::InferenceMode no_autograd_;
};

TEST_F(OperatorTest, CopiesBetweenAllDevices) {
  const at::Tensor cpu = at::randn({5, 3});
  const at::Tensor first = cpu.to(kSim0, /*non_blocking=*/true);
  const at::Tensor second = first.to(kSim1, at::kDouble);
  EXPECT_EQ(second.device(), kSim1);
  EXPECT_EQ(Allocated(1), 120);
  EXPECT_TRUE(at::equal(second.to(at::kCPU, at::kFloat, /*non_blocking=*/true), cpu));
  at::Tensor target = at::empty({3, 5}, at::TensorOptions(kSim0).dtype(at::kHalf));
  target.copy_(cpu.t());
  EXPECT_TRUE(at::equal(target.cpu(), cpu.t().to(at::kHalf)));
  at::Tensor back = at::empty({2, 5, 3});
  back.copy_(first);
  EXPECT_TRUE(at::equal(back[1], cpu));
  EXPECT_TRUE(first.to(kSim0).is_same(first));
}

TEST_F(OperatorTest, ScalarsAreReadBack) {
  const at::Tensor x = at::arange(6, at::TensorOptions(kSim0).dtype(at::kFloat));
  EXPECT_EQ(x.sum().item<float>(), 15);
  EXPECT_TRUE(at::equal(x, x.clone()));
  EXPECT_TRUE(at::allclose(x, x + 1e-9));
}

TEST_F(OperatorTest, OperandsOnTwoDevicesAreAnErrorThatNamesThem) {
  const at::Tensor on_first = at::ones({2, 2}).to(kSim0);
  const at::Tensor on_second = at::ones({2, 2}).to(kSim1);
  const at::Tensor on_cpu = at::ones({2, 2});
  const std::vector<std::pair<std::string, std::function<void()>>> calls = {
      {"aten::add.Tensor", [&] { on_first + on_second; }},
      {"aten::linear", [&] { at::linear(on_first, on_second); }},
      {"aten::matmul", [&] { at::matmul(on_first, on_second); }},
      {"aten::cat",
       [&] {
         at::cat({on_first, on_second});
       }},
      {"aten::add_.Tensor", [&] { on_first.clone().add_(on_second); }},
      {"aten::convolution",
       [&] {
         at::conv2d(on_first.view({1, 1, 2, 2}), on_second.view({1, 1, 2, 2}));
       }},
      {"aten::group_norm", [&] { at::group_norm(on_first, 2, on_second[0], on_second[1]); }},
      {"aten::scaled_dot_product_attention",
       [&] { at::scaled_dot_product_attention(on_first, on_first, on_second); }},
      {"aten::index.Tensor", [&] { on_first.index({on_second.to(at::kLong)}); }},
  };
  for (const auto& [name, call] : calls) {
    EXPECT_THAT(ErrorOf<c10::Error>(call),
                AllOf(HasSubstr(name + ":"), HasSubstr("cuda:0 and cuda:1")));
  }
  EXPECT_THAT(ErrorOf<c10::Error>([&] { on_first* on_cpu; }), HasSubstr("cuda:0 and cpu"));
  EXPECT_THAT(ErrorOf<c10::Error>([&] { on_cpu* on_first; }), HasSubstr("cpu and cuda:0"));
  EXPECT_THAT(ErrorOf<c10::Error>([&] { at::scalar_tensor(1).add_(on_first[0][0]); }),
              HasSubstr("cpu and cuda:0"));
}

TEST_F(OperatorTest, CpuTensorsOfDimensionZeroAreScalars) {
  const at::Tensor x = at::ones({3}).to(kSim0);
  const at::Tensor y = at::scalar_tensor(2) * x + at::scalar_tensor(1, at::kDouble);
  EXPECT_EQ(y.device(), kSim0);
  EXPECT_EQ(y.dtype(), at::kFloat);
  EXPECT_EQ(y.sum().item<float>(), 9);
}

TEST_F(OperatorTest, ErrorsOfKernelsAreTheCpus) {
  const at::Tensor x = at::ones({2, 3}).to(kSim0);
  EXPECT_THAT(ErrorOf<c10::Error>([&] { at::mm(x, x); }),
              HasSubstr("mat1 and mat2 shapes cannot be multiplied"));
  EXPECT_EQ(Allocated(), 24);
}

TEST_F(OperatorTest, ThreadsShareADevice) {
  const at::Tensor cpu = at::randn({2, 8, 16, 16});
  const at::Tensor weight = at::randn({8, 8, 3, 3});
  const at::Tensor expected = at::conv2d(cpu, weight, {}, 1, 1).relu();
  {
    const at::Tensor shared = weight.to(kSim0);
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] {
        const c10::InferenceMode no_autograd;
        const at::Device device = i % 2 == 0 ? kSim0 : kSim1;
        const c10::DeviceGuard guard(device);
        const at::Tensor mine = i % 2 == 0 ? shared : shared.to(device);
        for (int round = 0; round < 25; ++round) {
          const at::Tensor here = at::empty_like(cpu, at::TensorOptions(at::kPrivateUse1));
          EXPECT_EQ(here.device(), device);
          here.copy_(cpu);
          const at::Tensor out = at::conv2d(here, mine, {}, 1, 1).relu_();
          EXPECT_TRUE(at::allclose(out.cpu(), expected, 1e-4, 1e-5));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(Allocated(0), shared.storage().nbytes());
    EXPECT_EQ(Allocated(1), 0);
  }
}

}  // namespace
}  // namespace distorch
