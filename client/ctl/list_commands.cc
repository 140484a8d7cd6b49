// devices, links, checkpoints, models: what there is.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/ctl/commands.h"
#include "client/ctl/json.h"
#include "client/ctl/placement_view.h"
#include "client/ctl/render.h"
#include "lib/base/status_macros.h"

namespace distorch::ctl {
namespace {

constexpr int kBarWidth = 20;

absl::Status ListDevices(Session& session) {
  ASSIGN_OR_RETURN(v1::ListDevicesResponse response, session.client().ListDevices(session.call()));
  if (session.json()) {
    session.PrintJson(ToJson(response));
    return absl::OkStatus();
  }
  Table table({{"DEVICE"},
               {"KIND"},
               {"USED"},
               {"", Align::kRight},
               {"FREE", Align::kRight},
               {"TOTAL", Align::kRight},
               {"WEIGHTS", Align::kRight},
               {"RESERVED", Align::kRight},
               {"DESCRIPTION"}});
  for (const v1::DeviceInfo& device : response.devices()) {
    double used = device.total_bytes() > 0 ? 1 - static_cast<double>(device.free_bytes()) /
                                                     static_cast<double>(device.total_bytes())
                                           : 0;
    table.AddRow({device.name(), device.kind(), Bar(used, kBarWidth, session.terminal().unicode),
                  FormatPercent(used), FormatBytes(device.free_bytes()),
                  FormatBytes(device.total_bytes()), FormatBytes(device.weights_bytes()),
                  FormatBytes(device.reserved_bytes()), device.description()});
  }
  session.Print(table.Render());
  return absl::OkStatus();
}

absl::Status ListLinks(Session& session) {
  ASSIGN_OR_RETURN(v1::ListLinksResponse response, session.client().ListLinks(session.call()));
  if (session.json()) {
    session.PrintJson(ToJson(response));
    return absl::OkStatus();
  }
  Table table({{"FROM"},
               {"TO"},
               {"SPEED", Align::kRight},
               {"LATENCY", Align::kRight},
               {"CARRIED", Align::kRight},
               {"EXPOSED", Align::kRight},
               {"OVERLAPPED", Align::kRight},
               {"NOTE"}});
  for (const v1::LinkInfo& link : response.links()) {
    const bool known = link.bytes_per_second() > 0;
    table.AddRow({link.from(), link.to(),
                  known ? absl::StrFormat("%.1f GB/s", link.bytes_per_second() * 1e-9) : "-",
                  known ? absl::StrFormat("%.0f us", link.latency_seconds() * 1e6) : "-",
                  FormatBytes(link.bytes()), FormatSeconds(link.exposed_seconds()),
                  FormatSeconds(link.overlapped_seconds()), link.simulated() ? "simulated" : ""});
  }
  session.Print(table.empty() ? "no links: one device, or simulated ones without --link\n"
                              : table.Render());
  return absl::OkStatus();
}

absl::Status ListCheckpoints(Session& session) {
  ASSIGN_OR_RETURN(v1::ListCheckpointsResponse response,
                   session.client().ListCheckpoints(session.call()));
  if (session.json()) {
    session.PrintJson(ToJson(response));
    return absl::OkStatus();
  }
  Table table({{"CKPT_NAME"}, {"SIZE", Align::kRight}, {"FORMAT"}, {"FAMILY"}, {"NOTE"}});
  for (const v1::CheckpointInfo& checkpoint : response.checkpoints()) {
    table.AddRow({checkpoint.ckpt_name(), FormatBytes(checkpoint.bytes()), checkpoint.format(),
                  checkpoint.family().empty() ? "unknown" : checkpoint.family(),
                  checkpoint.error()});
  }
  session.Print(table.empty() ? "no checkpoints in the daemon's folders\n" : table.Render());
  return absl::OkStatus();
}

absl::Status ListModels(Session& session) {
  ASSIGN_OR_RETURN(v1::ListModelsResponse response, session.client().ListModels(session.call()));
  if (session.json()) {
    session.PrintJson(ToJson(response));
    return absl::OkStatus();
  }
  Table table({{"HANDLE"},
               {"KIND"},
               {"CKPT_NAME"},
               {"FAMILY"},
               {"STATE"},
               {"IN USE", Align::kRight},
               {"WEIGHTS"}});
  for (const v1::ModelInfo& model : response.models()) {
    table.AddRow({model.handle(), model.kind(), model.ckpt_name(), model.family(), model.state(),
                  absl::StrCat(model.in_use()), RenderDeviceBytes(model.devices())});
  }
  session.Print(table.empty() ? "nothing is loaded\n" : table.Render());
  return absl::OkStatus();
}

}  // namespace

void AddDevices(CLI::App& app, Run& run) {
  CLI::App* command = app.add_subcommand("devices", "List the daemon's devices and their memory");
  command->footer(
      "USED is all that is taken on the device, by anyone; WEIGHTS what loaded checkpoints store\n"
      "there; RESERVED what loads and requests under way are still to take.\n\n"
      "Example:\n"
      "  distorchctl devices --json | jq '.devices[].free_bytes'");
  command->callback([&run] { run = ListDevices; });
}

void AddLinks(CLI::App& app, Run& run) {
  CLI::App* command = app.add_subcommand(
      "links", "List the speeds between devices, and the weights that have crossed");
  command->footer(
      "SPEED and LATENCY were measured when the daemon started, or are what its --link says.\n"
      "EXPOSED is the time that computing waited for weights, OVERLAPPED the time of transfers\n"
      "that it did not notice. 'disk' stands for the checkpoints' files.\n\n"
      "Example:\n"
      "  distorchctl links --json | jq '.links[] | select(.exposed_seconds > 1)'");
  command->callback([&run] { run = ListLinks; });
}

void AddCheckpoints(CLI::App& app, Run& run) {
  CLI::App* command = app.add_subcommand(
      "checkpoints", "List the checkpoints that can be loaded (the folders are read again)");
  command->footer(
      "NOTE says why a file cannot be loaded.\n\n"
      "Example:\n"
      "  distorchctl checkpoints --address=gpu-box:50051");
  command->callback([&run] { run = ListCheckpoints; });
}

void AddModels(CLI::App& app, Run& run) {
  CLI::App* command =
      app.add_subcommand("models", "List what is loaded: handles, state, bytes per device");
  command->footer(
      "IN USE counts the requests that compute with the handle now.\n\n"
      "Example:\n"
      "  distorchctl models");
  command->callback([&run] { run = ListModels; });
}

}  // namespace distorch::ctl
