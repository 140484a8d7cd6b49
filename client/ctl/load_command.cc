// plan and load: the same fields, asked about and done.
#include <google/protobuf/descriptor.h>

#include <array>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/ctl/commands.h"
#include "client/ctl/json.h"
#include "client/ctl/lora_flags.h"
#include "client/ctl/placement_view.h"
#include "lib/base/status_macros.h"

namespace distorch::ctl {
namespace {

using google::protobuf::FieldDescriptor;

struct FieldFlag {
  const char* field;  // of v1::LoadCheckpointRequest
  const char* type_name;
  const char* help;
};

// A flag is its field's name; only the given ones are set, so that the daemon's defaults hold for
// the others.
constexpr std::array<FieldFlag, 15> kFields = {{
    {"unet_compute_device", "DEVICE",
     "Where the UNet (or DiT) computes (default: the first accelerator, else cpu)"},
    {"unet_virtual_vram_gb", "GIB", "GiB of the UNet to keep on its donors, 0 to 128 (default: 4)"},
    {"unet_donor_device", "DEVICE[,DEVICE...]",
     "Donors of the UNet, filled in this order (default: cpu)"},
    {"clip_compute_device", "DEVICE", "Where the text encoders compute (default: cpu)"},
    {"clip_virtual_vram_gb", "GIB",
     "GiB of the text encoders to keep on their donors, 0 to 128 (default: 2)"},
    {"clip_donor_device", "DEVICE[,DEVICE...]",
     "Donors of the text encoders, filled in this order (default: cpu)"},
    {"vae_device", "DEVICE",
     "Where the VAE is stored and computes (default: the first accelerator, else cpu)"},
    {"unet_expert_mode_allocations", "ALLOCATION",
     "What of the UNet goes where, as 'cuda:0,2gb;cpu,*', 'cuda:0,60%;cpu,40%' or "
     "'cuda:0,0.5;cpu,0.1' (shares of the devices' memory), or 'auto' for the split that is "
     "predicted to be fastest; overrides virtual VRAM (default: none)"},
    {"clip_expert_mode_allocations", "ALLOCATION",
     "The same for the text encoders (default: none)"},
    {"high_precision_loras", "BOOL", "Keep LoRA-patched weights in high precision (default: true)"},
    {"eject_models", "BOOL", "First free the memory of what is idle (default: true)"},
    {"weight_dtype", "DTYPE",
     "Store weights as default, fp32, fp16, bf16, fp8_e4m3fn or fp8_e5m2 (default: default, the "
     "file's)"},
    {"lease_seconds", "SECONDS",
     "Unload by itself after this time without use; 0: stay until unloaded (default: 0)"},
    {"reference_rounding", "BOOL",
     "Round shares to 4 decimals as ComfyUI-MultiGPU does (default: false)"},
    {"execution", "WHERE",
     "Where the UNet's parts run: compute, holder (on the accelerator that holds most of the part) "
     "or auto (where it is predicted to be faster) (default: the server's)"},
}};

constexpr char kFieldsFooter[] =
    "Devices are named as by 'distorchctl devices'. Without an allocation string and with 0 GiB "
    "of\n"
    "virtual VRAM, everything stays on the compute device.\n\n";

void AddField(CLI::App& command, const FieldFlag& flag, v1::LoadCheckpointRequest* request) {
  const FieldDescriptor* field =
      v1::LoadCheckpointRequest::descriptor()->FindFieldByName(flag.field);
  const google::protobuf::Reflection* reflection = request->GetReflection();
  std::string name = absl::StrCat("--", flag.field);
  CLI::Option* option = nullptr;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_DOUBLE:
      option = command.add_option_function<double>(
          name, [=](double value) { reflection->SetDouble(request, field, value); }, flag.help);
      break;
    case FieldDescriptor::CPPTYPE_INT64:
      option = command.add_option_function<int64_t>(
          name, [=](int64_t value) { reflection->SetInt64(request, field, value); }, flag.help);
      break;
    case FieldDescriptor::CPPTYPE_BOOL:
      option = command.add_option_function<bool>(
          name, [=](bool value) { reflection->SetBool(request, field, value); }, flag.help);
      break;
    default:
      option = command.add_option_function<std::string>(
          name, [=](const std::string& value) { reflection->SetString(request, field, value); },
          flag.help);
  }
  option->type_name(flag.type_name);
}

void AddFields(CLI::App& command, v1::LoadCheckpointRequest* request) {
  command
      .add_option_function<std::string>(
          "ckpt_name", [request](const std::string& name) { request->set_ckpt_name(name); },
          "The checkpoint, as 'distorchctl checkpoints' names it")
      ->type_name("CKPT_NAME")
      ->required();
  for (const FieldFlag& flag : kFields) AddField(command, flag, request);
}

absl::Status Plan(Session& session, const v1::LoadCheckpointRequest& request, bool blocks) {
  ASSIGN_OR_RETURN(v1::PlanCheckpointResponse plan,
                   session.client().PlanCheckpoint(request, session.call()));
  if (session.json()) {
    if (!blocks) {
      for (auto& component : *plan.mutable_placement()->mutable_components()) {
        component.clear_blocks();
      }
    }
    session.PrintJson(ToJson(plan));
    return absl::OkStatus();
  }
  session.Print(absl::StrCat(Printable(request.ckpt_name()), " (", Printable(plan.family()),
                             "): ", plan.fits() ? "fits" : "does not fit", "\n"));
  if (!plan.reason().empty()) session.Print(absl::StrCat(plan.reason(), "\n"));
  session.Print(absl::StrCat(
      "\n", RenderPlacement(plan.placement(), PlacementKind::kPlanned, session.terminal())));
  if (plan.has_predicted_seconds_per_step())
    session.Print(RenderPrediction(plan.predicted_seconds_per_step()));
  if (blocks) session.Print(absl::StrCat("\n", RenderBlocks(plan.placement())));
  return absl::OkStatus();
}

absl::StatusOr<v1::LoadCheckpointResponse> LoadWithProgress(
    Session& session, const v1::LoadCheckpointRequest& request) {
  Progress progress = session.NewProgress();
  return session.client().LoadCheckpointStream(
      request,
      [&](const v1::LoadProgress& event) {
        progress.Bytes(event.phase(), event.bytes_done(), event.bytes_total());
      },
      session.call());
}

// Closes those of `handles` that were not open before.
absl::Status CloseNew(Session& session, const std::set<std::string>& before,
                      std::vector<std::string> handles) {
  std::erase_if(handles, [&](const std::string& handle) {
    return handle.empty() || before.contains(handle);
  });
  return CloseLoras(session, handles);
}

// Loads, and puts the handles with the adapters in the place of the checkpoint's own. Those are
// closed, unless they were open before: their weights live on below the adapters. After an error
// nothing is open that was not open before.
absl::StatusOr<v1::LoadCheckpointResponse> LoadWithLoras(Session& session,
                                                         const v1::LoadCheckpointRequest& request,
                                                         const std::vector<LoraFlag>& loras) {
  if (loras.empty()) return LoadWithProgress(session, request);
  ASSIGN_OR_RETURN(const std::set<std::string> before, OpenHandles(session));
  ASSIGN_OR_RETURN(v1::LoadCheckpointResponse loaded, LoadWithProgress(session, request));
  std::string model = loaded.model(), clip = loaded.clip();
  absl::StatusOr<std::vector<std::string>> made = ApplyLoras(session, loras, model, clip);
  if (!made.ok()) {
    CloseNew(session, before, {loaded.model(), loaded.clip(), loaded.vae()}).IgnoreError();
    return made.status();
  }
  std::vector<std::string> below = *std::move(made);
  below.insert(below.end(), {loaded.model(), loaded.clip()});
  std::erase_if(below,
                [&](const std::string& handle) { return handle == model || handle == clip; });
  RETURN_IF_ERROR(CloseNew(session, before, std::move(below)));
  loaded.set_model(model);
  loaded.set_clip(clip);
  return loaded;
}

absl::Status Load(Session& session, const v1::LoadCheckpointRequest& request,
                  const std::vector<LoraFlag>& loras) {
  ASSIGN_OR_RETURN(v1::LoadCheckpointResponse loaded, LoadWithLoras(session, request, loras));
  if (session.json()) {
    session.PrintJson(ToJson(loaded));
    return absl::OkStatus();
  }
  session.Print(absl::StrCat(
      Printable(request.ckpt_name()), " (", Printable(loaded.family()), "): loaded\n\n",
      RenderPlacement(loaded.placement(), PlacementKind::kLoaded, session.terminal()), "\n"));
  if (loaded.has_predicted_seconds_per_step())
    session.Print(absl::StrCat(RenderPrediction(loaded.predicted_seconds_per_step()), "\n"));
  for (const auto& [kind, handle] :
       {std::pair("model", loaded.model()), std::pair("clip", loaded.clip()),
        std::pair("vae", loaded.vae())}) {
    session.Print(absl::StrFormat("%-6s  %s\n", kind,
                                  handle.empty() ? "none in this file" : Printable(handle)));
  }
  session.Print(absl::StrCat("phases  ", RenderPhases(loaded.phase_seconds()), "\n"));
  return absl::OkStatus();
}

}  // namespace

void AddPlan(CLI::App& app, Run& run) {
  CLI::App* command = app.add_subcommand(
      "plan", "Show where a checkpoint's weights would go, and whether they fit; loads nothing");
  auto request = std::make_shared<v1::LoadCheckpointRequest>();
  auto blocks = std::make_shared<bool>(false);
  AddFields(*command, request.get());
  command->add_flag("--blocks", *blocks, "List every block and its device too");
  command->footer(absl::StrCat(
      kFieldsFooter,
      "A plan that does not fit is an answer, not an error: the exit status is 0; 'fits' in the\n"
      "output of --json tells.\n\n"
      "Examples:\n"
      "  distorchctl plan sd15.safetensors --unet_virtual_vram_gb=1.5\n"
      "  distorchctl plan sdxl.safetensors "
      "--unet_expert_mode_allocations='cuda:0,3gb;cuda:1,1gb;cpu,*' "
      "--blocks"));
  command->callback([&run, request, blocks] {
    run = [=](Session& session) { return Plan(session, *request, *blocks); };
  });
}

void AddLoad(CLI::App& app, Run& run) {
  CLI::App* command = app.add_subcommand(
      "load", "Load a checkpoint with its weights spread over devices; prints its handles");
  auto request = std::make_shared<v1::LoadCheckpointRequest>();
  auto loras = std::make_shared<std::vector<LoraFlag>>();
  AddFields(*command, request.get());
  AddLoraFlag(*command, "", *loras);
  command->footer(absl::StrCat(
      kFieldsFooter,
      "Ctrl-C cancels the load and frees what it held.\n\n"
      "Examples:\n"
      "  distorchctl load sd15.safetensors\n"
      "  distorchctl load sd15.safetensors --lora=ink.safetensors:0.8\n"
      "  distorchctl load sdxl.safetensors --unet_compute_device=cuda:0 --unet_virtual_vram_gb=2 "
      "--unet_donor_device=cuda:1,cpu\n"
      "  distorchctl load flux.safetensors --weight_dtype=fp8_e4m3fn --lease_seconds=600 --json | "
      "jq "
      "-r .model"));
  command->callback([&run, request, loras] {
    run = [=](Session& session) { return Load(session, *request, *loras); };
  });
}

}  // namespace distorch::ctl
