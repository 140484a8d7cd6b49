// What --json prints.
#ifndef CLIENT_CTL_JSON_H_
#define CLIENT_CTL_JSON_H_

#include <google/protobuf/message.h>

#include <nlohmann/json.hpp>

namespace distorch::ctl {

// Every field under its name in the .proto file: numbers as numbers (64 bits too, unlike protobuf's
// own JSON), enums as their names, maps as objects, lists even when empty. Only `optional` and
// message fields may be missing: when not set. bytes fields are left out: a tensor shows its dtype
// and shape.
nlohmann::ordered_json ToJson(const google::protobuf::Message& message);

}  // namespace distorch::ctl

#endif  // CLIENT_CTL_JSON_H_
