# distorch_house(NAME [TORCH] [PROTO] SOURCES … DEPS … [APART …]): the static library of one folder.
#   TORCH  the house uses LibTorch
#   PROTO  it includes gRPC and the wire contract's generated headers
#   APART  those of the sources that share a name in their unnamed namespaces with others: builds with a sanitizer compile
#          the rest together, which takes half the time
# distorch_test(NAME [TORCH] [PROTO] [GRPC] [SHARDS N] SOURCES … DEPS …): a GoogleTest program registered with ctest under NAME.
#   GRPC    it makes gRPC calls: Debian's gRPC is not instrumented, so ThreadSanitizer cannot follow what crosses it, and
#           a build with that sanitizer leaves the test out
#   SHARDS  its tests are dealt to N ctest tests, NAME.0 to NAME.N-1, which may run side by side
# distorch_fuzzer(NAME SOURCES … DEPS …): a libFuzzer target, built only with DISTORCH_FUZZ.
# distorch_benchmark(NAME [TORCH] SOURCES … DEPS …): a Google Benchmark program, never run by ctest.
# distorch_bench_program(NAME [TORCH] SOURCES … DEPS …): the same with a main of its own.
# Parsing headers is most of what compiling costs. Targets of one kind share one precompiled header of what they include
# most: plain ones, those that use LibTorch or gRPC, and tests (with LibTorch, as the houses that they test).
set(DISTORCH_PLAIN_HEADERS <algorithm> <cstdint> <filesystem> <functional> <map> <memory> <optional> <span> <string>
    <utility> <vector> [["absl/status/statusor.h"]] [["absl/strings/str_cat.h"]] [["absl/strings/str_join.h"]]
    [["absl/synchronization/mutex.h"]])

# With a sanitizer, optimizing takes most of the compiler's time and pays only where files are parsed and plans are made.
function(distorch_optimize target kind)
  if(DISTORCH_SANITIZE AND NOT kind STREQUAL "plain")
    target_compile_options(${target} PRIVATE -O0)
  endif()
endfunction()

# distorch_precompiled(KIND): makes the target that KIND's precompiled header belongs to, once.
function(distorch_precompiled kind)
  if(TARGET distorch_pch_${kind})
    return()
  endif()
  add_library(distorch_pch_${kind} OBJECT ${CMAKE_SOURCE_DIR}/lib/base/precompiled.cc)
  target_link_libraries(distorch_pch_${kind} PRIVATE distorch_warnings absl::statusor absl::strings absl::synchronization)
  target_precompile_headers(distorch_pch_${kind} PRIVATE ${DISTORCH_PLAIN_HEADERS})
  distorch_optimize(distorch_pch_${kind} ${kind})
  if(kind STREQUAL "torch")
    target_link_libraries(distorch_pch_torch PRIVATE distorch_torch)
    target_precompile_headers(distorch_pch_torch PRIVATE <ATen/ATen.h>)
  endif()
  if(kind MATCHES "test$")
    target_link_libraries(distorch_pch_${kind} PRIVATE GTest::gtest GTest::gmock)
    target_precompile_headers(distorch_pch_${kind} PRIVATE <gtest/gtest.h> <gmock/gmock.h>)
  endif()
  if(kind MATCHES "^proto")
    target_link_libraries(distorch_pch_${kind} PRIVATE distorch_proto)
    target_precompile_headers(distorch_pch_${kind} PRIVATE <grpcpp/grpcpp.h> [["proto/distorch.grpc.pb.h"]])
  endif()
endfunction()

function(distorch_precompile target kind)
  distorch_precompiled(${kind})
  distorch_optimize(${target} ${kind})
  target_precompile_headers(${target} REUSE_FROM distorch_pch_${kind})
  get_target_property(type ${target} TYPE)
  if(type STREQUAL EXECUTABLE)
    # The precompiled header was made with -fPIC, as the libraries are; under a program's -fPIE it would be refused.
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
endfunction()

# distorch_configure(TARGET KIND [TORCH] [PROTO] DEPS …): what all targets have in common. KIND of target: plain or test.
function(distorch_configure target kind)
  cmake_parse_arguments(ARG "TORCH;PROTO;GRPC" "SHARDS" "SOURCES;DEPS;APART" ${ARGN})
  target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(${target} PUBLIC ${ARG_DEPS} PRIVATE distorch_warnings)
  if(ARG_TORCH)
    target_link_libraries(${target} PUBLIC distorch_torch)
    distorch_precompile(${target} torch)
  elseif(ARG_PROTO OR ARG_GRPC)
    distorch_precompile(${target} proto_${kind})
  else()
    distorch_precompile(${target} ${kind})
  endif()
endfunction()

function(distorch_house name)
  cmake_parse_arguments(ARG "TORCH;PROTO" "" "SOURCES;DEPS;APART" ${ARGN})
  if(ARG_TORCH AND NOT DISTORCH_TORCH)
    return()
  endif()
  add_library(${name} STATIC ${ARG_SOURCES})
  distorch_configure(${name} plain ${ARGN})
  if(DISTORCH_SANITIZE)
    set_target_properties(${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 16)
    set_source_files_properties(${ARG_APART} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
endfunction()

# What tests and benchmarks read of the source tree.
function(distorch_data_folders target)
  target_compile_definitions(${target} PRIVATE
    DISTORCH_GOLDEN_DIR="${CMAKE_SOURCE_DIR}/tests/golden" DISTORCH_DEMO_DIR="${CMAKE_SOURCE_DIR}/deploy/demo")
endfunction()

function(distorch_test name)
  cmake_parse_arguments(ARG "TORCH;PROTO;GRPC" "SHARDS" "SOURCES;DEPS" ${ARGN})
  if((ARG_TORCH AND NOT DISTORCH_TORCH) OR (ARG_GRPC AND DISTORCH_SANITIZE STREQUAL "thread"))
    return()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  distorch_configure(${name} test ${ARGN})
  target_link_libraries(${name} PRIVATE GTest::gtest_main GTest::gmock)
  # Of std::string's own code, which the precompiled header makes GCC 12 see as the test's (its bug 105651).
  target_compile_options(${name} PRIVATE
    "$<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-restrict;-Wno-stringop-overflow>")
  distorch_data_folders(${name})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  if(NOT ARG_SHARDS)
    distorch_add_test(${name} ${name})
    return()
  endif()
  math(EXPR last "${ARG_SHARDS} - 1")
  foreach(shard RANGE ${last})
    distorch_add_test(${name}.${shard} ${name} GTEST_TOTAL_SHARDS=${ARG_SHARDS} GTEST_SHARD_INDEX=${shard})
  endforeach()
endfunction()

# ctest runs as many programs as there are cores: one thread each, then.
function(distorch_add_test test program)
  add_test(NAME ${test} COMMAND ${program})
  set_tests_properties(${test} PROPERTIES ENVIRONMENT "OMP_NUM_THREADS=1;${ARGN}")
endfunction()

function(distorch_fuzzer name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  if(NOT DISTORCH_FUZZ)
    return()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  distorch_configure(${name} plain ${ARGN})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
endfunction()

function(distorch_benchmark name)
  distorch_bench_program(${name} ${ARGN})
  if(TARGET ${name})
    target_link_libraries(${name} PRIVATE benchmark::benchmark_main)
  endif()
endfunction()

function(distorch_bench_program name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;DEPS" ${ARGN})
  if(DISTORCH_SANITIZE OR (ARG_TORCH AND NOT DISTORCH_TORCH))
    return()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  distorch_configure(${name} plain ${ARGN})
  distorch_data_folders(${name})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
endfunction()
