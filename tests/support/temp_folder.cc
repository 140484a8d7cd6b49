#include "tests/support/temp_folder.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <system_error>

namespace distorch {

namespace fs = std::filesystem;

TempFolder::TempFolder() : path_((fs::temp_directory_path() / "distorch-XXXXXX").string()) {
  if (mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder");
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string TempFolder::File(std::string_view name) const {
  const fs::path file = fs::path(path_) / name;
  fs::create_directories(file.parent_path());
  return file.string();
}

std::string TempFolder::Write(std::string_view name, std::string_view content) const {
  const std::string file = File(name);
  std::ofstream(file, std::ios::binary) << content;
  return file;
}

}  // namespace distorch
