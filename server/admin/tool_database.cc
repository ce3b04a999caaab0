#include "server/admin/tool_database.h"

#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/admin/tool_print.h"
#include "server/admin/tool_text.h"
#include "server/postgres/inspector.h"

namespace userintent::admin {
namespace {

using google::protobuf::Struct;

constexpr int64_t kGoneShown = 10;

std::string StandOf(const postgres::ReplicaRow& replica) {
  if (replica.ended == absl::InfinitePast()) return "beats";
  if (replica.swept) return "gone";
  return replica.sending == 0 ? "ended" : "ended, its requests wait to become unknown";
}

}  // namespace

absl::StatusOr<Struct> MigrateDatabase(const std::string& url) {
  const absl::StatusOr<std::unique_ptr<postgres::OperatorsLedger>> ledger = postgres::OperatorsLedger::Open(url, true);
  if (!ledger.ok()) return ledger.status();
  const absl::StatusOr<std::pair<int, int>> versions = (*ledger)->Migrate();
  if (!versions.ok()) return versions.status();
  Struct out;
  (*out.mutable_fields())["before"].set_number_value(versions->first);
  (*out.mutable_fields())["schema_version"].set_number_value(versions->second);
  return out;
}

void PrintMigration(const Struct& told) {
  const double before = told.fields().at("before").number_value();
  const double now = told.fields().at("schema_version").number_value();
  std::puts(before == now ? "nothing to do" : "migrated");
  Line("schema", absl::StrCat("version ", now, ", was ", before));
}

absl::StatusOr<Struct> ReplicasOf(const std::string& url) {
  const absl::StatusOr<std::unique_ptr<postgres::OperatorsLedger>> ledger = postgres::OperatorsLedger::Open(url);
  if (!ledger.ok()) return ledger.status();
  const absl::StatusOr<std::vector<postgres::ReplicaRow>> replicas = (*ledger)->Replicas(kGoneShown);
  if (!replicas.ok()) return replicas.status();
  Struct out;
  google::protobuf::ListValue& list = *(*out.mutable_fields())["replicas"].mutable_list_value();
  for (const postgres::ReplicaRow& replica : *replicas) {
    auto& fields = *list.add_values()->mutable_struct_value()->mutable_fields();
    fields["epoch"].set_string_value(absl::StrCat(replica.epoch));
    fields["name"].set_string_value(replica.name);
    fields["state"].set_string_value(StandOf(replica));
    fields["began"].set_string_value(TimeText(replica.started));
    fields["last_beat"].set_string_value(TimeText(replica.seen));
    fields["swept"].set_bool_value(replica.swept);
    fields["under_way"].set_string_value(absl::StrCat(replica.sending));
  }
  return out;
}

void PrintReplicas(const Struct& told) {
  for (const google::protobuf::Value& one : told.fields().at("replicas").list_value().values()) {
    const auto text = [&one](const char* name) { return one.struct_value().fields().at(name).string_value(); };
    std::puts(absl::StrCat("replica ", text("epoch"), " ", text("name")).c_str());
    Line("state", text("state"));
    Line("began", text("began"));
    Line("last beat", text("last_beat"));
    Line("under way", text("under_way"));
  }
}

}  // namespace userintent::admin
