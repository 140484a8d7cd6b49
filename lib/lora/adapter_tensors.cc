#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <span>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "lib/base/parallel.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_dtype.h"
#include "lib/base/torch_status.h"
#include "lib/distorch/stored_weights.h"
#include "lib/lora/adapter.h"

namespace distorch::lora {
namespace {

// Of each tensor within the allocation: enough for any type and for a cache line.
constexpr int64_t kAlignment = 64;
// What a reader takes at a time.
constexpr uint64_t kChunkBytes = 1 << 20;

// A run of bytes of the file, and where they go.
struct Chunk {
  const TensorInfo* tensor;
  uint64_t offset, bytes;  // within the tensor
  uint64_t to;             // within the allocation
};

struct Layout {
  std::vector<std::pair<const TensorInfo*, int64_t>> tensors;  // with the first byte of each
  int64_t bytes = 0;
};

Layout LayoutOf(const AdapterPlan& plan) {
  Layout layout;
  for (const TensorInfo* tensor : plan.tensors()) {
    layout.tensors.emplace_back(tensor, layout.bytes);
    const auto bytes = static_cast<int64_t>(tensor->bytes);
    layout.bytes += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  return layout;
}

std::vector<Chunk> Split(const Layout& layout) {
  std::vector<Chunk> chunks;
  for (const auto& [tensor, to] : layout.tensors) {
    for (uint64_t offset = 0; offset < tensor->bytes; offset += kChunkBytes) {
      chunks.push_back({tensor, offset, std::min(kChunkBytes, tensor->bytes - offset),
                        static_cast<uint64_t>(to) + offset});
    }
  }
  return chunks;
}

// The first error of several threads.
class FirstError {
 public:
  bool ok() const { return ok_.load(std::memory_order_relaxed); }
  void Update(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    if (status.ok()) return;
    absl::MutexLock lock(&mutex_);
    status_.Update(status);
    ok_.store(false, std::memory_order_relaxed);
  }
  absl::Status status() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  std::atomic<bool> ok_{true};
  mutable absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

// By LibTorch's own threads: most of the time goes into memory that is touched for the first time.
absl::Status ReadChunks(const CheckpointFile& file, const std::vector<Chunk>& chunks,
                        std::span<std::byte> out, const CancelToken& cancel) {
  FirstError error;
  std::atomic<size_t> next{0};
  ParallelFor(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    while (error.ok()) {
      const size_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= chunks.size()) return;
      const Chunk& chunk = chunks[i];
      absl::Status status = cancel.Check();
      if (status.ok())
        status = file.Read(*chunk.tensor, chunk.offset, out.subspan(chunk.to, chunk.bytes));
      error.Update(status);
    }
  });
  return error.status();
}

}  // namespace

int64_t AdapterTensors::BytesOf(const AdapterPlan& plan) { return LayoutOf(plan).bytes; }

absl::StatusOr<AdapterTensors> AdapterTensors::Read(const CheckpointFile& file,
                                                    const AdapterPlan& plan,
                                                    const c10::Device& device,
                                                    const CancelToken& cancel) {
  return RunTorchOr<AdapterTensors>([&]() -> absl::StatusOr<AdapterTensors> {
    const Layout layout = LayoutOf(plan);
    const auto bytes = at::TensorOptions().dtype(at::kByte);
    at::Tensor memory = at::empty({layout.bytes}, bytes.device(device));
    const at::Tensor host = IsHostMemory(device) ? memory : at::empty({layout.bytes}, bytes);
    RETURN_IF_ERROR(ReadChunks(file, Split(layout),
                               {static_cast<std::byte*>(host.data_ptr()), host.nbytes()}, cancel));
    if (!host.is_same(memory)) memory.copy_(host);
    AdapterTensors tensors;
    tensors.bytes_ = layout.bytes;
    for (const auto& [info, begin] : layout.tensors) {
      tensors.by_name_.emplace(info->name,
                               memory.narrow(0, begin, static_cast<int64_t>(info->bytes))
                                   .view(ToScalarType(info->dtype))
                                   .view(info->shape));
    }
    return tensors;
  });
}

bool AdapterTensors::Has(const AdapterPlan& plan) const {
  const std::vector<const TensorInfo*> needed = plan.tensors();
  return std::all_of(needed.begin(), needed.end(),
                     [this](const TensorInfo* tensor) { return by_name_.contains(tensor->name); });
}

at::Tensor AdapterTensors::Find(const TensorInfo& info) const {
  auto found = by_name_.find(info.name);
  return found == by_name_.end() ? at::Tensor() : found->second;
}

}  // namespace distorch::lora
