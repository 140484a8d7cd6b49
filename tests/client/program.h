// Runs a program as a user would and keeps what it says.
#ifndef TESTS_CLIENT_PROGRAM_H_
#define TESTS_CLIENT_PROGRAM_H_

#include <sys/types.h>

#include <string>
#include <thread>
#include <vector>

namespace distorch {

struct ProgramResult {
  int exit_code = -1;    // 128 + the signal when one ended it
  std::string out, err;  // on a terminal everything is in `out`
};

class Program {
 public:
  enum class Output { kPipe, kTerminal };

  // Starts it with exactly the environment given ("NAME=value") and standard input empty.
  Program(const std::string& path, const std::vector<std::string>& arguments,
          const std::vector<std::string>& environment, Output output = Output::kPipe);
  ~Program();  // waits for it, if Wait has not
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void Signal(int signal);
  ProgramResult Wait();

 private:
  pid_t pid_ = -1;
  ProgramResult result_;
  std::vector<std::thread> readers_;
};

}  // namespace distorch

#endif  // TESTS_CLIENT_PROGRAM_H_
