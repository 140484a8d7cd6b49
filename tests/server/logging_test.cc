#include "server/logging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

namespace distorch {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

TEST(LoggingTest, JsonIsOneObjectALine) {
  std::ostringstream out;
  Logger logger("info", "json", &out);
  logger.Info("loaded \"it\"\n",
              {{"ckpt_name", "a\xff.safetensors"}, {"bytes", int64_t{5}}, {"seconds", 0.25}});
  logger.Error("second");
  std::istringstream lines(out.str());
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  const nlohmann::json first = nlohmann::json::parse(line);
  EXPECT_EQ(first["level"], "info");
  EXPECT_EQ(first["msg"], "loaded \"it\"\n");
  EXPECT_EQ(first["ckpt_name"], "a\uFFFD.safetensors");
  EXPECT_EQ(first["bytes"], 5);
  EXPECT_EQ(first["seconds"], 0.25);
  EXPECT_THAT(std::string(first["ts"]),
              ContainsRegex("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}[+-]["
                            "0-9]{2}:[0-9]{2}$"));
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_EQ(nlohmann::json::parse(line)["level"], "error");
  EXPECT_FALSE(std::getline(lines, line));
}

TEST(LoggingTest, TextKeepsToItsLine) {
  std::ostringstream out;
  Logger logger("info", "text", &out);
  logger.Warning("no such folder",
                 {{"path", "/a b\n{}"}, {"seconds", 0.125}, {"count", int64_t{3}}});
  EXPECT_THAT(out.str(),
              HasSubstr(" warning no such folder path=\"/a b\\n{}\" seconds=0.125 count=3\n"));
  const std::string text = out.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

TEST(LoggingTest, LevelsBelowTheChosenOneAreSilent) {
  std::ostringstream out;
  Logger logger("warning", "text", &out);
  logger.Info("quiet");
  EXPECT_EQ(out.str(), "");
  logger.Warning("loud");
  EXPECT_THAT(out.str(), HasSubstr("loud"));
}

}  // namespace
}  // namespace distorch
