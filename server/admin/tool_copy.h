// `userintent-ledger copy` as the command line knows it. Blocks.
#pragma once

#include <google/protobuf/struct.pb.h>

#include "absl/status/statusor.h"
#include "server/admin/command_line.h"

namespace userintent::admin {

// --from, --to and --undo: {copied_to, was_there, became_unknown, resume_tokens_go_on, parts: [{part, count, digest}]}.
absl::StatusOr<google::protobuf::Struct> CopyOf(const CommandLine& line);
void PrintCopy(const google::protobuf::Struct& told);

}  // namespace userintent::admin
