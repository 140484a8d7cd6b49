// The arithmetic of GGUF's quantized blocks, written once for the host and for CUDA (C++17). A
// block is cut into runs: consecutive elements that share a scale and a shift, so that a loop over
// a run is a vector's work on a CPU and a thread's on a GPU.
//
// Layouts as ggml defines them (ggml-common.h); each operation is rounded to float32 in the order
// of the Python package gguf, so that results agree with it bit for bit. Compile without fused
// multiply-add.
#ifndef LIB_CHECKPOINT_DEQUANTIZE_BLOCKS_H_
#define LIB_CHECKPOINT_DEQUANTIZE_BLOCKS_H_

#include <cstdint>
#include <cstring>

#include "lib/base/dtype.h"

#ifdef __CUDACC__
#define DISTORCH_BLOCK_INLINE __host__ __device__ __forceinline__
#else
#define DISTORCH_BLOCK_INLINE inline __attribute__((always_inline))
#endif

namespace distorch::blocks {

DISTORCH_BLOCK_INLINE float FloatOfBits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

DISTORCH_BLOCK_INLINE uint32_t Load16(const uint8_t* p) {
  return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8;
}
DISTORCH_BLOCK_INLINE uint32_t Load32(const uint8_t* p) { return Load16(p) | Load16(p + 2) << 16; }

// IEEE binary16, exactly: the exponent is rebased by a multiplication; subnormals by a subtraction.
DISTORCH_BLOCK_INLINE float LoadHalf(const uint8_t* p) {
  const uint32_t half = Load16(p) << 16;
  const uint32_t magnitude = half << 1;
  const float normal = FloatOfBits((magnitude >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
  const float subnormal = FloatOfBits((magnitude >> 17) | (126u << 23)) - 0.5f;
  const float value = magnitude < (1u << 27) ? subnormal : normal;
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return FloatOfBits(bits | (half & 0x80000000u));
}

// Each format: `kElements` elements in `kBytes` bytes; Run writes the kRun elements from
// run * kRun on.

struct Q4_0 {
  static constexpr int kElements = 32, kBytes = 18, kRun = 16;
  static DISTORCH_BLOCK_INLINE void Run(const uint8_t* __restrict__ block, int run,
                                        float* __restrict__ out) {
    const float d = LoadHalf(block);
    const uint8_t* qs = block + 2;
    for (int i = 0; i < kRun; ++i) {
      out[i] = d * static_cast<float>((qs[i] >> (4 * run) & 15) - 8);
    }
  }
};

struct Q4_1 {
  static constexpr int kElements = 32, kBytes = 20, kRun = 16;
  static DISTORCH_BLOCK_INLINE void Run(const uint8_t* __restrict__ block, int run,
                                        float* __restrict__ out) {
    const float d = LoadHalf(block), m = LoadHalf(block + 2);
    const uint8_t* qs = block + 4;
    for (int i = 0; i < kRun; ++i) out[i] = d * static_cast<float>(qs[i] >> (4 * run) & 15) + m;
  }
};

struct Q5_0 {
  static constexpr int kElements = 32, kBytes = 22, kRun = 16;
  static DISTORCH_BLOCK_INLINE void Run(const uint8_t* __restrict__ block, int run,
                                        float* __restrict__ out) {
    const float d = LoadHalf(block);
    const uint32_t high = Load32(block + 2) >> (kRun * run);
    const uint8_t* qs = block + 6;
    for (int i = 0; i < kRun; ++i) {
      const int q = (qs[i] >> (4 * run) & 15) | static_cast<int>(high >> i & 1) << 4;
      out[i] = d * static_cast<float>(q - 16);
    }
  }
};

struct Q5_1 {
  static constexpr int kElements = 32, kBytes = 24, kRun = 16;
  static DISTORCH_BLOCK_INLINE void Run(const uint8_t* __restrict__ block, int run,
                                        float* __restrict__ out) {
    const float d = LoadHalf(block), m = LoadHalf(block + 2);
    const uint32_t high = Load32(block + 4) >> (kRun * run);
    const uint8_t* qs = block + 8;
    for (int i = 0; i < kRun; ++i) {
      const int q = (qs[i] >> (4 * run) & 15) | static_cast<int>(high >> i & 1) << 4;
      out[i] = d * static_cast<float>(q) + m;
    }
  }
};

struct Q8_0 {
  static constexpr int kElements = 32, kBytes = 34, kRun = 32;
  static DISTORCH_BLOCK_INLINE void Run(const uint8_t* __restrict__ block, int,
                                        float* __restrict__ out) {
    const float d = LoadHalf(block);
    const uint8_t* qs = block + 2;
    for (int i = 0; i < kRun; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(qs[i]));
  }
};

// The K formats: 256 elements in groups with scales of their own; 2 bits a quarter byte, and the
// quarters of 32 bytes one after the other.

struct Q2_K {
  static constexpr int kElements = 256, kBytes = 84, kRun = 16;
  static DISTORCH_BLOCK_INLINE void Run(const uint8_t* __restrict__ block, int run,
                                        float* __restrict__ out) {
    const uint8_t scale = block[run];
    const float d = LoadHalf(block + 80) * static_cast<float>(scale & 15);
    const float m = LoadHalf(block + 82) * static_cast<float>(scale >> 4);
    const uint8_t* qs = block + 16 + run / 8 * 32 + run % 2 * 16;
    const int shift = run % 8 / 2 * 2;
    for (int i = 0; i < kRun; ++i) out[i] = d * static_cast<float>(qs[i] >> shift & 3) - m;
  }
};

struct Q3_K {
  static constexpr int kElements = 256, kBytes = 110, kRun = 16;
  static DISTORCH_BLOCK_INLINE void Run(const uint8_t* __restrict__ block, int run,
                                        float* __restrict__ out) {
    const uint8_t* scales = block + 96;
    const int low = scales[run % 8] >> (run / 8 * 4) & 15;
    const int high = scales[8 + run % 4] >> (run / 4 * 2) & 3;
    const float d = LoadHalf(block + 108) * static_cast<float>((low | high << 4) - 32);
    const uint8_t* qs = block + 32 + run / 8 * 32 + run % 2 * 16;
    const uint8_t* mask = block + run % 2 * 16;
    const int shift = run % 8 / 2 * 2, bit = run / 2;
    for (int i = 0; i < kRun; ++i) {
      const int q = (qs[i] >> shift & 3) + (mask[i] >> bit & 1) * 4 - 4;
      out[i] = d * static_cast<float>(q);
    }
  }
};

// Scale and minimum, 6 bits each, of group 0 to 7 in the 12 bytes of Q4_K and Q5_K.
DISTORCH_BLOCK_INLINE void ScaleAndMinimum(const uint8_t* scales, int group, int* scale,
                                           int* minimum) {
  if (group < 4) {
    *scale = scales[group] & 63;
    *minimum = scales[group + 4] & 63;
  } else {
    *scale = (scales[group + 4] & 15) | (scales[group - 4] >> 6) << 4;
    *minimum = scales[group + 4] >> 4 | (scales[group] >> 6) << 4;
  }
}

struct Q4_K {
  static constexpr int kElements = 256, kBytes = 144, kRun = 32;
  static DISTORCH_BLOCK_INLINE void Run(const uint8_t* __restrict__ block, int run,
                                        float* __restrict__ out) {
    int scale, minimum;
    ScaleAndMinimum(block + 4, run, &scale, &minimum);
    const float d = LoadHalf(block) * static_cast<float>(scale);
    const float m = LoadHalf(block + 2) * static_cast<float>(minimum);
    const uint8_t* qs = block + 16 + run / 2 * 32;
    const int shift = run % 2 * 4;
    for (int i = 0; i < kRun; ++i) out[i] = d * static_cast<float>(qs[i] >> shift & 15) - m;
  }
};

struct Q5_K {
  static constexpr int kElements = 256, kBytes = 176, kRun = 32;
  static DISTORCH_BLOCK_INLINE void Run(const uint8_t* __restrict__ block, int run,
                                        float* __restrict__ out) {
    int scale, minimum;
    ScaleAndMinimum(block + 4, run, &scale, &minimum);
    const float d = LoadHalf(block) * static_cast<float>(scale);
    const float m = LoadHalf(block + 2) * static_cast<float>(minimum);
    const uint8_t* high = block + 16;
    const uint8_t* qs = block + 48 + run / 2 * 32;
    const int shift = run % 2 * 4;
    for (int i = 0; i < kRun; ++i) {
      const int q = (qs[i] >> shift & 15) | (high[i] >> run & 1) << 4;
      out[i] = d * static_cast<float>(q) - m;
    }
  }
};

struct Q6_K {
  static constexpr int kElements = 256, kBytes = 210, kRun = 16;
  static DISTORCH_BLOCK_INLINE void Run(const uint8_t* __restrict__ block, int run,
                                        float* __restrict__ out) {
    const int half = run / 8, quarter = run % 8 / 2;
    const float d =
        LoadHalf(block + 208) * static_cast<float>(static_cast<int8_t>(block[192 + run]));
    const uint8_t* low = block + half * 64 + quarter % 2 * 32 + run % 2 * 16;
    const uint8_t* high = block + 128 + half * 32 + run % 2 * 16;
    const int low_shift = quarter / 2 * 4, high_shift = quarter * 2;
    for (int i = 0; i < kRun; ++i) {
      const int q = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
      out[i] = d * static_cast<float>(q - 32);
    }
  }
};

// The 16 levels of the IQ4 formats.
DISTORCH_BLOCK_INLINE float Iq4Level(int q) {
  constexpr int8_t kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};
  return static_cast<float>(kLevels[q]);
}

struct IQ4_NL {
  static constexpr int kElements = 32, kBytes = 18, kRun = 16;
  static DISTORCH_BLOCK_INLINE void Run(const uint8_t* __restrict__ block, int run,
                                        float* __restrict__ out) {
    const float d = LoadHalf(block);
    const uint8_t* qs = block + 2;
    for (int i = 0; i < kRun; ++i) out[i] = d * Iq4Level(qs[i] >> (4 * run) & 15);
  }
};

struct IQ4_XS {
  static constexpr int kElements = 256, kBytes = 136, kRun = 16;
  static DISTORCH_BLOCK_INLINE void Run(const uint8_t* __restrict__ block, int run,
                                        float* __restrict__ out) {
    const int group = run / 2;
    const int low = block[4 + group / 2] >> (group % 2 * 4) & 15;
    const int high = static_cast<int>(Load16(block + 2) >> (group * 2) & 3);
    const float d = LoadHalf(block) * static_cast<float>((low | high << 4) - 32);
    const uint8_t* qs = block + 8 + group * 16;
    const int shift = run % 2 * 4;
    for (int i = 0; i < kRun; ++i) out[i] = d * Iq4Level(qs[i] >> shift & 15);
  }
};

// visit(Format{}) for the format of `dtype`; nothing for a type that is not quantized.
template <typename Visitor>
void VisitFormat(DType dtype, Visitor visit) {
  switch (dtype) {
    case DType::kQ4_0:
      return visit(Q4_0{});
    case DType::kQ4_1:
      return visit(Q4_1{});
    case DType::kQ5_0:
      return visit(Q5_0{});
    case DType::kQ5_1:
      return visit(Q5_1{});
    case DType::kQ8_0:
      return visit(Q8_0{});
    case DType::kQ2_K:
      return visit(Q2_K{});
    case DType::kQ3_K:
      return visit(Q3_K{});
    case DType::kQ4_K:
      return visit(Q4_K{});
    case DType::kQ5_K:
      return visit(Q5_K{});
    case DType::kQ6_K:
      return visit(Q6_K{});
    case DType::kIQ4_NL:
      return visit(IQ4_NL{});
    case DType::kIQ4_XS:
      return visit(IQ4_XS{});
    default:
      return;
  }
}

}  // namespace distorch::blocks

#endif  // LIB_CHECKPOINT_DEQUANTIZE_BLOCKS_H_
