#include "server/usable_handles.h"

namespace distorch {

std::map<std::string, HandlesByKind> UsableHandles(const std::vector<ModelInfo>& models) {
  std::map<std::string, HandlesByKind> ready, stored;
  for (const ModelInfo& model : models) {
    if (model.state == "READY") ready[model.ckpt_name][model.kind].push_back(model.handle);
    if (model.state == "STORED") stored[model.ckpt_name][model.kind].push_back(model.handle);
  }
  for (auto& [name, handles] : stored) ready[name].merge(handles);
  return ready;
}

std::set<std::string> UsableCheckpoints(const std::vector<ModelInfo>& models) {
  std::set<std::string> ready, stored;
  for (const ModelInfo& model : models) {
    if (model.state == "READY") ready.insert(model.ckpt_name);
    if (model.state == "STORED") stored.insert(model.ckpt_name);
  }
  return ready.empty() ? stored : ready;
}

}  // namespace distorch
