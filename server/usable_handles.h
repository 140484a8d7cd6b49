// Which handles stand for a checkpoint of which a request says only the name.
#ifndef SERVER_USABLE_HANDLES_H_
#define SERVER_USABLE_HANDLES_H_

#include <map>
#include <set>
#include <string>
#include <vector>

#include "lib/serving/load_spec.h"

namespace distorch {

using HandlesByKind = std::map<std::string, std::vector<std::string>>;

// By checkpoint: its READY handles, and of a kind that has none of these, those that are STORED,
// which the first request that uses them loads.
std::map<std::string, HandlesByKind> UsableHandles(const std::vector<ModelInfo>& models);

// The checkpoints that may be meant by who names none: those that are in memory, or, where there
// are none, those that are STORED.
std::set<std::string> UsableCheckpoints(const std::vector<ModelInfo>& models);

}  // namespace distorch

#endif  // SERVER_USABLE_HANDLES_H_
