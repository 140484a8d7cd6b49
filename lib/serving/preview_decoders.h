// The tiny decoders that previews are made with, where the operator has put them: ComfyUI's folder
// models/vae_approx.
#ifndef LIB_SERVING_PREVIEW_DECODERS_H_
#define LIB_SERVING_PREVIEW_DECODERS_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "lib/distorch/transfer_meter.h"
#include "lib/models/latent_format.h"
#include "lib/nn/taesd.h"
#include "lib/serving/checkpoint_folders.h"
#include "lib/serving/observer.h"

namespace distorch {

// Loads each decoder when it is first asked for; it stays in the CPU's memory (5 MB), and its
// layers are brought to where the latents are. Thread-safe. What it is given must outlive it.
class PreviewDecoders {
 public:
  PreviewDecoders(std::vector<std::string> folders, TransferMeter* meter, Observer* observer);

  // Lives as long as this. null when no file's name begins with format.taesd, or when the file is
  // no such decoder, which the observer is told once.
  const nn::Taesd* For(const models::LatentFormat& format) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Decoder {
    std::shared_ptr<const CheckpointFile> file;  // the decoder's blocks point into its index
    std::unique_ptr<nn::Taesd> taesd;
  };
  absl::StatusOr<Decoder> Load(const std::string& name, int64_t channels) const;

  const ModelFolders folders_;
  TransferMeter* const meter_;
  Observer* const observer_;
  absl::Mutex mutex_;
  // By file; empty for one that could not be loaded.
  std::map<std::string, Decoder> loaded_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace distorch

#endif  // LIB_SERVING_PREVIEW_DECODERS_H_
