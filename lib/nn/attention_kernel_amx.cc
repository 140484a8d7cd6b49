// Compiled for AMX-BF16 and AVX512-BF16 (Intel's intrinsics guide; the optimization manual's
// chapter on AMX). As in attention_kernel_simd.cc, only what has no linkage may be used here.
#include <immintrin.h>

#include "lib/nn/attention_kernel.h"

namespace distorch::nn {
namespace {

// A tile register: 16 rows of 64 bytes, which are 32 bfloat16s of a left operand; of a right one 16
// columns of 32 rows, two rows beside each other in each 4 bytes; or 16 float32 sums.
constexpr int64_t kTileRows = 16, kTileColumns = 16, kTileDepth = 32;
constexpr int64_t kTileElements = 512, kTileRowBytes = 64;

constexpr int64_t kRows = 2 * kTileRows;  // queries of a step, two tiles
constexpr int64_t kKeys =
    2 * kTileColumns;               // keys of a step of the scores; a tile's depth of values
constexpr int64_t kKeyBlock = 512;  // keys whose scores are alive at once
constexpr int64_t kScoreRow =
    kKeyBlock + 16;  // floats: rows do not fall upon each other in the cache
constexpr int64_t kWeightRow = kKeyBlock + 32;  // bfloat16s
static_assert(kQueryBlock % kRows == 0 && kKeyBlock % kKeys == 0 && kKeys == kTileDepth);

constexpr float kLowest = -3.0e38f;
constexpr float kNothing = -120;  // as a power of 2; processors are slow with denormal numbers
constexpr float kLog2E = 1.44269504f;

int64_t RoundUp(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }

// Before tiles are loaded: GCC does not know that the instruction reads memory.
void FinishStores() { __asm__ volatile("" ::: "memory"); }

// 2^x for x <= 0, to 3e-6 of the result, far below a bfloat16's rounding; at least 2^kNothing.
__m512 Exp2(__m512 x) {
  x = _mm512_max_ps(x, _mm512_set1_ps(kNothing));
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(0.0095701f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.05591786f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.24024745f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69312181f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.99999926f));
  return _mm512_scalef_ps(p, n);
}

// Keys as right operands of the scores, then values as right operands of the results: tile by tile,
// by steps of kKeys keys; in each, keys by depth, then column; values by column. Beyond the last
// key and the last channel are zeros.
struct Packed {
  Packed(int64_t keys, int64_t width)
      : depths((width + kTileDepth - 1) / kTileDepth),
        columns((width + kTileColumns - 1) / kTileColumns),
        steps((keys + kKeys - 1) / kKeys) {}
  int64_t KeyTile(int64_t step, int64_t depth) const {
    return (step * depths + depth) * 2 * kTileElements;
  }
  int64_t ValueTile(int64_t step, int64_t column) const {
    return (steps * depths * 2 + step * columns + column) * kTileElements;
  }
  int64_t Bytes() const { return ValueTile(steps, 0) * 2; }

  int64_t depths, columns, steps;
};

// Channels are packed in pairs, as 4 bytes: a head's width is even.
void PackKeys(const AttentionHead<Bfloat16Bits>& head, const Packed& layout, Bfloat16Bits* packed) {
  __builtin_memset(packed, 0, static_cast<uint64_t>(layout.ValueTile(0, 0)) * 2);
  for (int64_t key = 0; key < head.keys; ++key) {
    const Bfloat16Bits* from = head.k + key * head.k_stride;
    Bfloat16Bits* column = packed + layout.KeyTile(key / kKeys, 0) +
                           key % kKeys / kTileColumns * kTileElements + key % kTileColumns * 2;
    for (int64_t c = 0; c < head.width; column += 2 * kTileElements) {
      const int64_t end = Min(head.width, c + kTileDepth);
      for (Bfloat16Bits* pair = column; c < end; c += 2, pair += kTileDepth)
        __builtin_memcpy(pair, from + c, 4);
    }
  }
}

void PackValues(const AttentionHead<Bfloat16Bits>& head, const Packed& layout,
                Bfloat16Bits* packed) {
  const int64_t begin = layout.ValueTile(0, 0), end = layout.ValueTile(layout.steps, 0);
  __builtin_memset(packed + begin, 0, static_cast<uint64_t>(end - begin) * 2);
  for (int64_t key = 0; key < head.keys; ++key) {
    const Bfloat16Bits* from = head.v + key * head.v_stride;
    Bfloat16Bits* row =
        packed + layout.ValueTile(key / kKeys, 0) + key % kKeys / 2 * kTileDepth + key % 2;
    for (int64_t c = 0; c < head.width; row += kTileElements) {
      const int64_t stop = Min(head.width, c + kTileColumns);
      for (Bfloat16Bits* to = row; c < stop; ++c, to += 2) *to = from[c];
    }
  }
}

int64_t PackedBytes(int64_t keys, int64_t width) { return Packed(keys, width).Bytes(); }

void Pack(const AttentionHead<Bfloat16Bits>& head, void* memory) {
  const Packed layout(head.keys, head.width);
  PackKeys(head, layout, static_cast<Bfloat16Bits*>(memory));
  PackValues(head, layout, static_cast<Bfloat16Bits*>(memory));
}

// What one task keeps: queries [kQueryBlock, depths · kTileDepth], results [kQueryBlock, columns ·
// kTileColumns], scores and weights of kRows queries, and each query's largest score and sum so
// far.
struct Scratch {
  Scratch(void* memory, int64_t width)
      : query_row(RoundUp(width, kTileDepth)),
        result_row(RoundUp(width, kTileColumns)),
        results(static_cast<float*>(memory)),
        scores(results + kQueryBlock * result_row),
        largest(scores + kRows * kScoreRow),
        sums(largest + kQueryBlock),
        queries(reinterpret_cast<Bfloat16Bits*>(sums + kQueryBlock)),
        weights(queries + kQueryBlock * query_row) {}
  static int64_t Bytes(int64_t width) {
    const int64_t floats = kQueryBlock * (RoundUp(width, kTileColumns) + 2) + kRows * kScoreRow;
    return 4 * floats + 2 * (kQueryBlock * RoundUp(width, kTileDepth) + kRows * kWeightRow);
  }

  int64_t query_row, result_row;
  float *results, *scores, *largest, *sums;
  Bfloat16Bits *queries, *weights;
};

int64_t ScratchBytes(int64_t width) { return Scratch::Bytes(width); }

// Eight tiles of full size: 0 to 3 sums, 4 and 5 left, 6 and 7 right operands. They are the
// thread's, others that use tiles configure them anew.
class Tiles {
 public:
  Tiles() {
    alignas(64) struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = kTileRowBytes;
      config.rows[i] = kTileRows;
    }
    FinishStores();
    _tile_loadconfig(&config);
  }
  Tiles(const Tiles&) = delete;
  ~Tiles() { _tile_release(); }
};

// scores[kRows][keys] = queries · keys; `keys` is a multiple of kKeys.
void Scores(const Bfloat16Bits* queries, const Packed& layout, const Bfloat16Bits* packed,
            int64_t keys, const Scratch& scratch) {
  const int64_t row = scratch.query_row * 2, score_row = kScoreRow * 4;
  FinishStores();
  for (int64_t key = 0; key < keys; key += kKeys) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t depth = 0; depth < layout.depths; ++depth, packed += 2 * kTileElements) {
      _tile_loadd(4, queries + depth * kTileDepth, row);
      _tile_loadd(6, packed, kTileRowBytes);
      _tile_loadd(7, packed + kTileElements, kTileRowBytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, queries + kTileRows * scratch.query_row + depth * kTileDepth, row);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    float* to = scratch.scores + key;
    _tile_stored(0, to, score_row);
    _tile_stored(1, to + kTileColumns, score_row);
    _tile_stored(2, to + kTileRows * kScoreRow, score_row);
    _tile_stored(3, to + kTileRows * kScoreRow + kTileColumns, score_row);
  }
}

// Turns a row of scores into weights, relative to the largest score so far; returns what earlier
// weights are to be multiplied by. `factor`: from scores to powers of 2.
float Weigh(const float* scores, int64_t keys, float factor, float* largest, float* sum,
            Bfloat16Bits* weights) {
  __m512 highest = _mm512_set1_ps(*largest);
  for (int64_t i = 0; i < keys; i += 16)
    highest = _mm512_max_ps(highest, _mm512_loadu_ps(scores + i));
  const float now = _mm512_reduce_max_ps(highest);
  const __m512 shift = _mm512_set1_ps(now * factor), scale = _mm512_set1_ps(factor);
  __m512 total = _mm512_setzero_ps();
  for (int64_t i = 0; i < keys; i += 32) {
    const __m512 a = Exp2(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i), scale, shift));
    const __m512 b = Exp2(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i + 16), scale, shift));
    total = _mm512_add_ps(total, _mm512_add_ps(a, b));
    const __m512bh pair = _mm512_cvtne2ps_pbh(b, a);
    __builtin_memcpy(weights + i, &pair, sizeof pair);
  }
  const __m512 correction = Exp2(_mm512_set1_ps(*largest == now ? 0 : (*largest - now) * factor));
  *largest = now;
  *sum = *sum * _mm512_cvtss_f32(correction) + _mm512_reduce_add_ps(total);
  return _mm512_cvtss_f32(correction);
}

// results[kRows][columns] *= corrections.
void Correct(const float* corrections, int64_t columns, float* results) {
  for (int64_t r = 0; r < kRows; ++r, results += columns) {
    if (corrections[r] == 1) continue;
    for (int64_t c = 0; c < columns; c += 16) {
      _mm512_storeu_ps(results + c,
                       _mm512_mul_ps(_mm512_loadu_ps(results + c), _mm512_set1_ps(corrections[r])));
    }
  }
}

// results[kRows][kColumns tiles] += weights · values.
template <int kColumns>
void AddValues(const Bfloat16Bits* weights, const Bfloat16Bits* values, int64_t value_step,
               int64_t keys, int64_t result_row, float* results) {
  const int64_t row = result_row * 4;
  float* lower = results + kTileRows * result_row;
  FinishStores();
  _tile_loadd(0, results, row);
  _tile_loadd(2, lower, row);
  if (kColumns > 1) {
    _tile_loadd(1, results + kTileColumns, row);
    _tile_loadd(3, lower + kTileColumns, row);
  }
  for (int64_t key = 0; key < keys; key += kTileDepth, values += value_step) {
    _tile_loadd(4, weights + key, kWeightRow * 2);
    _tile_loadd(5, weights + kTileRows * kWeightRow + key, kWeightRow * 2);
    _tile_loadd(6, values, kTileRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    if (kColumns > 1) {
      _tile_loadd(7, values + kTileElements, kTileRowBytes);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, results, row);
  _tile_stored(2, lower, row);
  if (kColumns > 1) {
    _tile_stored(1, results + kTileColumns, row);
    _tile_stored(3, lower + kTileColumns, row);
  }
}

void AttendBlock(const AttentionHead<Bfloat16Bits>& head, const Packed& layout,
                 const Bfloat16Bits* packed, int64_t first_key, int64_t query,
                 const Scratch& scratch) {
  const int64_t keys = Min(kKeyBlock, head.keys - first_key), padded = RoundUp(keys, kKeys);
  const int64_t step = first_key / kKeys;
  Scores(scratch.queries + query * scratch.query_row, layout, packed + layout.KeyTile(step, 0),
         padded, scratch);
  float corrections[kRows];
  for (int64_t r = 0; r < kRows; ++r) {
    float* scores = scratch.scores + r * kScoreRow;
    for (int64_t key = keys; key < padded; ++key) scores[key] = kLowest;
    corrections[r] = Weigh(scores, padded, head.scale * kLog2E, scratch.largest + query + r,
                           scratch.sums + query + r, scratch.weights + r * kWeightRow);
  }
  float* results = scratch.results + query * scratch.result_row;
  Correct(corrections, scratch.result_row, results);
  const Bfloat16Bits* values = packed + layout.ValueTile(step, 0);
  const int64_t value_step = layout.columns * kTileElements;
  int64_t column = 0;
  for (; column + 2 <= layout.columns; column += 2) {
    AddValues<2>(scratch.weights, values + column * kTileElements, value_step, padded,
                 scratch.result_row, results + column * kTileColumns);
  }
  if (column < layout.columns) {
    AddValues<1>(scratch.weights, values + column * kTileElements, value_step, padded,
                 scratch.result_row, results + column * kTileColumns);
  }
}

// The last query stands in for those beyond it.
void Begin(const AttentionHead<Bfloat16Bits>& head, int64_t begin, int64_t queries, int64_t padded,
           const Scratch& scratch) {
  __builtin_memset(scratch.results, 0, static_cast<uint64_t>(padded * scratch.result_row) * 4);
  for (int64_t i = 0; i < padded; ++i) {
    const Bfloat16Bits* from = head.q + (begin + Min(i, queries - 1)) * head.q_stride;
    Bfloat16Bits* to = scratch.queries + i * scratch.query_row;
    __builtin_memset(to, 0, static_cast<uint64_t>(scratch.query_row) * 2);
    __builtin_memcpy(to, from, static_cast<uint64_t>(head.width) * 2);
    scratch.largest[i] = kLowest;
    scratch.sums[i] = 0;
  }
}

void End(const AttentionHead<Bfloat16Bits>& head, int64_t begin, int64_t queries,
         const Scratch& scratch) {
  for (int64_t i = 0; i < queries; ++i) {
    const float* from = scratch.results + i * scratch.result_row;
    Bfloat16Bits* to = head.out + (begin + i) * head.out_stride;
    const __m512 factor = _mm512_set1_ps(1 / scratch.sums[i]);
    for (int64_t c = 0; c < head.width; c += 16) {
      const auto lanes = static_cast<__mmask16>(head.width - c >= 16 ? 0xffff : 0xff);
      const __m256bh values = _mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_loadu_ps(from + c), factor));
      __m256i bits;
      __builtin_memcpy(&bits, &values, sizeof bits);
      _mm256_mask_storeu_epi16(to + c, lanes, bits);
    }
  }
}

void Attend(const AttentionHead<Bfloat16Bits>& head, const void* memory, int64_t begin, int64_t end,
            void* scratch_memory) {
  const Packed layout(head.keys, head.width);
  const auto* packed = static_cast<const Bfloat16Bits*>(memory);
  const Scratch scratch(scratch_memory, head.width);
  const Tiles tiles;
  for (; begin < end; begin += kQueryBlock) {
    const int64_t queries = Min(kQueryBlock, end - begin), padded = RoundUp(queries, kRows);
    Begin(head, begin, queries, padded, scratch);
    for (int64_t key = 0; key < head.keys; key += kKeyBlock) {
      for (int64_t i = 0; i < padded; i += kRows)
        AttendBlock(head, layout, packed, key, i, scratch);
    }
    End(head, begin, queries, scratch);
  }
}

}  // namespace

extern const AttentionKernel<Bfloat16Bits> kAttentionKernelAmx;
const AttentionKernel<Bfloat16Bits> kAttentionKernelAmx = {PackedBytes, ScratchBytes, Pack, Attend};

}  // namespace distorch::nn
