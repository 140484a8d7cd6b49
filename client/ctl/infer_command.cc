// infer: a prompt (and an image) to image files.
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/ctl/commands.h"
#include "client/ctl/files.h"
#include "client/ctl/handles.h"
#include "client/ctl/lora_flags.h"
#include "client/ctl/placement_view.h"
#include "client/ctl/validators.h"
#include "lib/base/status_macros.h"

namespace distorch::ctl {
namespace {

struct InferFlags {
  HandleFlags handles;
  std::vector<LoraFlag> loras;
  std::string prompt, negative;
  int width = 512, height = 512;
  int batch_size = 1;
  std::optional<uint64_t> seed;
  int steps = 20;
  double cfg = 8;
  std::string sampler_name = "euler", scheduler = "normal";
  double denoise = 1;
  std::optional<double> guidance;
  std::string parallel;
  int priority = 0;
  std::string init_image, mask_image;
  int preview_every = 0;
  int tile_size = 0;
  std::string image_format;  // empty: as the output's name says
  std::string output;
};

// Below 2^53, so that a reader that keeps JSON numbers as doubles gets the same seed.
uint64_t RandomSeed() {
  std::random_device source;
  return std::uniform_int_distribution<uint64_t>(0, (uint64_t{1} << 53) - 1)(source);
}

absl::StatusOr<v1::InferRequest> MakeRequest(const InferFlags& flags) {
  v1::InferRequest request;
  request.set_prompt(flags.prompt);
  request.set_negative_prompt(flags.negative);
  if (!flags.init_image.empty()) {
    ASSIGN_OR_RETURN(*request.mutable_init_image(), ReadFile(flags.init_image));
  }
  if (!flags.mask_image.empty()) {
    ASSIGN_OR_RETURN(*request.mutable_mask_image(), ReadFile(flags.mask_image));
  }
  request.set_width(flags.width);
  request.set_height(flags.height);
  request.set_batch_size(flags.batch_size);
  request.set_preview_every(flags.preview_every);
  request.set_tile_size(flags.tile_size);
  v1::SamplingOptions& options = *request.mutable_options();
  options.set_seed(flags.seed ? *flags.seed : RandomSeed());
  options.set_steps(flags.steps);
  options.set_cfg(flags.cfg);
  options.set_sampler_name(flags.sampler_name);
  options.set_scheduler(flags.scheduler);
  options.set_denoise(flags.denoise);
  if (flags.guidance) options.set_guidance(*flags.guidance);
  options.set_parallel(flags.parallel);
  options.set_priority(flags.priority);
  return request;
}

absl::StatusOr<std::string> ImageFormat(const InferFlags& flags) {
  if (!flags.image_format.empty()) return flags.image_format;
  return flags.output.empty() ? "png" : FormatOf(flags.output);
}

// Runs the call; previews are written as they come and named in `previews`.
absl::StatusOr<v1::InferResult> InferWithProgress(Session& session, const v1::InferRequest& request,
                                                  const std::string& output,
                                                  std::vector<std::string>& previews) {
  Progress progress = session.NewProgress();
  absl::Status written;
  client::SampleCallbacks callbacks;
  callbacks.phase = [&](std::string_view phase) { progress.Phase(phase); };
  callbacks.queue = [&](const v1::QueueProgress& queue) {
    progress.Queue(queue.position(), queue.predicted_seconds());
  };
  callbacks.progress = [&](const v1::StepProgress& step) {
    progress.Step(step.step(), step.steps(), step.seconds());
    if (!step.has_preview_png() || !written.ok()) return;
    previews.push_back(PreviewName(output, step.step()));
    written = WriteFile(previews.back(), step.preview_png());
  };
  ASSIGN_OR_RETURN(v1::InferResult result,
                   session.client().Infer(request, callbacks, session.call()));
  RETURN_IF_ERROR(written);
  return result;
}

void PrintText(Session& session, const v1::InferResult& result,
               const std::vector<std::string>& files, const std::vector<std::string>& previews) {
  for (const std::string& preview : previews) {
    session.Print(absl::StrCat("wrote ", Printable(preview), " (preview)\n"));
  }
  for (int i = 0; i < result.png_size(); ++i) {
    session.Print(absl::StrCat("wrote ", Printable(files[i]), " (",
                               FormatBytes(static_cast<int64_t>(result.png(i).size())), ")\n"));
  }
  for (const std::string& warning : result.warnings()) {
    session.Print(absl::StrCat("warning ", Printable(warning), "\n"));
  }
  session.Print(absl::StrCat("seed    ", result.seed(), "\n"));
  session.Print(absl::StrCat("phases  ", RenderPhases(result.phase_seconds()), "\n"));
}

nlohmann::ordered_json ResultJson(const v1::InferRequest& request, const v1::InferResult& result,
                                  const std::vector<std::string>& files,
                                  const std::vector<std::string>& previews) {
  nlohmann::ordered_json object;
  object["model"] = request.model();
  object["clip"] = request.clip();
  object["vae"] = request.vae();
  object["files"] = files;
  object["previews"] = previews;
  if (result.warnings_size() > 0) {
    object["warnings"] =
        std::vector<std::string>(result.warnings().begin(), result.warnings().end());
  }
  object["seed"] = result.seed();
  object["phase_seconds"] =
      std::map<std::string, double>(result.phase_seconds().begin(), result.phase_seconds().end());
  return object;
}

absl::Status Infer(Session& session, InferFlags flags) {
  ASSIGN_OR_RETURN(v1::InferRequest request, MakeRequest(flags));
  ASSIGN_OR_RETURN(const std::string format, ImageFormat(flags));
  request.set_image_format(format);
  std::string output = flags.output.empty() ? absl::StrCat("distorch-", request.options().seed(),
                                                           ExtensionOf(format))
                                            : flags.output;
  RETURN_IF_ERROR(CheckOutput(output, format));
  RETURN_IF_ERROR(ResolveHandles(session, flags.handles));
  std::map<std::string, std::string>& handles = flags.handles.handles;
  ASSIGN_OR_RETURN(const std::vector<std::string> loras,
                   ApplyLoras(session, flags.loras, handles["model"], handles["clip"]));
  request.set_model(handles["model"]);
  request.set_clip(handles["clip"]);
  request.set_vae(handles["vae"]);

  std::vector<std::string> previews;
  absl::StatusOr<v1::InferResult> inferred = InferWithProgress(session, request, output, previews);
  const absl::Status closed = CloseLoras(session, loras);
  RETURN_IF_ERROR(inferred.status());
  RETURN_IF_ERROR(closed);
  const v1::InferResult& result = *inferred;
  std::vector<std::string> files = ImageNames(output, result.png_size());
  for (int i = 0; i < result.png_size(); ++i) {
    RETURN_IF_ERROR(WriteFile(files[i], result.png(i)));
  }
  if (session.json()) {
    session.PrintJson(ResultJson(request, result, files, previews));
  } else {
    PrintText(session, result, files, previews);
  }
  return absl::OkStatus();
}

// Where 0 is checked away, the wire would take it for "the default".
void AddSamplingFlags(CLI::App& command, InferFlags& flags) {
  command
      .add_option_function<std::string>(
          "--seed",
          [&flags](const std::string& text) {
            (void)absl::SimpleAtoi(text, &flags.seed.emplace());  // checked below
          },
          "Seed of the noise (default: a random one, which is printed)")
      ->type_name("NUMBER")
      ->check(Unsigned64());
  command.add_option("--steps", flags.steps, "Sampling steps")
      ->type_name("N")
      ->check(AboveZero())
      ->capture_default_str();
  command.add_option("--cfg", flags.cfg, "Classifier-free guidance scale; 1 turns it off")
      ->type_name("SCALE")
      ->check(AboveZero())
      ->capture_default_str();
  command.add_option("--sampler_name", flags.sampler_name, "Sampler, by ComfyUI's name")
      ->type_name("NAME")
      ->capture_default_str();
  command
      .add_option("--scheduler", flags.scheduler, "Schedule of the noise levels, by ComfyUI's name")
      ->type_name("NAME")
      ->capture_default_str();
  command
      .add_option("--denoise", flags.denoise,
                  "How much of the schedule to run: 1 all of it, less keeps more of --init_image")
      ->type_name("0..1")
      ->check(AboveZero())
      ->capture_default_str();
  command
      .add_option("--guidance", flags.guidance,
                  "Distilled guidance, for families that have it (default: the family's)")
      ->type_name("SCALE");
  command
      .add_option("--parallel", flags.parallel,
                  "What helps the model's device when idle: off, auto (other accelerators, where "
                  "that is measured to be faster) or devices (default: the daemon's)")
      ->type_name("off|auto|DEVICE[,DEVICE...]");
  command
      .add_option("--priority", flags.priority,
                  "In the devices' queues: -10 to 10, higher goes first")
      ->type_name("N")
      ->check(CLI::Range(-10, 10))
      ->capture_default_str();
}

void AddImageFlags(CLI::App& command, InferFlags& flags) {
  command.add_option("--width", flags.width, "Width in pixels")
      ->type_name("PIXELS")
      ->check(AboveZero())
      ->capture_default_str();
  command.add_option("--height", flags.height, "Height in pixels")
      ->type_name("PIXELS")
      ->check(AboveZero())
      ->capture_default_str();
  command.add_option("--batch_size", flags.batch_size, "Images to make at once")
      ->type_name("N")
      ->check(AboveZero())
      ->capture_default_str();
  CLI::Option* init_image = command
                                .add_option("--init_image", flags.init_image,
                                            "PNG, JPEG or WebP file to start from instead of noise "
                                            "alone; scaled and cropped to the "
                                            "size asked for")
                                ->type_name("FILE");
  command
      .add_option("--mask_image", flags.mask_image,
                  "Picture of what to repaint of --init_image: white is repainted, black kept "
                  "(default: what is transparent in --init_image, if anything, is repainted)")
      ->type_name("FILE")
      ->needs(init_image);
  command
      .add_option("--preview_every", flags.preview_every,
                  "Write a preview beside the output every N steps; 0: none")
      ->type_name("N")
      ->check(NotNegative())
      ->capture_default_str();
  command
      .add_option(
          "--tile_size", flags.tile_size,
          "Decode and encode by tiles of so many pixels a side (64 to 8192, a multiple of 8), "
          "which takes less memory; 0: only when memory lacks")
      ->type_name("PIXELS")
      ->check(NotNegative())
      ->capture_default_str();
  command
      .add_option("--image_format", flags.image_format,
                  "png, jpeg or webp (default: what --output's name says, else png)")
      ->type_name("FORMAT")
      ->check(CLI::IsMember({"png", "jpeg", "webp"}));
  command
      .add_option("--output,-o", flags.output,
                  "The .png, .jpg or .webp to write; of a batch, NAME-0.png, NAME-1.png and so on "
                  "(default: distorch-SEED.png)")
      ->type_name("FILE");
}

}  // namespace

void AddInfer(CLI::App& app, Run& run) {
  CLI::App* command = app.add_subcommand("infer", "Make images with a loaded checkpoint");
  auto flags = std::make_shared<InferFlags>();
  command->add_option("--prompt", flags->prompt, "What to draw")->type_name("TEXT")->required();
  command->add_option("--negative", flags->negative, "What not to draw (default: nothing)")
      ->type_name("TEXT");
  AddSamplingFlags(*command, *flags);
  AddImageFlags(*command, *flags);
  AddLoraFlag(*command, " for the time of the command", flags->loras);
  AddHandleFlags(*command, {"model", "clip", "vae"}, flags->handles);
  command->footer(
      "Files of the same name are replaced. Ctrl-C cancels the request.\n\n"
      "Examples:\n"
      "  distorchctl infer --prompt='a lighthouse at dusk' --seed=1 --output=lighthouse.png\n"
      "  distorchctl infer --prompt='in oils' --init_image=photo.jpg --denoise=0.6 --batch_size=4\n"
      "  distorchctl infer --prompt='a red door' --init_image=house.jpg --mask_image=door.png "
      "--output=new.webp\n"
      "  distorchctl infer --ckpt_name=sdxl.safetensors --width=1024 --height=1024 --cfg=6 "
      "--sampler_name=dpmpp_2m --scheduler=karras --preview_every=5 --prompt='a fox'\n"
      "  distorchctl infer --prompt='a fox' --lora=ink.safetensors:0.8 "
      "--lora=snow.safetensors:1:0.5");
  command->callback(
      [&run, flags] { run = [=](Session& session) { return Infer(session, *flags); }; });
}

}  // namespace distorch::ctl
