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
# The wheel's libraries are found at run time by rpath; symbols they take from the shared objects loaded with them (their
# own OpenMP runtime, NVIDIA's wheels) are not ours to resolve.
target_link_options(distorch_torch INTERFACE -Wl,-rpath,${DISTORCH_TORCH_DIR}/lib -Wl,--allow-shlib-undefined)
# Not libtorch.so, which needs libtorch_cuda.so and all of NVIDIA's libraries: lib/device loads the CUDA half at run time
# where there is a driver, so one program serves every machine.
target_link_libraries(distorch_torch INTERFACE torch_cpu c10 ${DISTORCH_TORCH_DIR}/lib/libgomp.so.1)
message(STATUS "LibTorch: ${DISTORCH_TORCH_DIR}")
