#include "server/admin/unresolved.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/admin/operator_service.h"
#include "server/admin/tool_text.h"
#include "userintent/admin/v1/ledger_admin_service.pb.h"

namespace userintent::admin {
namespace {

constexpr int kConflicts = 1000;

absl::StatusOr<int64_t> Count(ledger::OperatorAccess& ledger) {
  int64_t count = 0;
  const absl::Status status = ledger.Transact([&](ledger::Store&, ledger::Inspector& inspector) -> absl::Status {
    const absl::StatusOr<std::vector<ledger::Row>> rows =
        inspector.Oldest(ledger::State::kUnknown, absl::InfiniteFuture(), true, Unresolved::kCounted);
    if (rows.ok()) count = static_cast<int64_t>(rows->size());
    return rows.status();
  });
  if (!status.ok()) return status;
  return count;
}

// What the exchange itself may still say.
std::string LateAnswer(const v1::Request& request, absl::Duration window, absl::Time now) {
  if (request.http_status() != 0 || window == absl::ZeroDuration()) return "";
  const absl::Time until = absl::FromUnixSeconds(request.update_time().seconds()) + window;
  if (until <= now) return "none came";
  return absl::StrCat("none yet; if it is only slow, it is listened for until ", TimeText(until));
}

int64_t ConflictsOf(const v1::Request& request, const v1::ListConflictsResponse& conflicts) {
  return std::ranges::count_if(conflicts.conflicts(), [&](const v1::Conflict& one) {
    return one.caller() == request.caller() && one.request_id() == request.request_id();
  });
}

std::vector<Unresolved::Fact> FactsOf(const v1::Request& request, const v1::ListConflictsResponse& conflicts,
                                      absl::Duration late_answer_window, absl::Time now) {
  std::vector<Unresolved::Fact> facts;
  const auto add = [&facts](const char* name, std::string value) {
    if (!value.empty()) facts.push_back({name, std::move(value)});
  };
  add("caller", request.caller());
  add("age", absl::StrCat(Age(request.age()), ", recorded ", When(request.create_time())));
  add("attempt id",
      absl::StrCat(AttemptId(request), ", of ", request.posts(), request.posts() == 1 ? " POST" : " POSTs, the last"));
  add("sent", request.sent());
  add("reason", request.reason());
  if (request.http_status() != 0) add("Astra's status line", absl::StrCat(request.http_status()));
  add("Astra's Request-Id", request.astra_request_id());
  if (request.confirmed()) add("attempt", "surely used: Astra answered 2xx");
  add("late answer", LateAnswer(request, late_answer_window, now));
  for (std::string& line : WebhookLines(request)) add("webhooks", std::move(line));
  if (const int64_t count = ConflictsOf(request, conflicts); count != 0) {
    add("CONFLICT", absl::StrCat(count, ": Astra said otherwise; userintent-ledger show tells"));
  }
  return facts;
}

}  // namespace

absl::StatusOr<Unresolved> ReadUnresolved(ledger::OperatorAccess& ledger, const UnresolvedOptions& options) {
  OperatorService::Options asked;
  asked.ledger = &ledger;
  OperatorService service(std::move(asked));
  v1::ListUnresolvedRequest oldest;
  oldest.set_limit(Unresolved::kShown);
  oldest.set_not_superseded(true);
  v1::ListUnresolvedResponse found;
  if (absl::Status s = service.ListUnresolved(oldest, &found); !s.ok()) return s;
  v1::ListConflictsRequest newest;
  newest.set_limit(kConflicts);
  v1::ListConflictsResponse conflicts;
  if (!found.requests().empty()) {
    if (absl::Status s = service.ListConflicts(newest, &conflicts); !s.ok()) return s;
  }
  Unresolved unresolved;
  unresolved.read = absl::Now();
  unresolved.all = found.requests_size();
  if (found.more()) {
    const absl::StatusOr<int64_t> all = Count(ledger);
    if (!all.ok()) return all.status();
    unresolved.all = *all;
  }
  for (const v1::Request& request : found.requests()) {
    ResolveCommands commands = CommandsFor(request, options.ledger);
    unresolved.requests.push_back({request.request_id(),
                                   FactsOf(request, conflicts, options.late_answer_window, unresolved.read),
                                   std::move(commands.created), std::move(commands.not_created)});
  }
  return unresolved;
}

}  // namespace userintent::admin
