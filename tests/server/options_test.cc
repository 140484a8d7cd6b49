#include "server/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Variables = std::map<std::string, std::string>;

absl::StatusOr<CommandLine> Parse(const std::vector<std::string>& args,
                                  const Variables& variables = {}) {
  return ParseCommandLine(args, [&](const std::string& name) -> std::optional<std::string> {
    auto it = variables.find(name);
    return it == variables.end() ? std::nullopt : std::optional<std::string>(it->second);
  });
}

Options MustParse(const std::vector<std::string>& args, const Variables& variables = {}) {
  absl::StatusOr<CommandLine> parsed = Parse(args, variables);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? parsed->options : Options();
}

std::string ErrorOf(const std::vector<std::string>& args, const Variables& variables = {}) {
  absl::StatusOr<CommandLine> parsed = Parse(args, variables);
  EXPECT_TRUE(absl::IsInvalidArgument(parsed.status())) << parsed.status();
  return std::string(parsed.status().message());
}

class YamlTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& text) {
    std::ofstream(path_) << text;
    return "--config=" + path_;
  }
  void TearDown() override { std::filesystem::remove(path_); }

  const std::string path_ =
      absl::StrCat(::testing::TempDir(), "/",
                   ::testing::UnitTest::GetInstance()->current_test_info()->name(), ".yaml");
};

TEST(OptionsTest, DefaultsAreLoopback) {
  const Options options = MustParse({});
  EXPECT_EQ(options.listen_address, "127.0.0.1:50051");
  EXPECT_EQ(options.metrics_address, "127.0.0.1:9464");
  EXPECT_EQ(options.max_receive_mb, 256);
  EXPECT_EQ(options.core.compute_dtype, "auto");
  EXPECT_TRUE(options.core.checkpoint_dirs.empty());
}

TEST(OptionsTest, TakesBothFormsOfAFlag) {
  const Options options =
      MustParse({"--checkpoint_dirs=/a,/b", "--checkpoint_dirs", "/c", "--queue_limit", "7",
                 "--drain_seconds=1.5", "--simulate_devices=cuda:0=8GiB,cuda:1=12GiB",
                 "--link=cuda:0-cpu=12GB/s,20us", "--parallel=cuda:1,cuda:2"});
  EXPECT_THAT(options.core.checkpoint_dirs, ElementsAre("/a", "/b", "/c"));
  EXPECT_EQ(options.core.queue_limit, 7);
  EXPECT_EQ(options.drain_seconds, 1.5);
  EXPECT_EQ(options.core.simulate_devices, "cuda:0=8GiB,cuda:1=12GiB");
  EXPECT_EQ(options.core.links, "cuda:0-cpu=12GB/s,20us");
  EXPECT_EQ(options.core.parallel, "cuda:1,cuda:2");
}

TEST(OptionsTest, TheLastOfAScalarFlagWins) {
  EXPECT_EQ(MustParse({"--queue_limit=7", "--queue_limit=8"}).core.queue_limit, 8);
}

TEST(OptionsTest, AnEmptyMetricsAddressTurnsMetricsOff) {
  EXPECT_EQ(MustParse({"--metrics_address=", "--queue_limit=3"}).metrics_address, "");
  EXPECT_EQ(MustParse({}, {{"DISTORCHD_METRICS_ADDRESS", ""}}).metrics_address, "");
  EXPECT_THAT(ErrorOf({"--listen_address="}), HasSubstr("HOST:PORT"));
}

TEST(OptionsTest, NamesWhatIsWrong) {
  EXPECT_EQ(ErrorOf({"--queue_limit=many"}),
            "command line: --queue_limit: 'many' is not a whole number from 1 to 1000000");
  EXPECT_EQ(
      ErrorOf({}, {{"DISTORCHD_QUEUE_LIMIT", "0"}}),
      "environment variable DISTORCHD_QUEUE_LIMIT: '0' is not a whole number from 1 to 1000000");
  EXPECT_THAT(ErrorOf({"--max_receive_mb=2048"}), HasSubstr("--max_receive_mb: '2048' is not"));
  EXPECT_THAT(ErrorOf({"--compute_dtype=fp64"}),
              HasSubstr("'fp64' is not one of auto, fp32, bf16, fp16"));
  EXPECT_THAT(ErrorOf({"--drain_seconds=nan"}), HasSubstr("--drain_seconds"));
  EXPECT_THAT(ErrorOf({"--allow_insecure_listen=perhaps"}), HasSubstr("true or false"));
  EXPECT_THAT(ErrorOf({"--no_such_flag=1"}), HasSubstr("no_such_flag"));
  EXPECT_THAT(ErrorOf({"stray"}), HasSubstr("stray"));
  EXPECT_THAT(ErrorOf({"--tls_cert=x"}), HasSubstr("tls_cert"));
}

TEST(OptionsTest, ForeignVariablesWithThePrefixAreIgnored) {
  MustParse({},
            {{"DISTORCHD_SERVICE_HOST", "10.0.0.1"}, {"DISTORCHD_PORT", "tcp://10.0.0.1:50051"}});
}

TEST(OptionsTest, ListeningBeyondLoopbackMustBeMeant) {
  for (const char* loopback : {"127.0.0.1:1", "127.8.9.10:1", "localhost:1", "[::1]:1"}) {
    EXPECT_EQ(MustParse({absl::StrCat("--listen_address=", loopback)}).listen_address, loopback);
  }
  for (const char* open : {"0.0.0.0:50051", "[::]:50051", "10.0.0.1:50051", "example.org:50051",
                           "127.0.0.1.example.org:1"}) {
    const std::string flag = absl::StrCat("--listen_address=", open);
    EXPECT_THAT(ErrorOf({flag}), HasSubstr("--allow_insecure_listen")) << open;
    EXPECT_EQ(MustParse({flag, "--allow_insecure_listen"}).listen_address, open);
    EXPECT_EQ(MustParse({flag}, {{"DISTORCHD_ALLOW_INSECURE_LISTEN", "true"}}).listen_address,
              open);
  }
}

TEST(OptionsTest, MalformedAddresses) {
  for (const char* text : {"", "localhost", ":50051", "localhost:", "localhost:65536",
                           "localhost:-1", "::1:50051", "[]:1", "localhost:50051x"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseHostPort(text).status())) << text;
  }
}

TEST(OptionsTest, AddressesRoundTrip) {
  for (const char* text : {"127.0.0.1:0", "localhost:65535", "[::1]:50051"}) {
    absl::StatusOr<HostPort> parsed = ParseHostPort(text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(FormatHostPort(*parsed), text);
  }
  EXPECT_EQ(ParseHostPort("[::1]:50051")->host, "::1");
}

TEST(OptionsTest, HelpNamesEveryFlagWithItsDefault) {
  EXPECT_EQ(Parse({"--help"})->action, CommandLine::Action::kPrintHelp);
  EXPECT_EQ(Parse({"--version"})->action, CommandLine::Action::kPrintVersion);
  const std::string help = HelpText();
  for (const char* flag : {"--listen_address HOST:PORT [127.0.0.1:50051]",
                           "--metrics_address HOST:PORT [127.0.0.1:9464]",
                           "--checkpoint_dirs",
                           "--lora_dirs",
                           "--embedding_dirs",
                           "--vae_approx_dirs",
                           "--extra_model_paths",
                           "--simulate_devices",
                           "--link",
                           "--compute_dtype TYPE [auto]",
                           "--max_receive_mb N [256]",
                           "--queue_limit N [64]",
                           "--config",
                           "--threads",
                           "--log_level",
                           "--log_format",
                           "--port_file",
                           "--drain_seconds S [20]",
                           "--allow_insecure_listen",
                           "--version"}) {
    EXPECT_THAT(help, HasSubstr(flag));
  }
}

TEST(OptionsTest, TlsOpensTheListenerAndNeedsBothItsFiles) {
  const Options options = MustParse({"--listen_address=0.0.0.0:1", "--tls_cert=c", "--tls_key=k",
                                     "--tls_client_ca=a", "--auth_tokens_file=t"});
  EXPECT_EQ(options.tls.cert, "c");
  EXPECT_EQ(options.tls.key, "k");
  EXPECT_EQ(options.tls.client_ca, "a");
  EXPECT_EQ(options.auth_tokens_file, "t");
  for (const char* half : {"--tls_cert=c", "--tls_key=k", "--tls_client_ca=a"})
    EXPECT_THAT(ErrorOf({half}), HasSubstr("both tls_cert and tls_key"));
  EXPECT_THAT(ErrorOf({"--listen_address=0.0.0.0:1", "--auth_tokens_file=t"}),
              HasSubstr("--allow_insecure_listen"));
}

TEST(OptionsTest, LimitsCanBeLoweredButImagesNotRaised) {
  const Options options = MustParse({"--max_image_side=1024", "--max_batch=4", "--max_steps=100",
                                     "--max_prompt_bytes=1000", "--max_tensor_mb=8",
                                     "--max_metadata_kb=4", "--max_concurrent_streams=10"});
  EXPECT_EQ(options.limits.image_side, 1024);
  EXPECT_EQ(options.limits.batch, 4);
  EXPECT_EQ(options.limits.steps, 100);
  EXPECT_EQ(options.limits.prompt_bytes, 1000);
  EXPECT_EQ(options.limits.tensor_mb, 8);
  EXPECT_EQ(options.max_metadata_kb, 4);
  EXPECT_EQ(options.max_concurrent_streams, 10);
  EXPECT_THAT(ErrorOf({"--max_image_side=8200"}), HasSubstr("from 64 to 8192"));
}

TEST(OptionsTest, CheckIsAnActionWithAllSettings) {
  const absl::StatusOr<CommandLine> parsed = Parse({"--check", "--queue_limit=7"});
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->action, CommandLine::Action::kCheck);
  EXPECT_EQ(parsed->options.core.queue_limit, 7);
}

TEST_F(YamlTest, EveryFlagCanComeFromTheFile) {
  const Options options = MustParse({Write(R"(
listen_address: "127.0.0.1:0"
allow_insecure_listen: yes
metrics_address:
checkpoint_dirs: ["/models/a, b", /models/c]
lora_dirs: /loras/a,/loras/b
queue_limit: 5
drain_seconds: 2.5
log_format: json
)")});
  EXPECT_EQ(options.listen_address, "127.0.0.1:0");
  EXPECT_TRUE(options.allow_insecure_listen);
  EXPECT_EQ(options.metrics_address, "");
  EXPECT_THAT(options.core.checkpoint_dirs, ElementsAre("/models/a, b", "/models/c"));
  EXPECT_THAT(options.core.lora_dirs, ElementsAre("/loras/a", "/loras/b"));
  EXPECT_EQ(options.core.queue_limit, 5);
  EXPECT_EQ(options.drain_seconds, 2.5);
  EXPECT_EQ(options.log_format, "json");
}

TEST_F(YamlTest, CommandLineBeatsEnvironmentBeatsFileBeatsDefault) {
  const std::string config =
      Write("queue_limit: 2\nthreads: 2\nmax_receive_mb: 2\ncheckpoint_dirs: [/file]\n");
  const Options options =
      MustParse({config, "--queue_limit=4"}, {{"DISTORCHD_QUEUE_LIMIT", "3"},
                                              {"DISTORCHD_THREADS", "3"},
                                              {"DISTORCHD_CHECKPOINT_DIRS", "/environment"}});
  EXPECT_EQ(options.core.queue_limit, 4);
  EXPECT_EQ(options.core.threads, 3);
  EXPECT_EQ(options.max_receive_mb, 2);
  EXPECT_THAT(options.core.checkpoint_dirs, ElementsAre("/environment"));
  EXPECT_EQ(options.log_level, "info");
}

TEST_F(YamlTest, TheFileItselfCanComeFromTheEnvironment) {
  Write("queue_limit: 2\n");
  EXPECT_EQ(MustParse({}, {{"DISTORCHD_CONFIG", path_}}).core.queue_limit, 2);
}

TEST_F(YamlTest, ErrorsNameTheFileAndTheKey) {
  EXPECT_EQ(ErrorOf({Write("queue_limits: 3\n")}), path_ + ": unknown key 'queue_limits'");
  EXPECT_EQ(ErrorOf({Write("config: other.yaml\n")}), path_ + ": unknown key 'config'");
  EXPECT_THAT(ErrorOf({Write("queue_limit: three\n")}),
              HasSubstr(path_ + ": queue_limit: 'three' is not"));
  EXPECT_THAT(ErrorOf({Write("queue_limit: [1, 2]\n")}),
              HasSubstr(path_ + ": queue_limit: takes one value"));
  EXPECT_THAT(ErrorOf({Write("queue_limit: {a: 1}\n")}),
              HasSubstr(path_ + ": queue_limit: must be a value"));
  EXPECT_THAT(ErrorOf({Write("queue_limit: 1\nqueue_limit: 2\n")}),
              HasSubstr("'queue_limit' is there twice"));
  EXPECT_THAT(ErrorOf({Write("- a\n- b\n")}), HasSubstr("must be a map"));
  EXPECT_THAT(ErrorOf({Write("a: [\n")}), HasSubstr(path_));
  EXPECT_THAT(ErrorOf({"--config=/nonexistent/distorchd.yaml"}),
              HasSubstr("/nonexistent/distorchd.yaml"));
  MustParse({Write("")});
}

}  // namespace
}  // namespace distorch
