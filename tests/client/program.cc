#include "tests/client/program.h"

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

namespace distorch {
namespace {

struct Stream {
  int read_end = -1, write_end = -1;
};

// Close-on-exec: a program started meanwhile must not keep another's pipe open.
Stream OpenPipe() {
  std::array<int, 2> ends;
  if (pipe2(ends.data(), O_CLOEXEC) != 0) std::abort();
  return {ends[0], ends[1]};
}

Stream OpenTerminal() {
  winsize size{};
  size.ws_row = 24;
  size.ws_col = 100;
  Stream stream;
  if (openpty(&stream.read_end, &stream.write_end, nullptr, nullptr, &size) != 0) std::abort();
  fcntl(stream.read_end, F_SETFD, FD_CLOEXEC);
  fcntl(stream.write_end, F_SETFD, FD_CLOEXEC);
  return stream;
}

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& text : strings) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

void ReadToEnd(int fd, std::string* text) {
  std::array<char, 4096> buffer;
  ssize_t count;
  while ((count = read(fd, buffer.data(), buffer.size())) > 0) text->append(buffer.data(), count);
  close(fd);
}

}  // namespace

Program::Program(const std::string& path, const std::vector<std::string>& arguments,
                 const std::vector<std::string>& environment, Output output) {
  bool terminal = output == Output::kTerminal;
  Stream out = terminal ? OpenTerminal() : OpenPipe();
  Stream err = terminal ? out : OpenPipe();
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out.write_end, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err.write_end, STDERR_FILENO);
  std::vector<std::string> words = {path};
  words.insert(words.end(), arguments.begin(), arguments.end());
  if (posix_spawn(&pid_, path.c_str(), &actions, nullptr, Pointers(words).data(),
                  Pointers(environment).data()) != 0) {
    std::abort();
  }
  posix_spawn_file_actions_destroy(&actions);
  close(out.write_end);
  readers_.emplace_back(ReadToEnd, out.read_end, &result_.out);
  if (!terminal) {
    close(err.write_end);
    readers_.emplace_back(ReadToEnd, err.read_end, &result_.err);
  }
}

Program::~Program() {
  if (pid_ > 0) Wait();
}

void Program::Signal(int signal) { kill(pid_, signal); }

ProgramResult Program::Wait() {
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  for (std::thread& reader : readers_) reader.join();
  result_.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result_;
}

}  // namespace distorch
