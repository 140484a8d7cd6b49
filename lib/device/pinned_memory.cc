#include "lib/device/pinned_memory.h"

#include <dlfcn.h>

#include <type_traits>

namespace distorch {
namespace {

// The part of the driver's interface (cuda.h) used here. A CUresult of 0 is success; a CUcontext is
// an opaque pointer, a CUdevice an int.
struct Driver {
  int (*retain_context)(void** context, int device);
  int (*release_context)(int device);
  int (*push_context)(void* context);
  int (*pop_context)(void** context);
  int (*host_register)(void* data, size_t bytes, unsigned int flags);
  int (*host_unregister)(void* data);
};

constexpr unsigned int kPortable = 1;  // CU_MEMHOSTREGISTER_PORTABLE: locked for every device

std::optional<Driver> LoadDriver() {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return std::nullopt;
  Driver driver{};
  const auto load = [library](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    return function != nullptr;
  };
  if (load("cuDevicePrimaryCtxRetain", driver.retain_context) &&
      load("cuDevicePrimaryCtxRelease_v2", driver.release_context) &&
      load("cuCtxPushCurrent_v2", driver.push_context) &&
      load("cuCtxPopCurrent_v2", driver.pop_context) &&
      load("cuMemHostRegister_v2", driver.host_register) &&
      load("cuMemHostUnregister", driver.host_unregister)) {
    return driver;
  }
  return std::nullopt;
}

// Calls `call` with the first device's context, which LibTorch uses as well. Whether it succeeded.
template <typename Call>
bool InContext(Call call) {
  static const std::optional<Driver> driver = LoadDriver();
  void* context = nullptr;
  if (!driver || driver->retain_context(&context, 0) != 0) return false;
  bool done = false;
  if (driver->push_context(context) == 0) {
    done = call(*driver) == 0;
    driver->pop_context(&context);
  }
  driver->release_context(0);
  return done;
}

}  // namespace

std::optional<PinnedMemory> PinnedMemory::Pin(void* data, size_t bytes) {
  const bool pinned =
      InContext([&](const Driver& driver) { return driver.host_register(data, bytes, kPortable); });
  return pinned ? std::optional(PinnedMemory(data)) : std::nullopt;
}

PinnedMemory::~PinnedMemory() {
  if (data_ != nullptr)
    InContext([this](const Driver& driver) { return driver.host_unregister(data_); });
}

}  // namespace distorch
