#include "lib/sampling/brownian_tree.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace distorch::sampling {
namespace {

constexpr size_t kPoolSize = 24;

// To 6 decimals, exactly as a decimal conversion rounds.
double Round(double value) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.6f", value);
  return std::strtod(text, nullptr);
}

void AppendWords(uint64_t value, std::vector<uint32_t>& words) {
  words.push_back(static_cast<uint32_t>(value));
  if (value >> 32 != 0) words.push_back(static_cast<uint32_t>(value >> 32));
}

class Hash {
 public:
  Hash(uint32_t initial, uint32_t multiplier) : state_(initial), multiplier_(multiplier) {}

  uint32_t operator()(uint32_t value) {
    value ^= state_;
    state_ *= multiplier_;
    value *= state_;
    return value ^ value >> 16;
  }

 private:
  uint32_t state_;
  const uint32_t multiplier_;
};

uint32_t Mix(uint32_t x, uint32_t y) {
  const uint32_t mixed = 0xca01f9ddu * x - 0x4973f715u * y;
  return mixed ^ mixed >> 16;
}

}  // namespace

std::vector<uint32_t> HashSeeds(std::span<const uint32_t> entropy, size_t pool_size, size_t count) {
  Hash hash(0x43b0d7e5u, 0x931e8875u);
  std::vector<uint32_t> pool(pool_size);
  for (size_t i = 0; i < pool_size; ++i) pool[i] = hash(i < entropy.size() ? entropy[i] : 0);
  for (size_t from = 0; from < pool_size; ++from) {
    for (size_t to = 0; to < pool_size; ++to) {
      if (from != to) pool[to] = Mix(pool[to], hash(pool[from]));
    }
  }
  for (size_t from = pool_size; from < entropy.size(); ++from) {
    for (uint32_t& word : pool) word = Mix(word, hash(entropy[from]));
  }
  Hash output(0x8b51f9ddu, 0x58f38dedu);
  std::vector<uint32_t> seeds(count);
  for (size_t i = 0; i < count; ++i) seeds[i] = output(pool[i % pool_size]);
  return seeds;
}

BrownianTree::BrownianTree(const at::Tensor& like, double start, double end, uint64_t seed)
    : shape_(like.sizes().vec()),
      device_(like.device()),
      seed_(seed),
      root_{.start = Round(start), .end = Round(end), .key = 0, .depth = 0, .increment = {}} {
  std::vector<uint32_t> entropy;
  AppendWords(seed, entropy);
  root_.increment = Draw(HashSeeds(entropy, kPoolSize, 1)[0]).mul_(std::sqrt(end - start));
}

at::Tensor BrownianTree::Draw(uint32_t seed) const {
  return at::randn(shape_, at::detail::createCPUGenerator(seed),
                   at::TensorOptions(at::kFloat).device(at::kCPU));
}

at::Tensor BrownianTree::Noise(double a, double b) const {
  const auto inside = [&](double time) { return Round(std::clamp(time, root_.start, root_.end)); };
  const double from = inside(std::min(a, b)), to = inside(std::max(a, b));
  at::Tensor sum;
  if (from < to) {
    Accumulate(root_, from, to, sum);
  } else {
    sum = at::zeros(shape_, at::TensorOptions(at::kFloat).device(at::kCPU));
  }
  return (sum * ((b > a ? 1 : -1) / std::sqrt(std::abs(b - a)))).to(device_);
}

// Adds the increments of the largest nodes that together make up [from, to], from left to right.
void BrownianTree::Accumulate(const Node& node, double from, double to, at::Tensor& sum) const {
  if (from <= node.start && node.end <= to) {
    sum = sum.defined() ? sum + node.increment : node.increment;
    return;
  }
  std::vector<uint32_t> entropy;
  AppendWords(seed_, entropy);
  entropy.resize(kPoolSize);  // numpy pads before a spawn key, so that no key can pass for entropy
  AppendWords(node.key, entropy);
  AppendWords(node.depth, entropy);
  const at::Tensor noise = Draw(HashSeeds(entropy, kPoolSize, 1)[0]);

  const double middle = Round(0.5 * (node.end + node.start));
  const double left = middle - node.start, right = node.end - middle,
               reciprocal = 1 / (node.end - node.start);
  const at::Tensor left_increment =
      (node.increment * left).mul_(reciprocal).add_(noise * std::sqrt(left * right * reciprocal));
  if (from < middle) {
    Accumulate({.start = node.start,
                .end = middle,
                .key = 2 * node.key,
                .depth = node.depth + 1,
                .increment = left_increment},
               from, to, sum);
  }
  if (to > middle) {
    Accumulate({.start = middle,
                .end = node.end,
                .key = 2 * node.key + 1,
                .depth = node.depth + 1,
                .increment = node.increment - left_increment},
               from, to, sum);
  }
}

}  // namespace distorch::sampling
