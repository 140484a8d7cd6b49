# Compiler, linker and cache settings shared by every target.
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # Without the two sloppinesses (and GCC's -fpch-preprocess) nothing that uses a precompiled header is ever a hit: see
  # ccache's manual, "Precompiled headers". Paths below the source folder are hashed relative to it, so that build trees
  # and clones share their entries; debug information then names the folder that compiled first. The inode cache spares
  # hashing a precompiled header of 400 MB for every file that uses it.
  set(cached_compiler ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 CCACHE_INODECACHE=1 ${CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${cached_compiler})
  set(CMAKE_C_COMPILER_LAUNCHER ${cached_compiler})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-fpch-preprocess)
  endif()
endif()
find_program(MOLD_PROGRAM mold)
if(MOLD_PROGRAM)
  add_link_options(-fuse-ld=mold)
endif()

# Everywhere, not only where a library asks for it: clang takes no precompiled header that was made otherwise.
add_compile_options(-pthread)

# Warnings are errors in our sources; third-party headers are included as SYSTEM.
add_library(distorch_warnings INTERFACE)
# GCC's -Wextra complains of members that a designated initializer leaves at their default, which is why one writes it.
target_compile_options(distorch_warnings INTERFACE -Wall -Wextra -Werror -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  target_compile_options(distorch_warnings INTERFACE -Wthread-safety -Werror=thread-safety)
endif()

if(DISTORCH_SANITIZE)
  add_compile_options(-fsanitize=${DISTORCH_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${DISTORCH_SANITIZE})
  add_compile_definitions(DISTORCH_SANITIZED)
endif()
if(DISTORCH_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
