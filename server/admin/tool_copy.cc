#include "server/admin/tool_copy.h"

#include <cstdio>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "server/admin/copy.h"
#include "server/admin/ledger_handle.h"
#include "server/admin/tool_print.h"
#include "server/postgres/url.h"

namespace userintent::admin {
namespace {

using google::protobuf::Struct;

constexpr std::string_view kSqlite = "sqlite:";

}  // namespace

absl::StatusOr<Struct> CopyOf(const CommandLine& line) {
  if (line.has("ledger")) return Usage("copy takes --from and --to instead of --ledger");
  const std::string from = line.get("from");
  const std::string to = line.get("to");
  if (!from.starts_with(kSqlite) || from.size() == kSqlite.size()) return Usage("copy needs --from=sqlite:PATH");
  if (!IsDatabase(to)) return Usage("copy needs --to=postgresql://...");
  if (absl::Status s = postgres::CheckUrl(to); !s.ok()) return Usage(absl::StrCat("--to ", std::string(s.message())));
  const std::string path = from.substr(kSqlite.size());
  Struct out;
  auto& fields = *out.mutable_fields();
  if (line.has("undo")) {
    if (absl::Status s = UndoCopy(path, to); !s.ok()) return s;
    fields["undone"].set_bool_value(true);
    return out;
  }
  const absl::StatusOr<CopyResult> result = CopyLedger(path, to);
  if (!result.ok()) return result.status();
  fields["copied_to"].set_string_value(postgres::PlaceOf(to));
  fields["was_there"].set_bool_value(result->was_there);
  if (result->was_there) return out;
  fields["became_unknown"].set_string_value(absl::StrCat(result->recovered));
  fields["resume_tokens_go_on"].set_bool_value(result->log_goes_on);
  for (const ledger::PartSum& sum : result->sums) {
    auto& part = *fields["parts"].mutable_list_value()->add_values()->mutable_struct_value()->mutable_fields();
    part["part"].set_string_value(sum.part);
    part["count"].set_string_value(absl::StrCat(sum.count));
    part["digest"].set_string_value(sum.digest);
  }
  return out;
}

void PrintCopy(const Struct& told) {
  const auto& fields = told.fields();
  if (fields.contains("undone")) {
    std::puts("undone: the file may be served again");
    return;
  }
  const bool was_there = fields.at("was_there").bool_value();
  std::puts(was_there ? "copied: the database held everything, and the file says so now" : "copied");
  Line("to", fields.at("copied_to").string_value());
  if (!was_there) {
    for (const google::protobuf::Value& one : fields.at("parts").list_value().values()) {
      const auto& part = one.struct_value().fields();
      Line(part.at("part").string_value().c_str(),
           absl::StrCat(part.at("count").string_value(), ", the same on both sides by SHA-256"));
    }
    if (const std::string& unknown = fields.at("became_unknown").string_value(); unknown != "0") {
      Line("unknown", absl::StrCat(unknown, " requests that a dead process had under way; see unresolved"));
    }
    Line("watches", fields.at("resume_tokens_go_on").bool_value()
                        ? "go on with the resume tokens that they have"
                        : "begin anew: the numbers of the changes are beyond those of the database");
  }
  Line("next", "start the gateways with --ledger of the database and the keys of before; no start takes the file now");
}

}  // namespace userintent::admin
