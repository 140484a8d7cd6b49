#include "server/options.h"

#include <arpa/inet.h>
#include <yaml-cpp/yaml.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cmath>
#include <cstdlib>
#include <map>
#include <set>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"

namespace distorch {
namespace {

// Where a flag's value goes, and with it how it is parsed.
using List = std::vector<std::string>*;
using Text = std::string*;
using Switch = bool*;
struct Integer {
  int* value;
  int min, max;
};
struct Real {
  double* value;
  double min, max;
};
struct Choice {
  std::string* value;
  std::vector<std::string_view> allowed;
};
struct Address {
  std::string* value;
  bool may_be_empty;
};
using Target = std::variant<Text, List, Switch, Integer, Real, Choice, Address>;

struct Flag {
  std::string name;
  std::string kind;  // what --help shows after the name
  std::string help;
  Target target;
};

std::vector<Flag> Flags(Options* o) {
  CoreOptions* core = &o->core;
  return {
      {"listen_address", "HOST:PORT", "where gRPC is served; port 0: any free port",
       Address{&o->listen_address, false}},
      {"allow_insecure_listen", "",
       "let --listen_address be other than loopback although there is no TLS",
       &o->allow_insecure_listen},
      {"tls_cert", "FILE",
       "certificate in PEM, with those between it and its authority: gRPC is served with TLS; it "
       "and the other files of TLS are read again when they change",
       &o->tls.cert},
      {"tls_key", "FILE", "the certificate's private key in PEM", &o->tls.key},
      {"tls_client_ca", "FILE",
       "only clients with a certificate of this authority (PEM) are let in", &o->tls.client_ca},
      {"auth_tokens_file", "FILE",
       "tokens that callers must have, with names and roles (viewer, user, admin), as YAML or "
       "JSON; "
       "read again when it changes",
       &o->auth_tokens_file},
      {"metrics_address", "HOST:PORT",
       "where HTTP is served: a status page, /metrics for Prometheus, /healthz, /readyz; empty: "
       "nowhere",
       Address{&o->metrics_address, true}},
      {"checkpoint_dirs", "DIR,...", "folders with checkpoints, the first that has a name wins",
       &core->checkpoint_dirs},
      {"lora_dirs", "DIR,...", "folders with LoRA files", &core->lora_dirs},
      {"embedding_dirs", "DIR,...", "folders with textual-inversion embeddings",
       &core->embedding_dirs},
      {"vae_approx_dirs", "DIR,...",
       "folders with tiny decoders (taesd_decoder.safetensors and its kin) for sharper previews",
       &core->vae_approx_dirs},
      {"extra_model_paths", "FILE",
       "further folders, in the format of ComfyUI's extra_model_paths.yaml",
       &core->extra_model_paths},
      {"simulate_devices", "DEV=SIZE[@SPEED],...",
       "simulated accelerators instead of real ones, such as cuda:0=8GiB,cuda:1=12GiB@40TFLOPS "
       "(the "
       "speed is for predictions; the CPU's by default); cpu=SIZE sets the memory the planner sees "
       "for it",
       &core->simulate_devices},
      {"link", "A-B=RATE[,LATENCY];...",
       "speed of links between simulated devices, such as cuda:0-cpu=12GB/s,20us (both directions; "
       "A->B: one); the time is simulated, not spent",
       &core->links},
      {"staging_mb", "MIB",
       "memory on each computing device for offloaded weights that are fetched ahead; 0: layers "
       "wait "
       "for their weights",
       Integer{&core->staging_mb, 0, 1 << 20}},
      {"pinned_mb", "MIB",
       "host memory of offloaded weights that may be page-locked for faster copies to CUDA devices",
       Integer{&core->pinned_mb, 0, 1 << 24}},
      {"compute_dtype", "TYPE",
       "what layers compute in; auto: the fastest type without visible loss",
       Choice{&core->compute_dtype, {"auto", "fp32", "bf16", "fp16"}}},
      {"execution", "WHERE",
       "where the parts of a model run, if the load does not say; compute: where the model does; "
       "holder: on the accelerator that holds most of the part; auto: where it is predicted to be "
       "faster",
       Choice{&core->execution, {"compute", "holder", "auto"}}},
      {"parallel", "off|auto|DEVICE,...",
       "what computes beside a model's device when idle, unless a request says otherwise: nothing; "
       "every other accelerator, where that is measured to be faster; or these devices",
       &core->parallel},
      {"threads", "N", "threads the CPU computes with; 0: OMP_NUM_THREADS, or one per core",
       Integer{&core->threads, 0, 4096}},
      {"queue_limit", "N", "requests that may wait for a device; more are refused",
       Integer{&core->queue_limit, 1, 1'000'000}},
      {"max_queued_per_client", "N", "of these and the running one, a client's; 0: no limit",
       Integer{&core->max_queued_per_client, 0, 1'000'000}},
      {"evict", "WHAT",
       "what makes room for a load that does not fit, beside its eject_models; lru: idle models "
       "without a lease, those used least recently first, until they are used again; never: "
       "nothing",
       Choice{&core->evict, {"lru", "never"}}},
      {"state_dir", "DIR", "where handles are kept for the next start; empty: nowhere",
       &core->state_dir},
      {"restore", "WHEN",
       "what becomes of the handles of the last start; lazy: what a request uses is loaded then; "
       "eager: all are loaded from the start on; none: they are forgotten",
       Choice{&core->restore, {"lazy", "eager", "none"}}},
      {"max_receive_mb", "N", "largest request accepted, in MiB",
       Integer{&o->max_receive_mb, 1, 2047}},
      {"max_metadata_kb", "N", "largest metadata (headers) of a call accepted, in KiB",
       Integer{&o->max_metadata_kb, 1, 1024}},
      {"max_concurrent_streams", "N", "calls at a time on one connection; further ones wait",
       Integer{&o->max_concurrent_streams, 1, 1'000'000}},
      {"max_image_side", "PIXELS", "largest width and height of images",
       Integer{&o->limits.image_side, 64, RequestLimits().image_side}},
      {"max_batch", "N", "most images of one request",
       Integer{&o->limits.batch, 1, RequestLimits().batch}},
      {"max_steps", "N", "most sampling steps of one request",
       Integer{&o->limits.steps, 1, RequestLimits().steps}},
      {"max_prompt_bytes", "N", "longest prompt, in UTF-8",
       Integer{&o->limits.prompt_bytes, 1, 1 << 24}},
      {"max_tensor_mb", "N", "largest tensor in a request, in MiB",
       Integer{&o->limits.tensor_mb, 1, 2047}},
      {"http_api", "WHEN",
       "serve OpenAI's and WebUI's image APIs at --metrics_address; auto: when that is loopback",
       Choice{&o->http_api, {"auto", "on", "off"}}},
      {"page_images", "N", "pictures that the status page shows, the last that were drawn",
       Integer{&o->page_images, 0, 100}},
      {"drain_seconds", "S",
       "how long running requests may take to finish after SIGTERM before they are cancelled",
       Real{&o->drain_seconds, 0, 86'400}},
      {"port_file", "FILE", "written once serving, as {\"grpc\": PORT, \"metrics\": PORT or null}",
       &o->port_file},
      {"log_level", "LEVEL", "least severe messages logged",
       Choice{&o->log_level, {"debug", "info", "warning", "error"}}},
      {"log_format", "FORMAT", "text, or one JSON object a line",
       Choice{&o->log_format, {"text", "json"}}},
  };
}

// One value as a source gives it: a scalar, or (YAML sequences and repeated flags) several.
struct Value {
  std::vector<std::string> items;
  bool is_sequence = false;  // of YAML: items are taken whole, with the commas in them
};

absl::Status Wrong(std::string_view got, std::string_view allowed) {
  return absl::InvalidArgumentError(absl::StrCat(Quoted(got), " is not ", allowed));
}

// Sets a flag's target from a value.
struct Setter {
  const Value& value;

  const std::string& scalar() const { return value.items.back(); }

  absl::Status operator()(Text target) const {
    *target = scalar();
    return absl::OkStatus();
  }
  absl::Status operator()(List target) const {
    target->clear();
    for (const std::string& item : value.items) {
      if (value.is_sequence) {
        target->push_back(item);
      } else {
        for (std::string_view part : absl::StrSplit(item, ',', absl::SkipWhitespace())) {
          target->emplace_back(absl::StripAsciiWhitespace(part));
        }
      }
    }
    return absl::OkStatus();
  }
  absl::Status operator()(Switch target) const {
    if (!absl::SimpleAtob(scalar(), target)) return Wrong(scalar(), "true or false");
    return absl::OkStatus();
  }
  absl::Status operator()(const Integer& target) const {
    int parsed = 0;
    if (!absl::SimpleAtoi(scalar(), &parsed) || parsed < target.min || parsed > target.max) {
      return Wrong(scalar(), absl::StrCat("a whole number from ", target.min, " to ", target.max));
    }
    *target.value = parsed;
    return absl::OkStatus();
  }
  absl::Status operator()(const Real& target) const {
    double parsed = 0;
    if (!absl::SimpleAtod(scalar(), &parsed) || !(parsed >= target.min && parsed <= target.max)) {
      return Wrong(scalar(), absl::StrCat("a number from ", target.min, " to ", target.max));
    }
    *target.value = parsed;
    return absl::OkStatus();
  }
  absl::Status operator()(const Choice& target) const {
    for (std::string_view allowed : target.allowed) {
      if (scalar() == allowed) {
        *target.value = scalar();
        return absl::OkStatus();
      }
    }
    return Wrong(scalar(), absl::StrCat("one of ", absl::StrJoin(target.allowed, ", ")));
  }
  absl::Status operator()(const Address& target) const {
    if (!(scalar().empty() && target.may_be_empty))
      RETURN_IF_ERROR(ParseHostPort(scalar()).status());
    *target.value = scalar();
    return absl::OkStatus();
  }
};

// The current value of a target, as --help shows it.
struct Printer {
  std::string operator()(Text target) const { return *target; }
  std::string operator()(List target) const { return absl::StrJoin(*target, ","); }
  std::string operator()(Switch target) const { return *target ? "true" : "false"; }
  std::string operator()(const Integer& target) const { return absl::StrCat(*target.value); }
  std::string operator()(const Real& target) const { return absl::StrCat(*target.value); }
  std::string operator()(const Choice& target) const { return *target.value; }
  std::string operator()(const Address& target) const { return *target.value; }
};

using Values = std::map<std::string, Value>;  // by flag name

// `describe` makes of a flag's name what the user wrote, for errors.
absl::Status Apply(const Values& values,
                   const std::function<std::string(const std::string&)>& describe,
                   const std::vector<Flag>& flags) {
  for (const Flag& flag : flags) {
    auto it = values.find(flag.name);
    if (it == values.end()) continue;
    absl::Status status = it->second.is_sequence && !std::holds_alternative<List>(flag.target)
                              ? absl::InvalidArgumentError("takes one value, not a sequence")
                              : std::visit(Setter{it->second}, flag.target);
    if (!status.ok())
      return absl::InvalidArgumentError(absl::StrCat(describe(flag.name), ": ", status.message()));
  }
  return absl::OkStatus();
}

// The command line as CLI11 sees it. `config` and the values land in the members.
class Parser {
 public:
  Parser()
      : app_("Serves diffusion checkpoints over gRPC, their weights spread over devices.",
             "distorchd") {
    app_.set_help_flag("");
    app_.get_formatter()->column_width(36);
    app_.add_flag("--help", help_, "print this and exit");
    app_.add_flag("--version", version_, "print the version and exit");
    app_.add_flag("--check", check_,
                  "look at settings, devices, folders, tokens and certificates, print what is "
                  "found, and exit: 0 if all is well, else 1");
    app_.add_option("--config", config_,
                    "YAML file with any of these settings, by name without the dashes")
        ->option_text("FILE");
    Options defaults;
    for (const Flag& flag : Flags(&defaults)) {
      CLI::Option* option = nullptr;
      if (std::holds_alternative<Switch>(flag.target)) {
        option = app_.add_flag("--" + flag.name, given_[flag.name], flag.help)
                     ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
      } else {
        option = app_.add_option("--" + flag.name, given_[flag.name], flag.help)
                     ->allow_extra_args(false)
                     ->expected(1)
                     ->multi_option_policy(std::holds_alternative<List>(flag.target)
                                               ? CLI::MultiOptionPolicy::TakeAll
                                               : CLI::MultiOptionPolicy::TakeLast);
      }
      const std::string shown = std::visit(Printer{}, flag.target);
      option->option_text(
          absl::StrCat(flag.kind, shown.empty() ? "" : absl::StrCat(" [", shown, "]")));
    }
    app_.footer(
        "Every setting can also come from the environment (DISTORCHD_LISTEN_ADDRESS, ...) or the "
        "YAML file; the command "
        "line wins\nover the environment, the environment over the file.");
  }
  Parser(const Parser&) = delete;
  Parser& operator=(const Parser&) = delete;

  absl::Status Parse(const std::vector<std::string>& args) {
    std::vector<std::string> reversed;
    for (const std::string& arg : args) {
      // CLI11 takes what follows "--name=" for its value; two arguments say that it is empty.
      if (absl::StartsWith(arg, "--") && absl::EndsWith(arg, "=") &&
          arg.find('=') == arg.size() - 1) {
        reversed.push_back(arg.substr(0, arg.size() - 1));
        reversed.emplace_back();
      } else {
        reversed.push_back(arg);
      }
    }
    std::reverse(reversed.begin(), reversed.end());
    try {
      app_.parse(std::move(reversed));
    } catch (const CLI::ParseError& error) {
      return absl::InvalidArgumentError(absl::StrCat("command line: ", error.what()));
    }
    return absl::OkStatus();
  }

  std::string Help() { return app_.help(); }
  bool help() const { return help_; }
  bool version() const { return version_; }
  bool check() const { return check_; }
  const std::string& config() const { return config_; }
  Values values() const {
    Values values;
    for (const auto& [name, items] : given_) {
      if (!items.empty()) values[name] = Value{items, false};
    }
    return values;
  }

 private:
  CLI::App app_;
  bool help_ = false;
  bool version_ = false;
  bool check_ = false;
  std::string config_;
  std::map<std::string, std::vector<std::string>> given_;
};

absl::StatusOr<Values> ReadYaml(const std::string& path, const std::vector<Flag>& flags) {
  std::set<std::string> known;
  for (const Flag& flag : flags) known.insert(flag.name);
  const auto bad = [&path](auto... parts) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", parts...));
  };
  Values values;
  try {
    const YAML::Node root = YAML::LoadFile(path);
    if (root.IsNull()) return values;
    if (!root.IsMap()) return bad("must be a map of settings");
    for (const auto& entry : root) {
      const std::string key = entry.first.as<std::string>();
      if (!known.contains(key)) return bad("unknown key '", key, "'");
      Value value;
      if (entry.second.IsSequence()) {
        value.is_sequence = true;
        value.items = entry.second.as<std::vector<std::string>>();
      } else if (entry.second.IsScalar()) {
        value.items.push_back(entry.second.Scalar());
      } else if (entry.second.IsNull()) {
        value.items.emplace_back();
      } else {
        return bad(key, ": must be a value or a sequence of values");
      }
      if (!values.emplace(key, std::move(value)).second)
        return bad("key '", key, "' is there twice");
    }
  } catch (const YAML::Exception& error) {
    return bad(error.what());
  }
  return values;
}

absl::Status CheckTogether(const Options& options) {
  if (options.tls.enabled() && (options.tls.cert.empty() || options.tls.key.empty())) {
    return absl::InvalidArgumentError(
        "TLS needs both tls_cert and tls_key (tls_client_ca is for clients' certificates)");
  }
  ASSIGN_OR_RETURN(const HostPort listen, ParseHostPort(options.listen_address));
  if (!IsLoopback(listen.host) && !options.tls.enabled() && !options.allow_insecure_listen) {
    return absl::InvalidArgumentError(absl::StrCat(
        "listen_address ", options.listen_address,
        " can be reached from other machines, without encryption: pass --tls_cert and --tls_key "
        "(and --auth_tokens_file or --tls_client_ca, which say who may), or "
        "--allow_insecure_listen if that is meant (behind a proxy or in a private network)"));
  }
  if (options.http_api != "on" || options.metrics_address.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const HostPort http, ParseHostPort(options.metrics_address));
  if (!IsLoopback(http.host) && !options.allow_insecure_listen) {
    return absl::InvalidArgumentError(absl::StrCat(
        "http_api: metrics_address ", options.metrics_address,
        " can be reached from other machines, without encryption: pass --allow_insecure_listen if "
        "that is meant (behind a proxy or in a private network; --auth_tokens_file says who may)"));
  }
  return absl::OkStatus();
}

}  // namespace

Environment ProcessEnvironment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  };
}

absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& args,
                                             const Environment& environment) {
  Parser parser;
  RETURN_IF_ERROR(parser.Parse(args));
  CommandLine result;
  if (parser.help() || parser.version()) {
    result.action =
        parser.help() ? CommandLine::Action::kPrintHelp : CommandLine::Action::kPrintVersion;
    return result;
  }
  if (parser.check()) result.action = CommandLine::Action::kCheck;
  const std::vector<Flag> flags = Flags(&result.options);
  const auto variable = [](const std::string& name) {
    return absl::StrCat("DISTORCHD_", absl::AsciiStrToUpper(name));
  };
  std::string config = parser.config();
  if (config.empty()) config = environment(variable("config")).value_or("");
  if (!config.empty()) {
    ASSIGN_OR_RETURN(const Values from_file, ReadYaml(config, flags));
    RETURN_IF_ERROR(Apply(
        from_file, [&](const std::string& name) { return absl::StrCat(config, ": ", name); },
        flags));
  }
  Values from_environment;
  for (const Flag& flag : flags) {
    std::optional<std::string> value = environment(variable(flag.name));
    if (value.has_value()) from_environment[flag.name] = Value{{*std::move(value)}, false};
  }
  RETURN_IF_ERROR(Apply(
      from_environment,
      [&](const std::string& name) { return "environment variable " + variable(name); }, flags));
  RETURN_IF_ERROR(Apply(
      parser.values(), [](const std::string& name) { return "command line: --" + name; }, flags));
  RETURN_IF_ERROR(CheckTogether(result.options));
  return result;
}

std::string HelpText() { return Parser().Help(); }

std::string_view DistorchdVersion() { return DISTORCHD_VERSION; }

bool IsLoopback(const std::string& host) {
  if (host == "localhost") return true;
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6;
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

absl::StatusOr<HostPort> ParseHostPort(std::string_view text) {
  const absl::Status malformed =
      Wrong(text, "HOST:PORT (an IPv6 address in brackets, the port a number from 0 to 65535)");
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return malformed;
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (host.empty() || (!bracketed && absl::StrContains(host, ':'))) return malformed;
  uint32_t port = 0;
  if (!absl::SimpleAtoi(text.substr(colon + 1), &port) || port > 65535) return malformed;
  return HostPort{std::string(host), static_cast<int>(port)};
}

std::string FormatHostPort(const HostPort& address) {
  const bool v6 = absl::StrContains(address.host, ':');
  return absl::StrCat(v6 ? "[" : "", address.host, v6 ? "]" : "", ":", address.port);
}

}  // namespace distorch
