#include "lib/distorch/placement.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_dtype.h"
#include "lib/base/torch_status.h"

namespace distorch {
namespace {

// Large enough that a read's fixed cost vanishes, small enough to stay in the cache until it is
// converted.
constexpr int64_t kChunkElements = 512 << 10;
// Smaller tensors are not worth a mapping.
constexpr int64_t kOwnMappingBytes = 256 << 10;

// A run of elements of one parameter: the unit of work of a reader.
struct Chunk {
  const Param* param;
  const TensorInfo* tensor;  // what is read
  uint64_t offset;           // of the first byte within it
  at::Tensor* destination;
  int64_t begin, end;  // elements of the destination
};

// Simulated devices live in host memory, too.
bool IsHostMemory(const at::Device& device) {
  return device.is_cpu() || device.type() == c10::DeviceType::PrivateUse1;
}

// Host memory in a mapping of its own, which its end gives back to the system at once; with huge
// pages where the kernel has them, for fewer page faults while it is filled.
at::Tensor MappedTensor(const std::vector<int64_t>& shape, at::ScalarType dtype) {
  size_t bytes = c10::elementSize(dtype);
  for (int64_t dim : shape) bytes *= static_cast<size_t>(dim);
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  madvise(data, bytes, MADV_HUGEPAGE);
  return at::from_blob(
      data, shape, [bytes](void* mapped) { munmap(mapped, bytes); },
      at::TensorOptions().dtype(dtype));
}

at::Tensor Allocate(const Param& param, const SlotTarget& target) {
  const bool large =
      param.elements() * static_cast<int64_t>(c10::elementSize(target.dtype)) >= kOwnMappingBytes;
  if (target.device.is_cpu() && large) return MappedTensor(param.shape, target.dtype);
  return at::empty(param.shape, at::TensorOptions().dtype(target.dtype).device(target.device));
}

// The CPU's view of elements [begin, end) of a tensor in host memory.
at::Tensor HostView(const at::Tensor& tensor, int64_t begin, int64_t end) {
  char* data =
      static_cast<char*>(tensor.data_ptr()) + begin * static_cast<int64_t>(tensor.element_size());
  return at::from_blob(data, {end - begin}, at::TensorOptions().dtype(tensor.scalar_type()));
}

std::span<std::byte> Bytes(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

absl::Status FillChunk(const CheckpointFile& file, const Chunk& chunk) {
  const c10::ScalarType file_type = ToScalarType(chunk.param->file_dtype);
  const bool transposed = chunk.param->source->transposed;
  const bool host = IsHostMemory(chunk.destination->device());
  if (host && !transposed && chunk.destination->scalar_type() == file_type) {
    return file.Read(*chunk.tensor, chunk.offset,
                     Bytes(HostView(*chunk.destination, chunk.begin, chunk.end)));
  }
  at::Tensor buffer = at::empty({chunk.end - chunk.begin}, at::TensorOptions().dtype(file_type));
  RETURN_IF_ERROR(file.Read(*chunk.tensor, chunk.offset, Bytes(buffer)));
  if (transposed) {
    const std::vector<int64_t>& shape = chunk.param->shape;
    buffer = buffer.view({shape[1], shape[0]}).t().reshape({-1});
  }
  if (host) {
    HostView(*chunk.destination, chunk.begin, chunk.end).copy_(buffer);
  } else {
    chunk.destination->view({-1})
        .slice(0, chunk.begin, chunk.end)
        .copy_(buffer.to(chunk.destination->scalar_type()));
  }
  return absl::OkStatus();
}

// Shared by the readers: hands out chunks, gathers progress and the first error.
class Work {
 public:
  Work(std::vector<Chunk> chunks, const std::function<void(int64_t)>& progress)
      : chunks_(std::move(chunks)), progress_(progress) {}

  // Takes chunks until none is left or somebody failed.
  void Read(const CheckpointFile& file, const CancelToken& cancel) {
    c10::InferenceMode no_autograd;  // thread-local: the pool's threads do not inherit it
    while (!failed_.load(std::memory_order_relaxed)) {
      const size_t i = next_.fetch_add(1, std::memory_order_relaxed);
      if (i >= chunks_.size()) return;
      absl::Status status = cancel.Check();
      if (status.ok()) status = FillChunk(file, chunks_[i]);
      Report(chunks_[i], status);
    }
  }

  size_t size() const { return chunks_.size(); }
  absl::Status status() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  void Report(const Chunk& chunk, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (!status.ok()) {
      status_.Update(status);
      failed_.store(true, std::memory_order_relaxed);
      return;
    }
    done_bytes_ +=
        (chunk.end - chunk.begin) * static_cast<int64_t>(DTypeSize(chunk.param->file_dtype));
    if (progress_) progress_(done_bytes_);
  }

  const std::vector<Chunk> chunks_;
  const std::function<void(int64_t)>& progress_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> failed_{false};
  mutable absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  int64_t done_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

void AppendChunks(const Param& param, at::Tensor* destination, std::vector<Chunk>* chunks) {
  int64_t first = 0;  // element of the destination where the piece goes
  for (const TensorPiece& piece : param.source->pieces) {
    const int64_t rows = piece.tensor->shape.empty() ? 1 : piece.tensor->shape[0];
    const int64_t row = rows == 0 ? 0 : piece.tensor->elements() / rows;
    const int64_t count = piece.rows * row;
    // A transposed matrix is turned as a whole.
    const int64_t step = param.source->transposed ? std::max<int64_t>(1, count) : kChunkElements;
    for (int64_t begin = 0; begin < count; begin += step) {
      const auto skipped = static_cast<uint64_t>(piece.first_row * row + begin);
      chunks->push_back({&param, piece.tensor, skipped * DTypeSize(param.file_dtype), destination,
                         first + begin, first + std::min(count, begin + step)});
    }
    first += count;
  }
}

std::vector<Chunk> SplitInFileOrder(
    const std::vector<std::pair<const Param*, at::Tensor*>>& params) {
  std::vector<Chunk> chunks;
  for (const auto& [param, destination] : params) AppendChunks(*param, destination, &chunks);
  std::sort(chunks.begin(), chunks.end(), [](const Chunk& a, const Chunk& b) {
    return a.tensor->offset + a.offset < b.tensor->offset + b.offset;
  });
  return chunks;
}

absl::Status ReadAll(const CheckpointFile& file, Work* work, const CancelToken& cancel) {
  // LibTorch's own threads are the readers: inside them a conversion runs on one thread, so cores
  // are never oversubscribed.
  const int64_t readers =
      std::min<int64_t>(at::get_num_threads(), static_cast<int64_t>(work->size()));
  at::parallel_for(0, readers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) work->Read(file, cancel);
  });
  return work->status();
}

}  // namespace

int64_t TargetBytes(const SlotTarget& target) {
  int64_t bytes = 0;
  for (const Param& param : target.slot->params()) {
    bytes += param.elements() * static_cast<int64_t>(c10::elementSize(target.dtype));
  }
  return bytes;
}

absl::Status PlaceWeights(const CheckpointFile& file, std::span<const SlotTarget> targets,
                          TransferMeter* meter, const CancelToken& cancel,
                          const std::function<void(int64_t bytes_done)>& progress) {
  return RunTorch([&]() -> absl::Status {
    std::vector<std::vector<at::Tensor>> tensors(targets.size());
    std::vector<std::pair<const Param*, at::Tensor*>> to_read;
    for (size_t i = 0; i < targets.size(); ++i) {
      const std::vector<Param>& params = targets[i].slot->params();
      tensors[i].reserve(params.size());  // pointers to its elements are kept
      for (const Param& param : params) {
        if (param.source) {
          tensors[i].push_back(Allocate(param, targets[i]));
          to_read.emplace_back(&param, &tensors[i].back());
        } else {
          tensors[i].push_back(
              at::eye(param.shape[0], param.shape[1], at::TensorOptions().dtype(targets[i].dtype))
                  .to(targets[i].device));
        }
      }
    }
    Work work(SplitInFileOrder(to_read), progress);
    RETURN_IF_ERROR(ReadAll(file, &work, cancel));
    for (size_t i = 0; i < targets.size(); ++i) targets[i].slot->Fill(std::move(tensors[i]), meter);
    return absl::OkStatus();
  });
}

}  // namespace distorch
