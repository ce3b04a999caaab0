#include "server/admin/tool.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/client_context.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "server/admin/ask.h"
#include "server/admin/command_line.h"
#include "server/admin/ledger_handle.h"
#include "server/admin/messages.h"
#include "server/admin/operator_service.h"
#include "server/admin/restore.h"
#include "server/admin/socket.h"
#include "server/admin/tool_copy.h"
#include "server/admin/tool_database.h"
#include "server/admin/tool_print.h"
#include "server/admin/tool_text.h"
#include "server/base/duration.h"
#include "server/base/secret_file.h"
#include "server/intent/fingerprint.h"
#include "server/ledger/backup.h"
#include "server/ledger/mark.h"
#include "server/postgres/url.h"
#include "userintent/admin/v1/ledger_admin_service.grpc.pb.h"
#include "userintent/v1/errors.pb.h"

// In this file: printing; one function a command; the table of commands; RunTool.

namespace userintent::admin {
namespace {

constexpr auto kBackupTimeout = std::chrono::hours(12);

struct Context {
  const CommandLine& line;
  std::string path;
  bool json = false;
};

// protobuf has renamed this option.
template <typename Options>
void PrintFieldsWithoutValue(Options& options) {
  if constexpr (requires { options.always_print_fields_with_no_presence; }) {
    options.always_print_fields_with_no_presence = true;
  } else {
    options.always_print_primitive_fields = true;
  }
}

// These messages hold no personal data; scripts/check_text.py allows this only here.
absl::Status PrintJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  PrintFieldsWithoutValue(options);
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(message, &text, options).ok()) {
    return absl::InternalError("the answer cannot be written as JSON");
  }
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

template <typename Request, typename Response, typename Local>
absl::Status AskOf(LedgerHandle& ledger, const Context& context,
                   grpc::Status (v1::LedgerAdminService::Stub::*remote)(grpc::ClientContext*, const Request&,
                                                                        Response*),
                   Local local, const Request& request) {
  Response response;
  if (absl::Status s = ledger.Call(remote, local, request, &response); !s.ok()) return s;
  if (context.json) return PrintJson(response);
  Print(response);
  return absl::OkStatus();
}

template <typename Request, typename Response>
absl::Status Ask(const Context& context,
                 grpc::Status (v1::LedgerAdminService::Stub::*remote)(grpc::ClientContext*, const Request&, Response*),
                 absl::Status (OperatorService::*local)(const Request&, Response*), const Request& request,
                 bool writes = false) {
  absl::StatusOr<LedgerHandle> ledger = LedgerHandle::Open(context.path, {.writes = writes});
  if (!ledger.ok()) return ledger.status();
  return AskOf(*ledger, context, remote, local, request);
}

absl::StatusOr<int32_t> Limit(const CommandLine& line) {
  if (!line.has("limit")) return 0;
  int32_t limit = 0;
  if (!absl::SimpleAtoi(line.get("limit"), &limit) || limit < 1) return Usage("--limit must be from 1 to 1000");
  return limit;
}

absl::Status Show(const Context& context) {
  v1::ShowRequestRequest request;
  request.set_request_id(context.line.words[1]);
  request.set_caller(context.line.get("caller"));
  return Ask(context, &v1::LedgerAdminService::Stub::ShowRequest, &OperatorService::ShowRequest, request);
}

absl::Status Unresolved(const Context& context) {
  v1::ListUnresolvedRequest request;
  const absl::StatusOr<int32_t> limit = Limit(context.line);
  if (!limit.ok()) return limit.status();
  request.set_limit(*limit);
  if (context.line.has("older_than")) {
    absl::Duration age;
    if (!ReadDuration(context.line.get("older_than"), &age) || age < absl::ZeroDuration() ||
        age > absl::Hours(24 * 36525)) {
      return Usage("--older_than must be a duration with its unit (s, m, h or d), for example 1h");
    }
    request.mutable_older_than()->set_seconds(absl::ToInt64Seconds(age));
  }
  request.set_not_superseded(context.line.has("not_superseded"));
  request.set_sending(context.line.has("sending"));
  return Ask(context, &v1::LedgerAdminService::Stub::ListUnresolved, &OperatorService::ListUnresolved, request);
}

absl::Status Stats(const Context& context) {
  return Ask(context, &v1::LedgerAdminService::Stub::GetStatistics, &OperatorService::GetStatistics,
             v1::GetStatisticsRequest());
}

// Shows the request on stderr, and what would be recorded of it; OK when the operator says yes.
absl::Status Confirm(const Context& context, const v1::ResolveRequestRequest& resolve) {
  absl::StatusOr<LedgerHandle> ledger = LedgerHandle::Open(context.path, {});
  if (!ledger.ok()) return ledger.status();
  v1::ShowRequestRequest show;
  show.set_request_id(resolve.request_id());
  show.set_caller(resolve.caller());
  v1::ShowRequestResponse found;
  if (absl::Status s =
          ledger->Call(&v1::LedgerAdminService::Stub::ShowRequest, &OperatorService::ShowRequest, show, &found);
      !s.ok()) {
    return s;
  }
  const v1::Request& r = found.requests(0);
  const bool created = resolve.outcome_case() == v1::ResolveRequestRequest::kUserIntentId;
  const std::string change =
      created ? absl::StrCat("SUCCEEDED with the intent ", resolve.user_intent_id(),
                             ": its repeats answer OK with it, and one attempt of its e-mail address is surely used")
              : "FAILED: its repeats answer UPSTREAM_REJECTED, and its caller may create the person under a new id";
  return AskForYes(absl::StrFormat(
      "request        %s of %s\n"
      "recorded       %s, %s\n"
      "attempt id     %s\n"
      "now            %s (%s)\n"
      "becomes        %s\n"
      "This cannot be taken back.",
      r.request_id(), r.caller(), When(r.create_time()),
      r.http_status() == 0 ? "no answer of Astra came" : absl::StrCat("Astra answered HTTP ", r.http_status()),
      AttemptId(r), Word(r.state()), Meaning(r), change));
}

absl::Status Resolve(const Context& context) {
  const CommandLine& line = context.line;
  const bool has_outcome = line.has("created") || line.has("not_created");
  for (const char* flag : {"caller", "actor", "evidence"}) {
    if (!has_outcome && std::string_view(flag) != "caller") break;
    if (line.get(flag).empty()) return Usage(absl::StrCat("resolve needs --", flag));
  }
  if (line.has("created") && line.has("not_created")) {
    return Usage("resolve needs either --created=INTENT_ID or --not_created");
  }
  v1::ResolveRequestRequest request;
  request.set_request_id(line.words[1]);
  request.set_caller(line.get("caller"));
  if (line.has("created")) {
    request.set_user_intent_id(line.get("created"));
  } else if (has_outcome) {
    request.set_not_created(true);
  }
  request.set_actor(line.get("actor"));
  request.set_evidence(line.get("evidence"));
  if (has_outcome && !line.has("yes") && OnTerminal()) {
    if (absl::Status s = Confirm(context, request); !s.ok()) return s;
  }
  return Ask(context, &v1::LedgerAdminService::Stub::ResolveRequest, &OperatorService::ResolveRequest, request, true);
}

absl::Status Audit(const Context& context) {
  v1::ListAuditRequest request;
  const absl::StatusOr<int32_t> limit = Limit(context.line);
  if (!limit.ok()) return limit.status();
  request.set_limit(*limit);
  if (context.line.words.size() > 1) request.set_request_id(context.line.words[1]);
  return Ask(context, &v1::LedgerAdminService::Stub::ListAudit, &OperatorService::ListAudit, request);
}

absl::Status Conflicts(const Context& context) {
  v1::ListConflictsRequest request;
  const absl::StatusOr<int32_t> limit = Limit(context.line);
  if (!limit.ok()) return limit.status();
  request.set_limit(*limit);
  return Ask(context, &v1::LedgerAdminService::Stub::ListConflicts, &OperatorService::ListConflicts, request);
}

absl::Status Find(const Context& context) {
  const CommandLine& line = context.line;
  if (!line.has("email")) return Usage("find needs --email, and the address on stdin");
  v1::FindRequestsRequest request;
  const absl::StatusOr<int32_t> limit = Limit(line);
  if (!limit.ok()) return limit.status();
  request.set_limit(*limit);
  LedgerHandle::Access access;
  if (line.has("ledger_key_file")) {
    absl::StatusOr<std::unique_ptr<const intent::Fingerprinter>> keys =
        ReadKeys(line.get("ledger_key_file"), line.get("ledger_previous_key_file"));
    if (!keys.ok()) return keys.status();
    access.fingerprinter = *std::move(keys);
  }
  const bool has_key = access.fingerprinter != nullptr;
  absl::StatusOr<LedgerHandle> ledger = LedgerHandle::Open(context.path, std::move(access));
  if (!ledger.ok()) return ledger.status();
  if (!ledger->is_server() && !has_key) {
    return Usage("no server runs here, so find needs --ledger_key_file (and --ledger_previous_key_file)");
  }
  absl::StatusOr<std::string> email = ReadEmail();
  if (!email.ok()) return email.status();
  request.set_email(*std::move(email));
  return AskOf(*ledger, context, &v1::LedgerAdminService::Stub::FindRequests, &OperatorService::FindRequests, request);
}

absl::Status Check(const Context& context) {
  const absl::StatusOr<ledger::CopyReport> report = ledger::CheckCopy(context.line.words[1]);
  if (!report.ok()) return report.status();
  v1::Copy copy;
  Fill(*report, &copy);
  if (context.json) return PrintJson(copy);
  std::puts("a whole ledger");
  Print(copy);
  return absl::OkStatus();
}

absl::Status LocalBackUp(OperatorService& service, const v1::BackUpRequest& request, v1::BackUpResponse* response) {
  return service.BackUp(request, response);
}

absl::Status BackUp(const Context& context) {
  if (context.line.has("check")) return Check(context);
  std::error_code error;
  const std::filesystem::path path = std::filesystem::absolute(context.line.words[1], error);
  if (error) return absl::UnavailableError(absl::StrCat("cannot tell where this is: ", error.message()));
  v1::BackUpRequest request;
  request.set_path(path.string());
  absl::StatusOr<LedgerHandle> ledger = LedgerHandle::Open(context.path, {.as_it_is = true});
  if (!ledger.ok()) return ledger.status();
  ledger->timeout = kBackupTimeout;
  return AskOf(*ledger, context, &v1::LedgerAdminService::Stub::BackUp, LocalBackUp, request);
}

absl::Status RestoreCopy(const Context& context) {
  std::optional<uint64_t> key_id;
  if (context.line.has("ledger_key_file")) {
    const absl::StatusOr<Secret> key = ReadLedgerKey(context.line.get("ledger_key_file"), "--ledger_key_file");
    if (!key.ok()) return key.status();
    key_id = intent::Fingerprinter(*key).key_id();
  }
  const absl::StatusOr<bool> listens = Listens(SocketPath(context.path));
  if (!listens.ok()) return listens.status();
  if (*listens) return absl::FailedPreconditionError("a server runs on this ledger; stop it first");
  const absl::StatusOr<RestoreResult> result = Restore(context.line.words[1], context.path, key_id);
  if (!result.ok()) return result.status();
  const std::string last_change = ledger::TimeText(result->last_change);
  if (context.json) {
    google::protobuf::Struct out;
    auto& fields = *out.mutable_fields();
    fields["kept_as"].set_string_value(result->kept_as);
    fields["requests"].set_string_value(absl::StrCat(result->rows));
    fields["last_change"].set_string_value(last_change);
    fields["must_be_acknowledged"].set_bool_value(result->must_be_acknowledged);
    return PrintJson(out);
  }
  std::puts("restored");
  Line("requests", absl::StrCat(result->rows));
  Line("last change", last_change);
  if (!result->kept_as.empty()) Line("kept", absl::StrCat("what was there is now ", result->kept_as));
  Line("next",
       result->must_be_acknowledged
           ? absl::StrCat("start the server with --ledger_restored=", last_change,
                          ": this directory served a newer ledger, and what it sent since then would be sent again")
           : "start the server");
  return absl::OkStatus();
}

absl::Status Tell(const Context& context, const absl::StatusOr<google::protobuf::Struct>& told,
                  void (*print)(const google::protobuf::Struct&)) {
  if (!told.ok()) return told.status();
  if (context.json) return PrintJson(*told);
  print(*told);
  return absl::OkStatus();
}

absl::Status MigrateSchema(const Context& context) {
  return Tell(context, MigrateDatabase(context.path), PrintMigration);
}

absl::Status Replicas(const Context& context) { return Tell(context, ReplicasOf(context.path), PrintReplicas); }

absl::Status Copy(const Context& context) { return Tell(context, CopyOf(context.line), PrintCopy); }

struct CommandRow {
  std::string_view name;
  size_t least_words;  // the command and its argument
  size_t most_words;
  absl::Status (*run)(const Context& context);
  bool on_file = true;  // neither: it names its ledgers itself
  bool on_database = true;
};

constexpr CommandRow kCommands[] = {
    {"show", 2, 2, Show},
    {"unresolved", 1, 1, Unresolved},
    {"stats", 1, 1, Stats},
    {"resolve", 2, 2, Resolve},
    {"audit", 1, 2, Audit},
    {"conflicts", 1, 1, Conflicts},
    {"find", 1, 1, Find},
    {"backup", 2, 2, BackUp, true, false},
    {"check", 2, 2, Check, true, false},
    {"restore", 2, 2, RestoreCopy, true, false},
    {"migrate", 1, 1, MigrateSchema, false},
    {"replicas", 1, 1, Replicas, false},
    {"copy", 1, 1, Copy, false, false},
};

constexpr char kCommandNames[] =
    "show, unresolved, stats, resolve, audit, conflicts, find, backup, check, restore, migrate, replicas or copy";

absl::Status Run(const CommandLine& line) {
  if (line.words.empty()) return Usage(absl::StrCat("a command is missing: ", kCommandNames));
  const auto* command = std::find_if(std::begin(kCommands), std::end(kCommands),
                                     [&](const CommandRow& row) { return row.name == line.words[0]; });
  if (command == std::end(kCommands)) return Usage(absl::StrCat("there is no such command: ", kCommandNames));
  if (line.words.size() < command->least_words) {
    const bool file = command->name == "backup" || command->name == "check" || command->name == "restore";
    return Usage(absl::StrCat(line.words[0], file ? " needs a file" : " needs a request id"));
  }
  if (line.words.size() > command->most_words) return Usage(absl::StrCat(line.words[0], ": too many arguments"));
  if (absl::Status status = CheckFlags(line); !status.ok()) return status;
  Context context{line, {}, line.has("json")};
  if (!command->on_file && !command->on_database) return command->run(context);
  std::string where = "sqlite:data/ledger.db";
  if (const char* variable = std::getenv("USERINTENT_LEDGER"); variable != nullptr) where = variable;
  if (line.has("ledger")) where = line.get("ledger");
  if (IsDatabase(where)) {
    if (absl::Status s = postgres::CheckUrl(where); !s.ok()) {
      return Usage(absl::StrCat("--ledger ", std::string(s.message())));
    }
    if (!command->on_database)
      return Usage(absl::StrCat(line.words[0], " is for a ledger in a file: the database has its own"));
    context.path = where;
    return command->run(context);
  }
  if (!command->on_file) return Usage(absl::StrCat(line.words[0], " needs --ledger=postgresql://..."));
  constexpr std::string_view kSqlite = "sqlite:";
  if (where.substr(0, kSqlite.size()) != kSqlite || where.size() == kSqlite.size()) {
    return Usage("--ledger must be sqlite:PATH or postgresql://...");
  }
  context.path = where.substr(kSqlite.size());
  return command->run(context);
}

}  // namespace

int RunTool(int argc, const char* const* argv) {
  const absl::StatusOr<CommandLine> line = Parse(argc, argv);
  absl::Status status = line.status();
  if (status.ok() && line->help) {
    std::fputs(Help(), stdout);
    return 0;
  }
  if (status.ok()) status = Run(*line);
  if (status.ok() && std::fflush(stdout) != 0) status = absl::UnavailableError("cannot write to stdout");
  if (status.ok()) return 0;
  std::fprintf(stderr, "userintent-ledger: %s\n", std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) ? 2 : 1;
}

}  // namespace userintent::admin
