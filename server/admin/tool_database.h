// What userintent-ledger does to a ledger in PostgreSQL alone. Each opens a session of its own, and blocks.
#pragma once

#include <google/protobuf/struct.pb.h>

#include <string>

#include "absl/status/statusor.h"

namespace userintent::admin {

// Brings the schema up to date: {before, schema_version}.
absl::StatusOr<google::protobuf::Struct> MigrateDatabase(const std::string& url);
void PrintMigration(const google::protobuf::Struct& told);

// The processes that share the ledger: {replicas: [{epoch, name, state, began, last_beat, swept, under_way}]}.
absl::StatusOr<google::protobuf::Struct> ReplicasOf(const std::string& url);
void PrintReplicas(const google::protobuf::Struct& told);

}  // namespace userintent::admin
