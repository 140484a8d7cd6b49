#include "lib/device/host_info.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace distorch {
namespace {

constexpr int64_t kKiB = 1024;
constexpr int64_t kGiB = int64_t{1} << 30;

// A root folder with /proc and /sys of the test's making.
class HostInfoTest : public ::testing::Test {
 protected:
  HostInfoTest()
      : root_(std::filesystem::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::remove_all(root_);
    Write("proc/meminfo",
          "MemTotal:       33554432 kB\nMemFree:         1048576 kB\n"
          "MemAvailable:   16777216 kB\n");
  }
  ~HostInfoTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& content) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << content;
  }

  const std::filesystem::path root_;
};

TEST_F(HostInfoTest, MemoryIsThatOfMemInfo) {
  const HostMemory memory = ReadHostMemory(root_);
  EXPECT_EQ(memory.total_bytes, 32 * kGiB);
  EXPECT_EQ(memory.available_bytes, 16 * kGiB);
}

TEST_F(HostInfoTest, AControlGroupLimitsMemoryAndItsCacheCanBeReclaimed) {
  Write("proc/self/cgroup", "0::/a/b\n");
  Write("sys/fs/cgroup/a/memory.max", "8589934592\n");
  Write("sys/fs/cgroup/a/memory.current", "4294967296\n");
  Write("sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 1073741824\nactive_file 7\n");
  Write("sys/fs/cgroup/a/b/memory.max", "max\n");
  const HostMemory memory = ReadHostMemory(root_);
  EXPECT_EQ(memory.total_bytes, 8 * kGiB);
  EXPECT_EQ(memory.available_bytes, 5 * kGiB);
}

TEST_F(HostInfoTest, AnExhaustedControlGroupHasNothingAvailable) {
  Write("proc/self/cgroup", "0::/\n");
  Write("sys/fs/cgroup/memory.max", "1073741824\n");
  Write("sys/fs/cgroup/memory.current", "1073745920\n");
  EXPECT_EQ(ReadHostMemory(root_).available_bytes, 0);
}

TEST_F(HostInfoTest, AControlGroupOfVersionOneLimitsMemory) {
  Write("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x\n");
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2147483648\n");
  Write("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "1073741824\n");
  Write("sys/fs/cgroup/memory/x/memory.stat", "total_inactive_file 1024\n");
  const HostMemory memory = ReadHostMemory(root_);
  EXPECT_EQ(memory.total_bytes, 2 * kGiB);
  EXPECT_EQ(memory.available_bytes, kGiB + kKiB);
}

TEST_F(HostInfoTest, ProcessorHasANameAndPerhapsBfloat16) {
  EXPECT_EQ(ReadHostProcessor(root_).model, "CPU");
  Write("proc/cpuinfo",
        "processor\t: 0\nmodel name\t: Xeon Platinum 8480+\nflags\t\t: fpu avx512f avx512_bf16\n");
  EXPECT_EQ(ReadHostProcessor(root_).model, "Xeon Platinum 8480+");
  EXPECT_TRUE(ReadHostProcessor(root_).has_bfloat16);
  Write("proc/cpuinfo", "model name\t: Old\nflags\t\t: fpu avx512f no_avx512_bf16x\n");
  EXPECT_FALSE(ReadHostProcessor(root_).has_bfloat16);
  Write("proc/cpuinfo", "flags\t\t: fpu amx_tile amx_bf16\n");
  EXPECT_TRUE(ReadHostProcessor(root_).has_bfloat16);
}

TEST(HostTest, ThisMachineHasMemory) {
  const HostMemory memory = ReadHostMemory();
  EXPECT_GT(memory.total_bytes, 0);
  EXPECT_GT(memory.available_bytes, 0);
  EXPECT_LE(memory.available_bytes, memory.total_bytes);
}

}  // namespace
}  // namespace distorch
