// unload: gives memory back and says how much.
#include <memory>

#include "absl/strings/str_cat.h"
#include "client/ctl/commands.h"
#include "client/ctl/json.h"
#include "client/ctl/render.h"
#include "lib/base/status_macros.h"

namespace distorch::ctl {
namespace {

absl::Status Unload(Session& session, const v1::UnloadRequest& request) {
  ASSIGN_OR_RETURN(v1::UnloadResponse receipt, session.client().Unload(request, session.call()));
  if (session.json()) {
    session.PrintJson(ToJson(receipt));
    return absl::OkStatus();
  }
  session.Print(absl::StrCat("closed ", receipt.handles_closed(),
                             receipt.handles_closed() == 1 ? " handle\n" : " handles\n"));
  Table table({{"DEVICE"}, {"FREED", Align::kRight}});
  for (const v1::DeviceFreed& freed : receipt.freed()) {
    table.AddRow({freed.device(), FormatBytes(freed.bytes())});
  }
  if (!table.empty()) session.Print(table.Render());
  return absl::OkStatus();
}

}  // namespace

void AddUnload(CLI::App& app, Run& run) {
  CLI::App* command =
      app.add_subcommand("unload", "Close handles and free their memory; prints the bytes freed");
  auto request = std::make_shared<v1::UnloadRequest>();
  CLI::Option* handles = command
                             ->add_option_function<std::vector<std::string>>(
                                 "handles",
                                 [request](const std::vector<std::string>& given) {
                                   request->mutable_handles()->Assign(given.begin(), given.end());
                                 },
                                 "Handles as 'load' or 'models' print them")
                             ->type_name("HANDLE");
  CLI::Option* all = command->add_flag_function(
      "--all", [request](int64_t) { request->set_all(true); }, "Close every handle");
  all->excludes(handles);
  command->add_flag_function(
      "--force", [request](int64_t) { request->set_force(true); },
      "Close handles in use too: their requests end with ABORTED");
  command->footer(
      "Weights that several handles share are freed with the last of them.\n\n"
      "Examples:\n"
      "  distorchctl unload --all\n"
      "  distorchctl unload $(distorchctl models --json | jq -r '.models[0].handle') --force");
  command->callback([&run, request] {
    if (request->handles().empty() && !request->all()) {
      throw CLI::RequiredError("HANDLE or --all");
    }
    run = [=](Session& session) { return Unload(session, *request); };
  });
}

}  // namespace distorch::ctl
