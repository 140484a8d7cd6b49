#include "lib/distorch/placement.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "lib/base/parallel.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_dtype.h"
#include "lib/base/torch_status.h"
#include "lib/checkpoint/dequantize.h"
#include "lib/distorch/stored_weights.h"

namespace distorch {
namespace {

// Large enough that a read's fixed cost vanishes, small enough to stay in the cache until it is
// converted.
constexpr int64_t kChunkElements = 512 << 10;
// Smaller tensors are not worth a mapping.
constexpr int64_t kOwnMappingBytes = 256 << 10;

// What becomes of one parameter.
struct Destination {
  const Param* param;
  at::Tensor tensor;     // of param->shape; of a quantized type, the bytes of its blocks
  StorageFormat format;  // of `tensor`
  float file_scale;      // to multiply the file's values by when they are converted

  bool as_in_file() const { return format.dtype == param->file_dtype; }
};

// A run of elements of one parameter: the unit of work of a reader.
struct Chunk {
  const Destination* destination;
  const TensorInfo* tensor;  // what is read
  uint64_t offset;           // of the first byte within it
  int64_t begin, end;        // elements of the destination

  uint64_t file_bytes() const {
    return BytesOf(destination->param->file_dtype, static_cast<uint64_t>(end - begin));
  }
};

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

at::Tensor Allocate(const Param& param, DType dtype, const c10::Device& device) {
  const int64_t bytes = param.BytesIn(dtype);
  const std::vector<int64_t> shape = IsQuantized(dtype) ? std::vector<int64_t>{bytes} : param.shape;
  const at::ScalarType type = ToScalarType(dtype);
  if (device.is_cpu() && bytes >= kOwnMappingBytes) return MappedTensor(shape, type);
  return at::empty(shape, at::TensorOptions().dtype(type).device(device));
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

// The bytes that `chunk` takes in a destination that is stored as the file is.
absl::Status CopyChunk(const CheckpointFile& file, const Chunk& chunk) {
  const at::Tensor& to = chunk.destination->tensor;
  const uint64_t begin =
      BytesOf(chunk.destination->param->file_dtype, static_cast<uint64_t>(chunk.begin));
  const uint64_t count = chunk.file_bytes();
  if (IsHostMemory(to.device())) {
    return file.Read(*chunk.tensor, chunk.offset, Bytes(to).subspan(begin, count));
  }
  const at::Tensor buffer = at::empty({static_cast<int64_t>(count)}, at::kByte);
  RETURN_IF_ERROR(file.Read(*chunk.tensor, chunk.offset, Bytes(buffer)));
  to.view({-1})
      .view(at::kByte)
      .slice(0, static_cast<int64_t>(begin), static_cast<int64_t>(begin + count))
      .copy_(buffer);
  return absl::OkStatus();
}

// The values of `chunk`, in a type of LibTorch's, in host memory.
absl::StatusOr<at::Tensor> ReadValues(const CheckpointFile& file, const Chunk& chunk) {
  const DType file_dtype = chunk.destination->param->file_dtype;
  const int64_t count = chunk.end - chunk.begin;
  at::Tensor raw = at::empty({static_cast<int64_t>(chunk.file_bytes())}, at::kByte);
  RETURN_IF_ERROR(file.Read(*chunk.tensor, chunk.offset, Bytes(raw)));
  at::Tensor values = IsQuantized(file_dtype) ? Dequantize(file_dtype, raw, {count}, at::kFloat)
                                              : raw.view(ToScalarType(file_dtype));
  if (chunk.destination->file_scale != 1) {
    values = values.to(at::kFloat).mul_(chunk.destination->file_scale);
  }
  return values;
}

absl::Status FillChunk(const CheckpointFile& file, const Chunk& chunk) {
  const Destination& destination = *chunk.destination;
  const bool transposed = destination.param->source->transposed;
  if (destination.as_in_file() && !transposed) return CopyChunk(file, chunk);
  ASSIGN_OR_RETURN(at::Tensor values, ReadValues(file, chunk));
  if (transposed) {
    const std::vector<int64_t>& shape = destination.param->shape;
    values = values.view({shape[1], shape[0]}).t().reshape({-1});
  }
  const at::Tensor& to = destination.tensor;
  if (IsHostMemory(to.device())) {
    HostView(to, chunk.begin, chunk.end).copy_(values);
  } else {
    to.view({-1}).slice(0, chunk.begin, chunk.end).copy_(values.to(to.scalar_type()));
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
    done_bytes_ += static_cast<int64_t>(chunk.file_bytes());
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

void AppendChunks(const Destination& destination, std::vector<Chunk>* chunks) {
  const NamedTensor& source = *destination.param->source;
  int64_t first = 0;  // element of the destination where the piece goes
  for (const TensorPiece& piece : source.pieces) {
    const int64_t rows = piece.tensor->shape.empty() ? 1 : piece.tensor->shape[0];
    const int64_t row = rows == 0 ? 0 : piece.tensor->elements() / rows;
    const int64_t count = piece.rows * row;
    // A transposed matrix is turned as a whole.
    const int64_t step = source.transposed ? std::max<int64_t>(1, count) : kChunkElements;
    for (int64_t begin = 0; begin < count; begin += step) {
      const auto skipped = static_cast<uint64_t>(piece.first_row * row + begin);
      chunks->push_back({&destination, piece.tensor, BytesOf(source.dtype, skipped), first + begin,
                         first + std::min(count, begin + step)});
    }
    first += count;
  }
}

std::vector<Chunk> SplitInFileOrder(const std::vector<std::vector<Destination>>& slots) {
  std::vector<Chunk> chunks;
  for (const auto& destinations : slots) {
    for (const Destination& destination : destinations) {
      if (destination.param->source && !destination.tensor.is_meta())
        AppendChunks(destination, &chunks);
    }
  }
  std::sort(chunks.begin(), chunks.end(), [](const Chunk& a, const Chunk& b) {
    return std::pair(a.tensor->file, a.tensor->offset + a.offset) <
           std::pair(b.tensor->file, b.tensor->offset + b.offset);
  });
  return chunks;
}

absl::Status ReadAll(const CheckpointFile& file, Work* work, const CancelToken& cancel) {
  // LibTorch's own threads are the readers: inside them a conversion runs on one thread, so cores
  // are never oversubscribed.
  const int64_t readers =
      std::min<int64_t>(at::get_num_threads(), static_cast<int64_t>(work->size()));
  ParallelFor(0, readers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) work->Read(file, cancel);
  });
  return work->status();
}

absl::StatusOr<float> ReadScale(const CheckpointFile& file, const TensorInfo& scale) {
  const at::Tensor value = at::empty({1}, at::TensorOptions().dtype(ToScalarType(scale.dtype)));
  RETURN_IF_ERROR(file.Read(scale, 0, Bytes(value)));
  const auto number = value.to(at::kFloat).item<float>();
  if (std::isfinite(number)) return number;
  return absl::InvalidArgumentError(absl::StrCat(scale.name, " is not a finite number"));
}

absl::StatusOr<Destination> MakeDestination(const CheckpointFile& file, const Param& param,
                                            DType dtype, const c10::Device& device) {
  Destination destination{&param, {}, {dtype}, 1};
  if (!param.source) {
    destination.tensor =
        at::eye(param.shape[0], param.shape[1], at::TensorOptions().dtype(at::kFloat))
            .to(ToScalarType(dtype))
            .to(device);
    return destination;
  }
  destination.tensor = Allocate(param, dtype, device);
  if (param.scale != nullptr) {
    ASSIGN_OR_RETURN(destination.file_scale, ReadScale(file, *param.scale));
    destination.format.file_scale = destination.file_scale;
    if (destination.as_in_file()) destination.format.scale = destination.file_scale;
  }
  return destination;
}

// A block that stays in the checkpoint's file.
class FileWeights final : public WeightSource {
 public:
  FileWeights(const CheckpointFile& file, std::vector<Destination> destinations)
      : file_(file), destinations_(std::move(destinations)) {}

  absl::Status Read(std::span<const at::Tensor> into) const override {
    for (size_t i = 0; i < into.size(); ++i) {
      Destination destination = destinations_[i];
      destination.tensor = into[i];
      if (!destination.param->source) {
        into[i].copy_(at::eye(into[i].size(0), into[i].size(1)));
        continue;
      }
      std::vector<Chunk> chunks;
      AppendChunks(destination, &chunks);
      for (const Chunk& chunk : chunks) RETURN_IF_ERROR(FillChunk(file_, chunk));
    }
    return absl::OkStatus();
  }

 private:
  const CheckpointFile& file_;
  const std::vector<Destination> destinations_;  // without memory
};

}  // namespace

int64_t TargetBytes(const SlotTarget& target) {
  int64_t bytes = 0;
  const std::vector<Param>& params = target.slot->params();
  for (size_t i = 0; i < params.size(); ++i) bytes += params[i].BytesIn(target.dtypes[i]);
  return bytes;
}

absl::Status PlaceWeights(const CheckpointFile& file, std::span<const SlotTarget> targets,
                          TransferMeter* meter, const CancelToken& cancel,
                          const std::function<void(int64_t bytes_done)>& progress) {
  return RunTorch([&]() -> absl::Status {
    std::vector<std::vector<Destination>> slots(targets.size());
    for (size_t i = 0; i < targets.size(); ++i) {
      const std::vector<Param>& params = targets[i].slot->params();
      for (size_t j = 0; j < params.size(); ++j) {
        ASSIGN_OR_RETURN(Destination destination,
                         MakeDestination(file, params[j], targets[i].dtypes[j], targets[i].device));
        slots[i].push_back(std::move(destination));
      }
    }
    {
      Work work(SplitInFileOrder(slots), progress);
      RETURN_IF_ERROR(ReadAll(file, &work, cancel));
    }
    for (size_t i = 0; i < targets.size(); ++i) {
      std::vector<at::Tensor> tensors;
      std::vector<StorageFormat> formats;
      for (const Destination& destination : slots[i]) {
        tensors.push_back(destination.tensor);
        formats.push_back(destination.format);
      }
      std::shared_ptr<const WeightSource> source;
      if (targets[i].device.is_meta())
        source = std::make_shared<FileWeights>(file, std::move(slots[i]));
      targets[i].slot->Fill(std::move(tensors), std::move(formats), meter, std::move(source));
    }
    return absl::OkStatus();
  });
}

}  // namespace distorch
