# Debian 12 builds Abseil with its own absl::string_view, which does not know std::string_view; elsewhere the two are one type. Our
# sources say std::string_view. Where they differ, copies of three headers, with inline conversions added and nothing else
# changed (so neither layout nor symbols), come first in the include path.
get_target_property(absl_include absl::strings INTERFACE_INCLUDE_DIRECTORIES)
file(STRINGS ${absl_include}/absl/base/options.h absl_own_string_view REGEX "^#define ABSL_OPTION_USE_STD_STRING_VIEW 0")
if(NOT absl_own_string_view)
  return()
endif()

set(absl_overlay ${CMAKE_BINARY_DIR}/absl_overlay)
function(distorch_add_to_absl_header header anchor addition)
  file(READ ${absl_include}/absl/strings/${header} text)
  string(FIND "${text}" "${anchor}" found)
  if(found EQUAL -1)
    message(FATAL_ERROR "absl/strings/${header} is not as ${CMAKE_CURRENT_FUNCTION_LIST_FILE} expects")
  endif()
  string(REPLACE "${anchor}" "${addition}\n\n${anchor}" text "${text}")
  file(CONFIGURE OUTPUT ${absl_overlay}/absl/strings/${header} CONTENT "${text}" @ONLY NEWLINE_STYLE UNIX)
endfunction()

distorch_add_to_absl_header(string_view.h
  "  // Implicit constructor of a `string_view` from a `const char*` and length."
  "  constexpr string_view(std::string_view s) noexcept : ptr_(s.data()), length_(s.size()) {}
  constexpr operator std::string_view() const noexcept { return {ptr_, length_}; }")
distorch_add_to_absl_header(str_cat.h
  "  AlphaNum(absl::string_view pc)"
  "  AlphaNum(std::string_view s) : AlphaNum(absl::string_view(s)) {}")
distorch_add_to_absl_header(internal/str_split_internal.h
  "  ConvertibleToStringView(absl::string_view s) "
  "  ConvertibleToStringView(std::string_view s) : value_(s) {}")
include_directories(BEFORE SYSTEM ${absl_overlay})
