#include "lib/device/simulated_memory.h"

#include <ATen/ATen.h>

#include <cstring>
#include <memory>
#include <utility>

namespace distorch::simulated {
namespace {

void RaiseTo(std::atomic<int64_t>& highest, int64_t bytes) {
  int64_t before = highest.load(std::memory_order_relaxed);
  while (bytes > before &&
         !highest.compare_exchange_weak(before, bytes, std::memory_order_relaxed)) {
  }
}

void ReleaseCpuStorage(void* context) {
  c10::intrusive_ptr<c10::StorageImpl>::reclaim(static_cast<c10::StorageImpl*>(context));
}

}  // namespace

// Bytes counted on a device for as long as the object lives, and the memory they stand for.
class Charge {
 public:
  Charge(CountingAllocator& allocator, int64_t bytes) : allocator_(allocator), bytes_(bytes) {
    allocator_.Add(bytes_);
  }
  ~Charge() {
    memory.clear();
    allocator_.Subtract(bytes_);
  }
  Charge(const Charge&) = delete;
  Charge& operator=(const Charge&) = delete;

  static c10::DataPtr Own(std::unique_ptr<Charge> charge) {
    void* data = charge->memory.get();
    return {data, charge.release(), [](void* context) { delete static_cast<Charge*>(context); },
            c10::Device(c10::kCPU)};
  }

  c10::DataPtr memory;

 private:
  CountingAllocator& allocator_;
  const int64_t bytes_;
};

void CountingAllocator::Configure(std::string name, int64_t capacity_bytes) {
  name_ = std::move(name);
  capacity_ = capacity_bytes;
  peak_ = 0;
  asked_ = 0;
  fails_in_ = 0;
}

SimulatedDeviceStats CountingAllocator::Stats() const {
  return {.capacity_bytes = capacity_,
          .allocated_bytes = allocated_,
          .peak_bytes = peak_,
          .asked_bytes = asked_,
          .fails_in = fails_in_};
}

void CountingAllocator::ResetPeak() { peak_ = allocated_.load(); }

void CountingAllocator::ResetAsked() { asked_ = allocated_.load(); }

bool CountingAllocator::FailsNow() {
  int64_t left = fails_in_.load(std::memory_order_relaxed);
  while (left > 0 && !fails_in_.compare_exchange_weak(left, left - 1, std::memory_order_relaxed)) {
  }
  return left == 1;
}

c10::DataPtr CountingAllocator::allocate(size_t bytes) {
  auto charge = std::make_unique<Charge>(*this, static_cast<int64_t>(bytes));
  charge->memory = c10::GetAllocator(c10::kCPU)->allocate(bytes);
  return Charge::Own(std::move(charge));
}

c10::DataPtr CountingAllocator::Adopt(c10::DataPtr memory, size_t bytes) {
  auto charge = std::make_unique<Charge>(*this, static_cast<int64_t>(bytes));
  charge->memory = std::move(memory);
  return Charge::Own(std::move(charge));
}

void CountingAllocator::copy_data(void* dest, const void* src, std::size_t count) const {
  std::memcpy(dest, src, count);
}

void CountingAllocator::Add(int64_t bytes) {
  const bool fails = FailsNow();
  int64_t before = allocated_.load(std::memory_order_relaxed);
  do {
    RaiseTo(asked_, before + bytes);
    TORCH_CHECK_WITH(OutOfMemoryError, !fails && bytes <= capacity_ - before, name_,
                     " (simulated): out of memory. Tried to allocate ", FormatBytes(bytes),
                     "; capacity ", FormatBytes(capacity_), ", ", FormatBytes(before), " in use");
  } while (!allocated_.compare_exchange_weak(before, before + bytes, std::memory_order_relaxed));
  RaiseTo(peak_, before + bytes);
}

void CountingAllocator::Subtract(int64_t bytes) {
  allocated_.fetch_sub(bytes, std::memory_order_relaxed);
}

DeviceTable& Devices() {
  static DeviceTable& table = *new DeviceTable();
  return table;
}

CountingAllocator& AllocatorOf(c10::Device device) {
  TORCH_CHECK(device.index() >= 0 && device.index() < Devices().size,
              "no such simulated device: ", device);
  return Devices().allocators[device.index()];
}

std::string UserName(c10::Device device) {
  return device.type() == kDeviceType ? AllocatorOf(device).name() : device.str();
}

c10::Storage WrapStorage(c10::Storage cpu, c10::Device device) {
  const size_t bytes = cpu.nbytes();
  void* data = cpu.mutable_data();
  c10::DataPtr owner(data, cpu.unsafeReleaseStorageImpl(), &ReleaseCpuStorage, device);
  // Kernels resize the CPU storage, never this one.
  return c10::Storage(c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), static_cast<int64_t>(bytes), std::move(owner),
      /*allocator=*/nullptr, /*resizable=*/false));
}

c10::Storage AdoptStorage(c10::Storage cpu, c10::Device device) {
  CountingAllocator& allocator = AllocatorOf(device);
  c10::StorageImpl* impl = cpu.unsafeGetStorageImpl();
  impl->set_data_ptr_noswap(
      allocator.Adopt(std::move(impl->_mutable_data_ptr_no_checks()), impl->nbytes()));
  impl->set_allocator(&allocator);
  return WrapStorage(std::move(cpu), device);
}

c10::Storage CpuStorage(const c10::Storage& simulated) {
  auto* impl = simulated.data_ptr().cast_context<c10::StorageImpl>(&ReleaseCpuStorage);
  TORCH_CHECK(impl != nullptr, "memory of ", UserName(simulated.device()),
              " that its allocator did not hand out");
  return c10::Storage(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(impl));
}

void FollowCpuStorage(const c10::Storage& simulated) noexcept {
  c10::StorageImpl* impl = simulated.unsafeGetStorageImpl();
  c10::DataPtr& owner = impl->_mutable_data_ptr_no_checks();
  auto* cpu = static_cast<c10::StorageImpl*>(owner.get_context());
  if (cpu->data() == owner.get() && cpu->nbytes() == impl->nbytes()) return;
  const c10::Device device = owner.device();
  impl->set_data_ptr_noswap(
      c10::DataPtr(cpu->mutable_data(), owner.release_context(), &ReleaseCpuStorage, device));
  impl->set_nbytes(cpu->nbytes());
}

}  // namespace distorch::simulated
