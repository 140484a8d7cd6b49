// Compiled for AVX2 (DISTORCH_LANES=8) and AVX-512 (DISTORCH_LANES=16). Only what has no linkage
// may be used here: a function that other files inline, too, could end up with instructions that
// their processor lacks.
#include "lib/nn/attention_kernel.h"

namespace distorch::nn {
namespace {

constexpr int64_t kLanes = DISTORCH_LANES;
using Vec =
    float __attribute__((vector_size(DISTORCH_LANES * sizeof(float)), aligned(4), may_alias));
using IntVec = int32_t __attribute__((vector_size(DISTORCH_LANES * sizeof(int32_t))));

// A tile of the products: kRows queries by kColumns keys or channels in registers.
constexpr int64_t kRows = kLanes == 16 ? 12 : 6;
constexpr int64_t kColumns = 2 * kLanes;
constexpr int64_t kKeyBlock = 256;  // keys whose scores are alive at once
static_assert(kQueryBlock % kRows == 0 && kKeyBlock % kColumns == 0);

constexpr int64_t kFloat = sizeof(float);
constexpr float kLowest = -3.0e38f;
constexpr float kNothing = -64.0f;

int64_t RoundUp(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }

Vec Load(const float* from) { return *reinterpret_cast<const Vec*>(from); }
void Store(float* to, Vec value) { *reinterpret_cast<Vec*>(to) = value; }
Vec Broadcast(float value) { return value - Vec{}; }
Vec Max(Vec a, Vec b) { return a > b ? a : b; }

float Sum(Vec v) {
  float sum = 0;
  for (int64_t i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}

float Largest(Vec v) {
  float largest = v[0];
  for (int64_t i = 1; i < kLanes; ++i) largest = v[i] > largest ? v[i] : largest;
  return largest;
}

// e^x for x <= 0, to about 1e-7 of the result. Range reduction to |r| <= ln(2)/2, then a polynomial
// (S. L. Moshier's Cephes library, expf). Below kNothing it is 0: beside a weight of 1 it would not
// be seen, and its products would be denormal numbers, which processors are slow with.
Vec Exp(Vec x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 · 2^23: adding it rounds to a whole number
  const Vec shifted = x * 1.44269504f + kMagic;
  const Vec n = shifted - kMagic;
  const Vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Vec e = p * (r * r) + r + 1.0f;
  const IntVec exponent = (reinterpret_cast<IntVec>(shifted) << 23) + (127 << 23);
  return x < kNothing ? Vec{} : e * reinterpret_cast<Vec>(exponent);
}

// Keys in panels of kColumns, each transposed to [width][kColumns]; then the values' rows, each
// padded to a multiple of kLanes. Keys beyond the last are 0.
int64_t PanelFloats(int64_t keys, int64_t width) { return RoundUp(keys, kColumns) * width; }

int64_t PackedBytes(int64_t keys, int64_t width) {
  return (PanelFloats(keys, width) + RoundUp(keys, kColumns) * RoundUp(width, kLanes)) * kFloat;
}

void Pack(const AttentionHead<float>& head, void* memory) {
  auto* packed = static_cast<float*>(memory);
  const int64_t padded = RoundUp(head.keys, kColumns), row = RoundUp(head.width, kLanes);
  for (int64_t key = 0; key < padded; ++key) {
    float* panel = packed + key / kColumns * kColumns * head.width + key % kColumns;
    const float* from = head.k + key * head.k_stride;
    for (int64_t c = 0; c < head.width; ++c) panel[c * kColumns] = key < head.keys ? from[c] : 0;
  }
  float* values = packed + PanelFloats(head.keys, head.width);
  for (int64_t key = 0; key < padded; ++key) {
    const float* from = head.v + key * head.v_stride;
    for (int64_t c = 0; c < row; ++c)
      values[key * row + c] = key < head.keys && c < head.width ? from[c] : 0;
  }
}

// What one task keeps: scaled queries [kQueryBlock, width], results [kQueryBlock, row], scores
// [kRows, kKeyBlock], and each query's largest score and sum so far.
struct Scratch {
  Scratch(void* memory, int64_t width)
      : queries(static_cast<float*>(memory)),
        results(queries + kQueryBlock * RoundUp(width, kLanes)),
        scores(results + kQueryBlock * RoundUp(width, kLanes)),
        largest(scores + kRows * kKeyBlock),
        sums(largest + kQueryBlock) {}
  static int64_t Floats(int64_t width) {
    return 2 * kQueryBlock * RoundUp(width, kLanes) + kRows * kKeyBlock + 2 * kQueryBlock;
  }

  float *queries, *results, *scores, *largest, *sums;
};

// scores[kRows][keys] = queries · panels; `keys` is a multiple of kColumns.
void Scores(const float* queries, int64_t width, const float* panels, int64_t keys, float* scores) {
  for (int64_t key = 0; key < keys; key += kColumns, panels += kColumns * width) {
    Vec sum[kRows][2] = {};
    for (int64_t c = 0; c < width; ++c) {
      const Vec k0 = Load(panels + c * kColumns), k1 = Load(panels + c * kColumns + kLanes);
      for (int64_t r = 0; r < kRows; ++r) {
        const Vec q = Broadcast(queries[r * width + c]);
        sum[r][0] += q * k0;
        sum[r][1] += q * k1;
      }
    }
    for (int64_t r = 0; r < kRows; ++r) {
      Store(scores + r * kKeyBlock + key, sum[r][0]);
      Store(scores + r * kKeyBlock + key + kLanes, sum[r][1]);
    }
  }
}

// Turns a row of scores into weights, relative to the largest score so far; returns what earlier
// weights are to be multiplied by.
float Weigh(float* scores, int64_t keys, float* largest, float* sum) {
  Vec highest = Broadcast(*largest);
  for (int64_t i = 0; i < keys; i += kLanes) highest = Max(highest, Load(scores + i));
  const float now = Largest(highest);
  Vec total = {};
  for (int64_t i = 0; i < keys; i += kLanes) {
    const Vec weight = Exp(Load(scores + i) - now);
    Store(scores + i, weight);
    total += weight;
  }
  const float correction = Exp(Broadcast(*largest - now))[0];
  *largest = now;
  *sum = *sum * correction + Sum(total);
  return correction;
}

// results[kRows][kVectors · kLanes] = results · corrections + weights · values.
template <int kVectors>
void AddValues(const float* weights, const float* values, int64_t row, int64_t keys,
               const float* corrections, float* results) {
  Vec sum[kRows][kVectors] = {};
  for (int64_t key = 0; key < keys; ++key) {
    Vec value[kVectors];
    for (int i = 0; i < kVectors; ++i) value[i] = Load(values + key * row + i * kLanes);
    for (int64_t r = 0; r < kRows; ++r) {
      const Vec weight = Broadcast(weights[r * kKeyBlock + key]);
      for (int i = 0; i < kVectors; ++i) sum[r][i] += weight * value[i];
    }
  }
  for (int64_t r = 0; r < kRows; ++r) {
    for (int i = 0; i < kVectors; ++i) {
      float* to = results + r * row + i * kLanes;
      Store(to, Load(to) * corrections[r] + sum[r][i]);
    }
  }
}

void AttendBlock(const AttentionHead<float>& head, const float* packed, int64_t first_key,
                 int64_t query, const Scratch& scratch) {
  const int64_t row = RoundUp(head.width, kLanes);
  const int64_t keys = Min(kKeyBlock, head.keys - first_key);
  const int64_t padded = RoundUp(keys, kColumns);
  const float* values = packed + PanelFloats(head.keys, head.width) + first_key * row;
  Scores(scratch.queries + query * head.width, head.width, packed + first_key * head.width, padded,
         scratch.scores);
  float corrections[kRows];
  for (int64_t r = 0; r < kRows; ++r) {
    float* scores = scratch.scores + r * kKeyBlock;
    for (int64_t key = keys; key < padded; ++key) scores[key] = kLowest;
    corrections[r] = Weigh(scores, padded, scratch.largest + query + r, scratch.sums + query + r);
  }
  float* results = scratch.results + query * row;
  int64_t c = 0;
  for (; c + kColumns <= row; c += kColumns)
    AddValues<2>(scratch.scores, values + c, row, keys, corrections, results + c);
  if (c < row) AddValues<1>(scratch.scores, values + c, row, keys, corrections, results + c);
}

int64_t ScratchBytes(int64_t width) { return Scratch::Floats(width) * kFloat; }

void Attend(const AttentionHead<float>& head, const void* packed, int64_t begin, int64_t end,
            void* memory) {
  const Scratch scratch(memory, head.width);
  const int64_t row = RoundUp(head.width, kLanes);
  for (; begin < end; begin += kQueryBlock) {
    const int64_t queries = Min(kQueryBlock, end - begin);
    const int64_t padded = RoundUp(queries, kRows);  // the last query stands in for those beyond it
    for (int64_t i = 0; i < padded; ++i) {
      const float* from = head.q + (begin + Min(i, queries - 1)) * head.q_stride;
      for (int64_t c = 0; c < head.width; ++c)
        scratch.queries[i * head.width + c] = from[c] * head.scale;
      for (int64_t c = 0; c < row; ++c) scratch.results[i * row + c] = 0;
      scratch.largest[i] = kLowest;
      scratch.sums[i] = 0;
    }
    for (int64_t key = 0; key < head.keys; key += kKeyBlock) {
      for (int64_t i = 0; i < padded; i += kRows)
        AttendBlock(head, static_cast<const float*>(packed), key, i, scratch);
    }
    for (int64_t i = 0; i < queries; ++i) {
      float* to = head.out + (begin + i) * head.out_stride;
      const float factor = 1 / scratch.sums[i];
      for (int64_t c = 0; c < head.width; ++c) to[c] = scratch.results[i * row + c] * factor;
    }
  }
}

}  // namespace

#if DISTORCH_LANES == 16
extern const AttentionKernel<float> kAttentionKernelAvx512;
const AttentionKernel<float> kAttentionKernelAvx512 = {PackedBytes, ScratchBytes, Pack, Attend};
#else
extern const AttentionKernel<float> kAttentionKernelAvx2;
const AttentionKernel<float> kAttentionKernelAvx2 = {PackedBytes, ScratchBytes, Pack, Attend};
#endif

}  // namespace distorch::nn
