#include "server/admin/tool.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "server/admin/ask.h"
#include "server/admin/operator_service.h"
#include "server/admin/restore.h"
#include "server/admin/socket.h"
#include "server/base/duration.h"
#include "server/base/errno_text.h"
#include "server/base/secret_file.h"
#include "server/intent/fingerprint.h"
#include "server/intent/text.h"
#include "server/ledger/backup.h"
#include "server/ledger/opening.h"
#include "server/ledger/sqlite_ledger.h"
#include "userintent/admin/v1/ledger_admin_service.grpc.pb.h"
#include "userintent/v1/errors.pb.h"

namespace userintent::admin {
namespace {

constexpr char kHelp[] =
    R"(userintent-ledger: looks into the ledger of the User Intent gateway, and settles what it cannot know.

  userintent-ledger [--ledger=sqlite:PATH] [--json] COMMAND

  show REQUEST_ID [--caller=NAME]
      everything recorded about a request, of every caller that used this id
  unresolved [--limit=100] [--older_than=1h] [--not_superseded] [--sending]
      requests whose outcome nobody knows, the oldest first; without those that their caller replaced; or, instead,
      those that run
  stats
      how much of everything there is, and how many requests are under which key
  resolve REQUEST_ID --caller=NAME (--created=INTENT_ID | --not_created) --actor=NAME --evidence=TEXT [--yes]
      records what became of an unresolved request. Created: its repeats answer OK with that intent. Not created: its
      repeats answer UPSTREAM_REJECTED, and only a new request_id can try again. Nothing is ever sent again under this
      id. The evidence (a ticket, the id of Astra's answer) is kept for ever: no personal data. On a terminal it
      shows what will change and asks first, unless --yes is given
  audit [REQUEST_ID] [--limit=100]
      what operators did, the newest first
  find --email [--limit=100] [--ledger_key_file=FILE [--ledger_previous_key_file=FILE,...]]
      the requests of an e-mail address, the oldest first, and the attempts that it used. The address is one line on
      stdin: the command line is no place for it. Without a server the ledger's keys are needed
  backup FILE
      copies the ledger into a new file and checks the copy, also while the server runs; calls are served meanwhile
  check FILE  (or backup --check FILE)
      reads a copy from end to end: is it a whole ledger, and what is in it?

  restore FILE [--ledger_key_file=FILE]
      puts a copy in the ledger's place, while no server runs: checked as a whole (and against the key), what was there
      is kept under another name. It says what to give the next start as --ledger_restored

  --ledger=sqlite:PATH  (default: USERINTENT_LEDGER of the environment, else sqlite:data/ledger.db)
  --json                one JSON object on stdout

While a server runs on the ledger, it answers, through the socket PATH.admin. Otherwise the file is opened, with the
checks of a server's start (also an older schema is brought up to date), but without the ledger's key.
Exit status: 0 done, 1 refused or not found, 2 wrong usage.
)";

constexpr auto kTimeout = std::chrono::seconds(60);
constexpr auto kBackupTimeout = std::chrono::hours(12);

// ---- the command line ----

struct FlagRow {
  const char* name;
  bool boolean;
  std::string_view commands;  // which take it; empty: all
};

constexpr FlagRow kFlags[] = {
    {"ledger", false, ""},
    {"json", true, ""},
    {"caller", false, "show resolve"},
    {"limit", false, "unresolved audit find"},
    {"older_than", false, "unresolved"},
    {"not_superseded", true, "unresolved"},
    {"sending", true, "unresolved"},
    {"created", false, "resolve"},
    {"not_created", true, "resolve"},
    {"actor", false, "resolve"},
    {"evidence", false, "resolve"},
    {"yes", true, "resolve"},
    {"email", true, "find"},
    {"ledger_key_file", false, "find restore"},
    {"ledger_previous_key_file", false, "find"},
    {"check", true, "backup"},
};

struct CommandLine {
  std::vector<std::string> words;  // the command and its argument
  std::map<std::string, std::string, std::less<>> flags;
  bool help = false;

  bool has(std::string_view flag) const { return flags.find(flag) != flags.end(); }
  std::string get(std::string_view flag) const {
    const auto found = flags.find(flag);
    return found == flags.end() ? std::string() : found->second;
  }
};

absl::Status Usage(const std::string& text) {
  return absl::InvalidArgumentError(absl::StrCat(text, "; --help tells more"));
}

absl::StatusOr<CommandLine> Parse(int argc, const char* const* argv) {
  CommandLine line;
  for (int i = 1; i < argc; ++i) {
    std::string_view word = argv[i];
    if (!intent::IsUtf8(word)) return Usage(absl::StrCat("argument ", i, " is not UTF-8"));
    if (word.size() < 2 || word.front() != '-') {
      line.words.emplace_back(word);
      continue;
    }
    word.remove_prefix(word.substr(0, 2) == "--" ? 2 : 1);
    const size_t equals = word.find('=');
    const std::string name(word.substr(0, equals));
    if (name == "help" || name == "h") line.help = true;
    if (line.help) return line;
    const auto* row =
        std::find_if(std::begin(kFlags), std::end(kFlags), [&](const FlagRow& r) { return name == r.name; });
    if (row == std::end(kFlags)) return Usage(absl::StrCat("argument ", i, ": there is no such flag"));
    std::string value;
    if (equals != std::string_view::npos) {
      if (row->boolean) return Usage(absl::StrCat("--", name, " takes no value"));
      value = std::string(word.substr(equals + 1));
    } else if (!row->boolean) {
      if (++i == argc) return Usage(absl::StrCat("--", name, " needs a value"));
      value = argv[i];
      if (!intent::IsUtf8(value)) return Usage(absl::StrCat("argument ", i, " is not UTF-8"));
    }
    if (!line.flags.emplace(name, value).second) return Usage(absl::StrCat("--", name, " is given twice"));
  }
  return line;
}

// ---- who answers ----

// The server through its socket, or this process on the file.
class Ledger {
 public:
  // How the file is opened where no server runs.
  struct Access {
    bool writes = false;    // what a dead process left SENDING is made UNKNOWN first, as a server's start would
    bool as_it_is = false;  // an older schema is not brought up to date
    std::unique_ptr<const intent::Fingerprinter> fingerprinter = nullptr;
  };
  static absl::StatusOr<Ledger> Open(const std::string& path, Access access);

  std::chrono::system_clock::duration timeout = kTimeout;

  bool is_server() const { return operator_service_ == nullptr; }

  template <typename Request, typename Response, typename Local>
  absl::Status Call(grpc::Status (v1::LedgerAdminService::Stub::*remote)(grpc::ClientContext*, const Request&,
                                                                         Response*),
                    Local local, const Request& request, Response* response) {
    if (operator_service_) return std::invoke(local, *operator_service_, request, response);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    const grpc::Status status = (stub_.get()->*remote)(&context, request, response);
    if (status.ok()) return absl::OkStatus();
    std::string text = status.error_message();
    if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
      text = "the server did not answer in time; the same command may be repeated without harm";
    }
    return {static_cast<absl::StatusCode>(status.error_code()), text};
  }

 private:
  std::unique_ptr<v1::LedgerAdminService::Stub> stub_;
  // Without a server. In this order: the desk asks the book, which asks the store, which the lock protects.
  std::unique_ptr<ledger::LedgerFile> file_;
  std::unique_ptr<ledger::SqliteStore> store_;
  std::unique_ptr<ledger::Book> book_;
  std::unique_ptr<const intent::Fingerprinter> fingerprinter_;
  std::unique_ptr<OperatorService> operator_service_;
};

// True: a server listens. False: none does.
absl::StatusOr<bool> Listens(const std::string& socket) {
  if (!SocketFits(socket)) return false;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket.data(), socket.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::UnavailableError("cannot make a socket");
  const int result = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  ::close(fd);
  if (result == 0) return true;
  if (error == ENOENT || error == ECONNREFUSED || error == ENOTDIR) return false;
  return absl::PermissionDeniedError(
      absl::StrCat("cannot open ", socket, ": ", ErrnoText(error), "; run this as the user of the server"));
}

absl::StatusOr<Ledger> Ledger::Open(const std::string& path, Access access) {
  Ledger opened;
  const std::string socket = SocketPath(path);
  const absl::StatusOr<bool> listens = Listens(socket);
  if (!listens.ok()) return listens.status();
  if (*listens) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    opened.stub_ = v1::LedgerAdminService::NewStub(
        grpc::CreateCustomChannel(SocketTarget(socket), grpc::InsecureChannelCredentials(), arguments));
    return opened;
  }

  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return absl::NotFoundError(
        absl::StrCat("there is no ledger at ", path, " (", ErrnoText(), "); --ledger names another one"));
  }
  ledger::OpeningOptions opening;
  opening.store.path = path;
  opening.store.for_operator = true;
  opening.store.as_it_is = access.as_it_is;
  opening.only_read = !access.writes;
  absl::StatusOr<ledger::OpenedFiles> files = ledger::OpenFiles(opening);
  if (absl::IsAborted(files.status())) {
    return absl::UnavailableError(
        absl::StrCat("ledger ", path, ": another process uses it but does not answer at ", socket,
                     SocketFits(socket) ? "; a server that starts or ends does so: try again in a moment"
                                        : ", whose name is too long for a socket; stop the server first"));
  }
  if (!files.ok()) return files.status();
  if (access.writes) {
    const auto recovered =
        ledger::RecoverAll(*files->store, opening.store, userintent::v1::ERROR_REASON_OUTCOME_UNKNOWN);
    if (!recovered.ok()) return recovered.status();
  }
  opened.file_ = std::move(files->file);
  opened.store_ = std::move(files->store);
  opened.book_ = std::make_unique<ledger::Book>(*opened.store_);
  OperatorService::Options desk;
  desk.transact = [db = opened.store_.get(), book = opened.book_.get(),
                   writes = access.writes](OperatorService::Work work) {
    absl::Status s = db->Start();
    if (s.ok()) s = work(*db, *book);
    if (s.ok() && writes) s = db->Touch();  // newer than a copy that was made before
    if (s.ok()) s = db->Commit();
    if (!s.ok()) db->Rollback();
    return s;
  };
  desk.between = [db = opened.store_.get(), book = opened.book_.get()](OperatorService::Work work) {
    return work(*db, *book);
  };
  opened.fingerprinter_ = std::move(access.fingerprinter);
  desk.fingerprinter = opened.fingerprinter_.get();
  desk.path = path;
  desk.server_runs = false;
  opened.operator_service_ = std::make_unique<OperatorService>(std::move(desk));
  return opened;
}

// ---- what is printed ----

std::string When(const google::protobuf::Timestamp& time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromUnixSeconds(time.seconds()), absl::UTCTimeZone());
}

std::string Age(const google::protobuf::Duration& age) {
  const int64_t s = age.seconds();
  if (s < 60) return absl::StrCat(s, "s");
  if (s < 3600) return absl::StrCat(s / 60, "m ", s % 60, "s");
  if (s < 86400) return absl::StrCat(s / 3600, "h ", s / 60 % 60, "m");
  return absl::StrCat(s / 86400, "d ", s / 3600 % 24, "h");
}

std::string Word(v1::RequestState state) { return v1::RequestState_Name(state).substr(sizeof("REQUEST_STATE_") - 1); }

const char* Meaning(const v1::Request& request) {
  switch (request.state()) {
    case v1::REQUEST_STATE_SENDING:
      return request.owner_gone() ? "its process is gone: the next start makes it UNKNOWN" : "it runs";
    case v1::REQUEST_STATE_SUCCEEDED:
      return "the User Intent exists";
    case v1::REQUEST_STATE_FAILED:
      return "not created; never sent again under this id";
    case v1::REQUEST_STATE_UNKNOWN:
      return "nobody knows; never sent again";
    case v1::REQUEST_STATE_RELEASED:
      return "not created; its caller may repeat it";
    default:
      return "";
  }
}

void Line(const char* name, const std::string& value) { absl::PrintF("%-14s %s\n", name, value); }

void Print(const v1::Request& r, bool with_attempts = true) {
  Line("request", r.request_id());
  Line("caller", r.caller());
  Line("state", absl::StrCat(Word(r.state()), " (", Meaning(r), ")"));
  if (!r.user_intent_id().empty()) {
    Line("intent",
         r.astra_status().empty() ? r.user_intent_id() : absl::StrCat(r.user_intent_id(), " (", r.astra_status(), ")"));
  }
  if (!r.reason().empty()) Line("reason", r.reason());
  Line("sent", r.sent());
  if (r.http_status() != 0) Line("astra status", absl::StrCat("HTTP ", r.http_status()));
  if (!r.astra_request_id().empty()) Line("astra request", r.astra_request_id());
  Line("attempt id",
       absl::StrCat(r.gateway_attempt_id(), " (of ", r.posts(), r.posts() == 1 ? " POST)" : " POSTs, the last)"));
  if (with_attempts) {
    Line("attempts used",
         absl::StrCat(r.attempts_used_min(), " surely, ", r.attempts_used_max(), " at most, by its e-mail address"));
  }
  if (!r.supersedes_request_id().empty()) Line("supersedes", r.supersedes_request_id());
  if (!r.superseded_by_request_id().empty()) Line("superseded by", r.superseded_by_request_id());
  Line("recorded", absl::StrCat(When(r.create_time()), " (", Age(r.age()), " ago)"));
  Line("changed", When(r.update_time()));
}

void Print(const v1::AuditEntry& e) {
  absl::PrintF("%s  %s %s  %s: %s -> %s, by %s: %s\n", When(e.time()), e.request_id(), e.caller(), e.action(),
               Word(e.from_state()), Word(e.to_state()), e.actor(), e.evidence());
}

void Print(const v1::ShowRequestResponse& response) {
  for (int i = 0; i < response.requests_size(); ++i) {
    if (i != 0) std::puts("");
    Print(response.requests(i));
  }
  if (response.audit_size() != 0) std::puts("");
  for (const v1::AuditEntry& entry : response.audit()) Print(entry);
}

void Print(const v1::ListUnresolvedResponse& response) {
  if (response.requests().empty()) {
    std::puts("none");
    return;
  }
  size_t widest = 6;
  for (const v1::Request& r : response.requests()) widest = std::max(widest, r.caller().size());
  const int width = static_cast<int>(widest);
  absl::PrintF("%-9s  %-20s  %-36s  %-*s  %-36s  %s\n", "AGE", "RECORDED", "REQUEST", width, "CALLER", "ATTEMPT ID",
               "NOTE");
  for (const v1::Request& r : response.requests()) {
    std::vector<std::string> notes;
    if (r.owner_gone()) notes.emplace_back("its process is gone");
    if (r.confirmed()) notes.emplace_back("Astra answered 2xx");
    if (!r.superseded_by_request_id().empty()) notes.emplace_back("superseded");
    std::string note;
    for (const std::string& one : notes) absl::StrAppend(&note, note.empty() ? "" : ", ", one);
    absl::PrintF("%-9s  %-20s  %-36s  %-*s  %-36s  %s\n", Age(r.age()), When(r.create_time()), r.request_id(), width,
                 r.caller(), r.gateway_attempt_id(), note.empty() ? "-" : note);
  }
  if (response.more()) absl::PrintF("there are more than these %d: --limit\n", response.requests_size());
}

void Print(const v1::GetStatisticsResponse& s) {
  const auto with_age = [](int64_t count, bool any, const google::protobuf::Duration& age) {
    return any ? absl::StrCat(count, " (the oldest recorded ", Age(age), " ago)") : absl::StrCat(count);
  };
  Line("succeeded", absl::StrCat(s.succeeded()));
  Line("failed", absl::StrCat(s.failed()));
  Line("unknown", with_age(s.unknown(), s.has_oldest_unknown_age(), s.oldest_unknown_age()));
  Line("released", absl::StrCat(s.released()));
  Line("sending", with_age(s.sending(), s.has_oldest_sending_age(), s.oldest_sending_age()));
  Line("callers", absl::StrCat(s.callers()));
  Line("addresses", absl::StrCat(s.email_addresses(), ", of which ", s.email_addresses_at_limit(),
                                 " have surely used three attempts"));
  Line("audit entries", absl::StrCat(s.audit_entries()));
  Line("database",
       absl::StrCat(s.database_bytes(), " bytes, and ", s.log_bytes(), " of log; schema ", s.schema_version()));
  for (const v1::KeyUse& key : s.keys()) {
    std::string used;
    if (key.has_since()) used = absl::StrCat(", in use since ", When(key.since()));
    if (key.has_until()) absl::StrAppend(&used, " until ", When(key.until()));
    Line(&key == &s.keys(0) ? "keys" : "", absl::StrCat(key.key(), " ", key.role(), ": ", key.requests(),
                                                        key.requests() == 1 ? " request" : " requests", used));
  }
  Line("server", s.server_runs() ? "runs" : "does not run");
}

void Print(const v1::ResolveRequestResponse& response) {
  std::puts(response.changed() ? "resolved" : "it was so already; nothing was changed");
  Print(response.request());
}

void Print(const v1::ListAuditResponse& response) {
  if (response.entries().empty()) std::puts("none");
  for (const v1::AuditEntry& entry : response.entries()) Print(entry);
  if (response.more()) absl::PrintF("there are more than these %d: --limit\n", response.entries_size());
}

void Print(const v1::FindRequestsResponse& response) {
  for (int i = 0; i < response.requests_size(); ++i) {
    if (i != 0) std::puts("");
    Print(response.requests(i), false);
  }
  if (response.requests().empty()) std::puts("no request of this address");
  if (response.more()) absl::PrintF("there are more than these %d: --limit\n", response.requests_size());
  std::puts("");
  Line("attempts used", absl::StrCat(response.attempts_used_min(), " surely, ", response.attempts_used_max(),
                                     " at most, by this address"));
}

void Print(const v1::Copy& copy) {
  Line("requests", absl::StrCat(copy.requests(), ", of which ", copy.sending(), " were being sent"));
  Line("addresses", absl::StrCat(copy.email_addresses()));
  Line("audit entries", absl::StrCat(copy.audit_entries()));
  Line("last change", copy.has_last_change_time() ? When(copy.last_change_time()) : "none");
  Line("key", copy.key());
  Line("size", absl::StrCat(copy.bytes(), " bytes; schema ", copy.schema_version()));
}

void Print(const v1::BackUpResponse& response) {
  const auto seconds = [](const google::protobuf::Duration& d) {
    return absl::StrFormat("%.3f s", static_cast<double>(d.seconds()) + d.nanos() * 1e-9);
  };
  std::puts("backed up and checked");
  Line("file", response.path());
  Print(response.copy());
  Line("took", absl::StrCat(seconds(response.took()), "; calls waited ", seconds(response.longest_wait()),
                            " at most at a time"));
}

// ---- the commands ----

struct Context {
  const CommandLine& line;
  std::string path;
  bool json = false;
};

// These messages hold no personal data; scripts/check_text.py allows this only here.
absl::Status PrintJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(message, &text, options).ok()) {
    return absl::InternalError("the answer cannot be written as JSON");
  }
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

template <typename Request, typename Response, typename Local>
absl::Status AskOf(Ledger& ledger, const Context& context,
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
  absl::StatusOr<Ledger> ledger = Ledger::Open(context.path, {.writes = writes});
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
  absl::StatusOr<Ledger> ledger = Ledger::Open(context.path, {});
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
      r.gateway_attempt_id(), Word(r.state()), Meaning(r), change));
}

absl::Status Resolve(const Context& context) {
  const CommandLine& line = context.line;
  for (const char* flag : {"caller", "actor", "evidence"}) {
    if (line.get(flag).empty()) return Usage(absl::StrCat("resolve needs --", flag));
  }
  if (line.has("created") == line.has("not_created")) {
    return Usage("resolve needs either --created=INTENT_ID or --not_created");
  }
  v1::ResolveRequestRequest request;
  request.set_request_id(line.words[1]);
  request.set_caller(line.get("caller"));
  if (line.has("created")) {
    request.set_user_intent_id(line.get("created"));
  } else {
    request.set_not_created(true);
  }
  request.set_actor(line.get("actor"));
  request.set_evidence(line.get("evidence"));
  if (!line.has("yes") && OnTerminal()) {
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

absl::Status Find(const Context& context) {
  const CommandLine& line = context.line;
  if (!line.has("email")) return Usage("find needs --email, and the address on stdin");
  v1::FindRequestsRequest request;
  const absl::StatusOr<int32_t> limit = Limit(line);
  if (!limit.ok()) return limit.status();
  request.set_limit(*limit);
  Ledger::Access access;
  if (line.has("ledger_key_file")) {
    absl::StatusOr<std::unique_ptr<const intent::Fingerprinter>> keys =
        ReadKeys(line.get("ledger_key_file"), line.get("ledger_previous_key_file"));
    if (!keys.ok()) return keys.status();
    access.fingerprinter = *std::move(keys);
  }
  const bool has_key = access.fingerprinter != nullptr;
  absl::StatusOr<Ledger> ledger = Ledger::Open(context.path, std::move(access));
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
  OperatorService::Fill(*report, &copy);
  if (context.json) return PrintJson(copy);
  std::puts("a whole ledger");
  Print(copy);
  return absl::OkStatus();
}

absl::Status LocalBackUp(OperatorService& desk, const v1::BackUpRequest& request, v1::BackUpResponse* response) {
  return desk.BackUp(request, response);
}

absl::Status BackUp(const Context& context) {
  if (context.line.has("check")) return Check(context);
  std::error_code error;
  const std::filesystem::path path = std::filesystem::absolute(context.line.words[1], error);
  if (error) return absl::UnavailableError(absl::StrCat("cannot tell where this is: ", error.message()));
  v1::BackUpRequest request;
  request.set_path(path.string());
  absl::StatusOr<Ledger> ledger = Ledger::Open(context.path, {.as_it_is = true});
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

struct CommandRow {
  std::string_view name;
  size_t least_words;  // the command and its argument
  size_t most_words;
  absl::Status (*run)(const Context& context);
};

constexpr CommandRow kCommands[] = {
    {"show", 2, 2, Show},       {"unresolved", 1, 1, Unresolved}, {"stats", 1, 1, Stats},
    {"resolve", 2, 2, Resolve}, {"audit", 1, 2, Audit},           {"find", 1, 1, Find},
    {"backup", 2, 2, BackUp},   {"check", 2, 2, Check},           {"restore", 2, 2, RestoreCopy},
};

constexpr char kCommandNames[] = "show, unresolved, stats, resolve, audit, find, backup, check or restore";

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
  for (const FlagRow& row : kFlags) {
    if (line.has(row.name) && !row.commands.empty() && row.commands.find(command->name) == std::string_view::npos) {
      return Usage(absl::StrCat(line.words[0], " does not take --", row.name));
    }
  }
  Context context{line, {}, line.has("json")};
  std::string where = "sqlite:data/ledger.db";
  if (const char* variable = std::getenv("USERINTENT_LEDGER"); variable != nullptr) where = variable;
  if (line.has("ledger")) where = line.get("ledger");
  constexpr std::string_view kSqlite = "sqlite:";
  if (where.substr(0, kSqlite.size()) != kSqlite || where.size() == kSqlite.size()) {
    return Usage("--ledger must be sqlite:PATH: nothing else has a file to look into");
  }
  context.path = where.substr(kSqlite.size());
  return command->run(context);
}

}  // namespace

int RunTool(int argc, const char* const* argv) {
  const absl::StatusOr<CommandLine> line = Parse(argc, argv);
  absl::Status status = line.status();
  if (status.ok() && line->help) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  if (status.ok()) status = Run(*line);
  if (status.ok() && std::fflush(stdout) != 0) status = absl::UnavailableError("cannot write to stdout");
  if (status.ok()) return 0;
  std::fprintf(stderr, "userintent-ledger: %s\n", std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) ? 2 : 1;
}

}  // namespace userintent::admin
