// How the core tells of what it measured without knowing who counts (server/metrics does).
#ifndef LIB_SERVING_OBSERVER_H_
#define LIB_SERVING_OBSERVER_H_

#include <cstdint>
#include <string_view>

namespace distorch {

// Thread-safe. The default does nothing.
class Observer {
 public:
  virtual ~Observer() = default;
  // A phase of a load ("load_open", "load_weights", …) or of an inference ("queue", "text",
  // "sample", "step", "decode", "encode") ended.
  virtual void PhaseDone(std::string_view phase, std::string_view family, double seconds) {
    (void)phase, (void)family, (void)seconds;
  }
  // Something the operator would want to know, in a sentence without a full stop. Never has what
  // clients sent in it.
  virtual void Warning(std::string_view message) { (void)message; }
  // |measured - planned| / planned of a finished load.
  virtual void PlanError(std::string_view family, double ratio) { (void)family, (void)ratio; }
  // A phase of a request took `measured` bytes of a device for its activations, and had been
  // estimated to need `at_least` and be `expected` to need.
  virtual void ActivationsMeasured(std::string_view phase, std::string_view family,
                                   int64_t at_least, int64_t expected, int64_t measured) {
    (void)phase, (void)family, (void)at_least, (void)expected, (void)measured;
  }
  // |measured - predicted| / predicted seconds of a step.
  virtual void PredictionError(std::string_view family, double ratio) { (void)family, (void)ratio; }
};

}  // namespace distorch

#endif  // LIB_SERVING_OBSERVER_H_
