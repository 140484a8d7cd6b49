// top: devices and models, drawn again and again.
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/ctl/commands.h"
#include "client/ctl/json.h"
#include "client/ctl/placement_view.h"
#include "client/ctl/render.h"
#include "client/ctl/validators.h"
#include "lib/base/status_macros.h"

namespace distorch::ctl {
namespace {

constexpr int kBarWidth = 20;
// How soon Ctrl-C is noticed.
constexpr absl::Duration kPatience = absl::Milliseconds(100);

struct View {
  v1::ListDevicesResponse devices;
  v1::ListModelsResponse models;
};

absl::StatusOr<View> Look(Session& session) {
  View view;
  ASSIGN_OR_RETURN(view.devices, session.client().ListDevices(session.call()));
  ASSIGN_OR_RETURN(view.models, session.client().ListModels(session.call()));
  return view;
}

std::string Render(const View& view, const Terminal& terminal) {
  Table devices({{"DEVICE"},
                 {"USED"},
                 {"", Align::kRight},
                 {"FREE", Align::kRight},
                 {"TOTAL", Align::kRight},
                 {"WEIGHTS", Align::kRight},
                 {"STAGING", Align::kRight},
                 {"ACTIVATIONS", Align::kRight},
                 {"QUEUE", Align::kRight}});
  for (const v1::DeviceInfo& device : view.devices.devices()) {
    const double used = device.total_bytes() > 0 ? 1 - static_cast<double>(device.free_bytes()) /
                                                           static_cast<double>(device.total_bytes())
                                                 : 0;
    devices.AddRow({device.name(), Bar(used, kBarWidth, terminal.unicode), FormatPercent(used),
                    FormatBytes(device.free_bytes()), FormatBytes(device.total_bytes()),
                    FormatBytes(device.weights_bytes()), FormatBytes(device.staging_bytes()),
                    FormatBytes(device.activation_bytes()), absl::StrCat(device.queue_length())});
  }
  Table models({{"CKPT_NAME"},
                {"KIND"},
                {"FAMILY"},
                {"STATE"},
                {"IN USE", Align::kRight},
                {"WEIGHTS"},
                {"HANDLE"}});
  for (const v1::ModelInfo& model : view.models.models()) {
    models.AddRow({model.ckpt_name(), model.kind(), model.family(), model.state(),
                   absl::StrCat(model.in_use()), RenderDeviceBytes(model.devices()),
                   model.handle()});
  }
  return absl::StrCat(devices.Render(), "\n",
                      models.empty() ? "nothing is loaded\n" : models.Render());
}

// The terminal while top has it: a screen of its own, no cursor, keys without Enter. All is as it
// was when the object goes.
class Screen {
 public:
  Screen(Session* session, std::string title) : session_(session), title_(std::move(title)) {
    keys_ = tcgetattr(STDIN_FILENO, &before_) == 0;
    if (keys_) {
      termios raw = before_;
      raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
      tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    session_->Print("\x1b[?1049h\x1b[?25l");
  }
  ~Screen() {
    session_->Print("\x1b[?25h\x1b[?1049l");
    std::fflush(stdout);
    if (keys_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  // Shows as many lines as there is room for.
  void Draw(const std::string& text) const {
    const Terminal now = DetectTerminal(stdout);  // it may have changed its size
    std::vector<std::string> lines = {
        absl::StrCat(title_, "   ",
                     absl::FormatTime("%H:%M:%S", absl::Now(), absl::LocalTimeZone()),
                     keys_ ? "   q quits" : "   Ctrl-C quits"),
        ""};
    for (std::string_view line : absl::StrSplit(text, '\n')) lines.emplace_back(line);
    lines.resize(std::min(lines.size(), static_cast<std::size_t>(now.height)));
    std::string frame = "\x1b[H";
    for (std::size_t i = 0; i < lines.size(); ++i) {
      absl::StrAppend(&frame, i == 0 ? "" : "\r\n", Truncated(lines[i], now.width), "\x1b[K");
    }
    session_->Print(frame + "\x1b[J");
    std::fflush(stdout);
  }

  // Whether keys can be typed at all.
  bool keys() const { return keys_; }

 private:
  Session* const session_;
  const std::string title_;
  termios before_ = {};
  bool keys_ = false;
};

// False when it is time to quit: q, Q, or an interrupt.
bool Wait(const Session& session, absl::Duration interval, bool keys) {
  const absl::Time until = absl::Now() + interval;
  for (absl::Duration left = interval; left > absl::ZeroDuration(); left = until - absl::Now()) {
    pollfd typed = {STDIN_FILENO, POLLIN, 0};
    const int ready =
        poll(&typed, keys ? 1 : 0,
             static_cast<int>(absl::ToInt64Milliseconds(std::min(left, kPatience))) + 1);
    if (session.call().canceller->cancelled()) return false;
    if (ready <= 0) continue;
    char key = 0;
    if (read(STDIN_FILENO, &key, 1) != 1) keys = false;
    if (key == 'q' || key == 'Q') return false;
  }
  return true;
}

absl::Status Watch(Session& session, View view, absl::Duration interval) {
  std::unique_ptr<Screen> screen;
  if (session.terminal().tty)
    screen = std::make_unique<Screen>(&session, "distorchd at " + session.address());
  std::string text = Render(view, session.terminal());
  while (true) {
    if (screen != nullptr) {
      screen->Draw(text);
    } else {
      session.Print(text + "\n");
      std::fflush(stdout);
    }
    if (!Wait(session, interval, screen != nullptr && screen->keys())) return absl::OkStatus();
    // A daemon that restarts is waited for.
    const absl::StatusOr<View> next = Look(session);
    if (session.call().canceller->cancelled()) return absl::OkStatus();
    text = next.ok() ? Render(*next, session.terminal())
                     : absl::StrCat(absl::StatusCodeToString(next.status().code()), ": ",
                                    Printable(next.status().message()), "\n");
  }
}

absl::Status Top(Session& session, bool once, double interval) {
  ASSIGN_OR_RETURN(View view, Look(session));
  if (session.json()) {
    nlohmann::ordered_json object = ToJson(view.devices);
    object.update(ToJson(view.models));
    session.PrintJson(object);
    return absl::OkStatus();
  }
  if (!once) return Watch(session, std::move(view), absl::Seconds(interval));
  session.Print(Render(view, session.terminal()));
  return absl::OkStatus();
}

}  // namespace

void AddTop(CLI::App& app, Run& run) {
  CLI::App* command =
      app.add_subcommand("top", "Watch devices, queues and models; drawn again every second");
  auto once = std::make_shared<bool>(false);
  auto interval = std::make_shared<double>(1);
  command->add_flag("--once", *once, "Print one view and quit (also with --json)");
  command->add_option("--interval", *interval, "Time between views")
      ->type_name("SECONDS")
      ->check(AboveZero())
      ->capture_default_str();
  command->footer(
      "Quits on q and Ctrl-C. Not on a terminal, views follow one another, each ended by an empty\n"
      "line. QUEUE counts the requests that wait for the device.\n\n"
      "Examples:\n"
      "  distorchctl top\n"
      "  distorchctl top --json | jq '.devices[] | {name, queue_length}'");
  command->callback([&run, once, interval] {
    run = [=](Session& session) { return Top(session, *once, *interval); };
  });
}

}  // namespace distorch::ctl
