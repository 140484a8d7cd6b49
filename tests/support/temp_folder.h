// A folder for one test.
#ifndef TESTS_SUPPORT_TEMP_FOLDER_H_
#define TESTS_SUPPORT_TEMP_FOLDER_H_

#include <string>
#include <string_view>

namespace distorch {

// Made empty under the system's folder of temporary files; removed with all that is in it on
// destruction.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  // The path of `name` in it; `name` may have folders, which are made.
  std::string File(std::string_view name) const;
  // The same, written with `content`.
  std::string Write(std::string_view name, std::string_view content) const;

 private:
  std::string path_;
};

}  // namespace distorch

#endif  // TESTS_SUPPORT_TEMP_FOLDER_H_
