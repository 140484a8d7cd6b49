# distorch_torch: LibTorch from the PyPI wheel as an imported target of our own.
# The wheel's own CMake package insists on the CUDA toolkit; ours builds on a machine without it as well.
# DISTORCH_TORCH_DIR is the `torch` folder inside site-packages; deploy/build.sh passes it.
set(DISTORCH_TORCH_DIR "" CACHE PATH "The wheel's torch folder (the one that holds include/ and lib/)")
if(NOT EXISTS ${DISTORCH_TORCH_DIR}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "DISTORCH_TORCH_DIR='${DISTORCH_TORCH_DIR}' holds no lib/libtorch_cpu.so: run deploy/build.sh, which installs LibTorch and passes its path")
endif()

add_library(distorch_torch INTERFACE)
target_include_directories(distorch_torch SYSTEM INTERFACE
  ${DISTORCH_TORCH_DIR}/include ${DISTORCH_TORCH_DIR}/include/torch/csrc/api/include)
target_link_directories(distorch_torch INTERFACE ${DISTORCH_TORCH_DIR}/lib)
# libtorch_cpu keeps its own OpenMP runtime; the wheel's libraries are found at run time by rpath.
target_link_options(distorch_torch INTERFACE -Wl,-rpath,${DISTORCH_TORCH_DIR}/lib -Wl,--allow-shlib-undefined)
target_link_libraries(distorch_torch INTERFACE torch torch_cpu c10)
# The wheel's libraries need symbols from shared objects that are loaded with them, not linked by us.

# CUDA: where the toolkit is, the CUDA device and kernels are compiled; the program still starts without a driver.
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER AND EXISTS ${DISTORCH_TORCH_DIR}/lib/libtorch_cuda.so)
  set(DISTORCH_CUDA ON)
else()
  set(DISTORCH_CUDA OFF)
endif()
message(STATUS "LibTorch: ${DISTORCH_TORCH_DIR} (CUDA device: ${DISTORCH_CUDA})")
