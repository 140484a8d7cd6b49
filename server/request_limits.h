// How much one request may ask for. What is larger is refused before anything is allocated for it.
#ifndef SERVER_REQUEST_LIMITS_H_
#define SERVER_REQUEST_LIMITS_H_

namespace distorch {

// The defaults are also the largest that the options take, but for prompts and tensors.
struct RequestLimits {
  int image_side = 8192;      // pixels, of what is drawn, decoded and encoded
  int batch = 64;             // images of one request
  int steps = 10'000;         // of sampling
  int prompt_bytes = 65'536;  // UTF-8, each prompt
  int tensor_mb = 256;        // MiB, each tensor
};

}  // namespace distorch

#endif  // SERVER_REQUEST_LIMITS_H_
