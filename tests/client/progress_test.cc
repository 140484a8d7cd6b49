#include "client/ctl/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>

#include "absl/strings/str_split.h"

namespace distorch::ctl {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;

// What `script` makes a Progress write. `now` is the clock that the script may move.
std::string Written(const Terminal& terminal,
                    const std::function<void(Progress& progress, absl::Time& now)>& script) {
  char* buffer = nullptr;
  size_t size = 0;
  std::FILE* out = open_memstream(&buffer, &size);
  absl::Time now = absl::UnixEpoch();
  {
    Progress progress(out, terminal, [&] { return now; });
    script(progress, now);
  }
  std::fclose(out);
  std::string text(buffer, size);
  std::free(buffer);
  return text;
}

TEST(ProgressTest, LogsALineAPhaseAndATenth) {
  std::string text = Written({.tty = false}, [](Progress& progress, absl::Time& now) {
    progress.Bytes("open", 0, 0);
    for (int i = 0; i <= 1000; ++i) {
      progress.Bytes("weights", i << 20, 1000 << 20);
      now += absl::Milliseconds(1);
    }
  });
  std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), 12u) << text;
  EXPECT_EQ(lines[0], "open");
  EXPECT_EQ(lines[1], "weights    0 %  0 B of 0.98 GiB");
  EXPECT_EQ(lines[2], "weights   10 %  100 MiB of 0.98 GiB  0.98 GiB/s");
  EXPECT_EQ(lines[11], "weights  100 %  0.98 GiB of 0.98 GiB  0.98 GiB/s");
}

TEST(ProgressTest, LogsALineAPlaceInTheQueue) {
  std::string text = Written({.tty = false}, [](Progress& progress, absl::Time&) {
    progress.Phase("queue");
    progress.Queue(2, 0);
    progress.Queue(2, 7.0);
    progress.Queue(1, 3.0);
  });
  EXPECT_THAT(absl::StrSplit(text, '\n', absl::SkipEmpty()),
              ElementsAre("queue", "queue  number 2", "queue  number 1  about 3.00 s"));
}

TEST(ProgressTest, StepsTellTheMeanAndTheTimeLeft) {
  std::string text = Written({.tty = false}, [](Progress& progress, absl::Time&) {
    progress.Phase("sample");
    progress.Step(1, 4, 3.0);
    progress.Step(2, 4, 1.0);
  });
  EXPECT_THAT(absl::StrSplit(text, '\n', absl::SkipEmpty()),
              ElementsAre("sample", "sample  step 1 of 4  3.00 s/step  9.00 s left",
                          "sample  step 2 of 4  2.00 s/step  4.00 s left"));
}

TEST(ProgressTest, RedrawsOneLineOnATerminalAndErasesIt) {
  Terminal terminal{.tty = true, .unicode = true, .width = 60};
  std::string text = Written(terminal, [](Progress& progress, absl::Time& now) {
    progress.Bytes("weights", 0, 100);
    now += absl::Seconds(1);
    progress.Bytes("weights", 50, 100);
  });
  EXPECT_THAT(text, Not(HasSubstr("\n")));
  EXPECT_THAT(text, HasSubstr("█"));
  EXPECT_THAT(text, HasSubstr(" 50 %  50 B of 100 B  50 B/s"));
  EXPECT_THAT(text, EndsWith("\r\x1b[K"));
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(text, "\r\x1b[K"))) {
    EXPECT_LT(DisplayWidth(line), 60) << line;
  }
}

TEST(ProgressTest, NeverWrapsANarrowTerminal) {
  Terminal terminal{.tty = true, .unicode = false, .width = 20};
  std::string text = Written(terminal, [](Progress& progress, absl::Time&) {
    progress.Step(1, 20, 0.5);
    progress.Phase("a phase with a name that is longer than the line");
  });
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(text, "\r\x1b[K"))) {
    EXPECT_LT(DisplayWidth(line), 20) << line;
  }
}

TEST(ProgressTest, DrawsNoMoreOftenThanEyesSee) {
  Terminal terminal{.tty = true, .unicode = false, .width = 80};
  std::string text = Written(terminal, [](Progress& progress, absl::Time& now) {
    for (int i = 0; i < 1000; ++i) {
      progress.Bytes("weights", i, 1001);
      now += absl::Milliseconds(1);
    }
  });
  std::vector<std::string> draws = absl::StrSplit(text, '\r', absl::SkipEmpty());
  EXPECT_LE(draws.size(), 27u);
  EXPECT_GE(draws.size(), 20u);
}

TEST(ProgressTest, HostilePhaseNamesAndNumbersDoNoHarm) {
  std::string text = Written({.tty = false}, [](Progress& progress, absl::Time&) {
    progress.Phase("a\x1b[2Jb\n");
    progress.Bytes("weights", 200, 100);
    progress.Step(5, 0, -1);
    progress.Step(9, 3, 1);
  });
  EXPECT_THAT(text, HasSubstr("a?[2Jb?\n"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(ProgressTest, WithoutAStreamNothingHappens) {
  Progress progress(nullptr, {.tty = true}, &absl::UnixEpoch);
  progress.Phase("text");
  progress.Bytes("weights", 1, 2);
  progress.Step(1, 2, 0.1);
}

}  // namespace
}  // namespace distorch::ctl
