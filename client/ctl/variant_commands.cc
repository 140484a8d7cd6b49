// encode, lora, clip_skip: small things done with loaded handles.
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/ctl/commands.h"
#include "client/ctl/handles.h"
#include "client/ctl/json.h"
#include "client/ctl/render.h"
#include "lib/base/status_macros.h"

namespace distorch::ctl {
namespace {

std::string DescribeTensor(const v1::Tensor& tensor) {
  return absl::StrCat(v1::DataType_Name(tensor.dtype()), " [", absl::StrJoin(tensor.shape(), ", "),
                      "]");
}

absl::Status Encode(Session& session, HandleFlags handles, const std::string& text) {
  RETURN_IF_ERROR(ResolveHandles(session, handles));
  v1::EncodeTextRequest request;
  request.set_clip(handles.handles["clip"]);
  request.set_text(text);
  ASSIGN_OR_RETURN(v1::EncodeTextResponse response,
                   session.client().EncodeText(request, session.call()));
  if (session.json()) {
    session.PrintJson(ToJson(response));
    return absl::OkStatus();
  }
  const v1::Conditioning& conditioning = response.conditioning();
  session.Print(absl::StrCat("conditioning_id  ", Printable(response.conditioning_id()), "\n",
                             "cross_attention  ", DescribeTensor(conditioning.cross_attention()),
                             "\n"));
  if (conditioning.has_pooled()) {
    session.Print(absl::StrCat("pooled           ", DescribeTensor(conditioning.pooled()), "\n"));
  }
  if (conditioning.has_attention_mask()) {
    session.Print(
        absl::StrCat("attention_mask   ", DescribeTensor(conditioning.attention_mask()), "\n"));
  }
  return absl::OkStatus();
}

absl::Status ApplyLora(Session& session, HandleFlags handles, v1::ApplyLoraRequest request) {
  RETURN_IF_ERROR(ResolveHandles(session, handles));
  request.set_model(handles.handles["model"]);
  request.set_clip(handles.handles["clip"]);
  ASSIGN_OR_RETURN(v1::ApplyLoraResponse response,
                   session.client().ApplyLora(request, session.call()));
  if (session.json()) {
    session.PrintJson(ToJson(response));
    return absl::OkStatus();
  }
  session.Print(absl::StrCat("model    ", Printable(response.model()), "\n", "clip     ",
                             Printable(response.clip()), "\n", "patched  ", response.patched(),
                             " weights\n"));
  for (const std::string& key : response.unmatched_keys()) {
    session.Print(absl::StrCat("unmatched  ", Printable(key), "\n"));
  }
  const int64_t more = response.unmatched_count() - response.unmatched_keys_size();
  if (more > 0) session.Print(absl::StrCat("unmatched  ", more, " more\n"));
  return absl::OkStatus();
}

absl::Status SetClipSkip(Session& session, HandleFlags handles, int stop_at_layer) {
  RETURN_IF_ERROR(ResolveHandles(session, handles));
  v1::SetClipSkipRequest request;
  request.set_clip(handles.handles["clip"]);
  request.set_stop_at_layer(stop_at_layer);
  ASSIGN_OR_RETURN(v1::SetClipSkipResponse response,
                   session.client().SetClipSkip(request, session.call()));
  if (session.json()) {
    session.PrintJson(ToJson(response));
  } else {
    session.Print(absl::StrCat("clip  ", Printable(response.clip()), "\n"));
  }
  return absl::OkStatus();
}

}  // namespace

void AddEncode(CLI::App& app, Run& run) {
  CLI::App* command = app.add_subcommand(
      "encode", "Encode a text; prints the conditioning's id and the shapes of its tensors");
  auto handles = std::make_shared<HandleFlags>();
  auto text = std::make_shared<std::string>();
  command->add_option("text", *text, "The prompt, with ComfyUI's (weights:1.2)")
      ->type_name("TEXT")
      ->required();
  AddHandleFlags(*command, {"clip"}, *handles);
  command->footer(
      "Example:\n"
      "  distorchctl encode 'a (red:1.3) fox' --ckpt_name=sd15.safetensors");
  command->callback([&run, handles, text] {
    run = [=](Session& session) { return Encode(session, *handles, *text); };
  });
}

void AddLora(CLI::App& app, Run& run) {
  CLI::App* command = app.add_subcommand(
      "lora", "Apply a LoRA to a loaded checkpoint; prints the new handles (the old ones stay)");
  auto handles = std::make_shared<HandleFlags>();
  auto request = std::make_shared<v1::ApplyLoraRequest>();
  auto strength_model = [request](double value) { request->set_strength_model(value); };
  auto strength_clip = [request](double value) { request->set_strength_clip(value); };
  request->set_strength_model(1);
  request->set_strength_clip(1);
  command
      ->add_option_function<std::string>(
          "lora_name", [request](const std::string& name) { request->set_lora_name(name); },
          "The file, relative to one of the daemon's LoRA folders")
      ->type_name("LORA_NAME")
      ->required();
  command
      ->add_option_function<double>("--strength_model", strength_model,
                                    "Strength on the UNet or DiT (default: 1)")
      ->type_name("NUMBER");
  command
      ->add_option_function<double>("--strength_clip", strength_clip,
                                    "Strength on the text encoders (default: 1)")
      ->type_name("NUMBER");
  AddHandleFlags(*command, {"model", "clip"}, *handles);
  command->footer(
      "Example:\n"
      "  distorchctl lora ink.safetensors --strength_model=0.8 --strength_clip=0.8");
  command->callback([&run, handles, request] {
    run = [=](Session& session) { return ApplyLora(session, *handles, *request); };
  });
}

void AddClipSkip(CLI::App& app, Run& run) {
  CLI::App* command = app.add_subcommand(
      "clip_skip", "Stop the text encoder at an earlier layer; prints the new CLIP handle");
  auto handles = std::make_shared<HandleFlags>();
  auto stop_at_layer = std::make_shared<int>(-1);
  command
      ->add_option("--stop_at_layer", *stop_at_layer,
                   "The last layer to run, counted from the end: -1 is the last, -2 one before")
      ->type_name("N")
      ->required();
  AddHandleFlags(*command, {"clip"}, *handles);
  command->footer(
      "Example:\n"
      "  distorchctl clip_skip --stop_at_layer=-2");
  command->callback([&run, handles, stop_at_layer] {
    run = [=](Session& session) { return SetClipSkip(session, *handles, *stop_at_layer); };
  });
}

}  // namespace distorch::ctl
