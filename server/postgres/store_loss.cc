// Whether a database still holds what it said was committed.
//
// Asked after each reconnect, because that is when another server may answer: one that was promoted without the last
// commits has forgotten them without a word, and a repeat of what they recorded would be sent again. Rows that run
// here, and those that ended here last, are never removed while they are young, so a missing one is a lost one.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/postgres/store.h"

namespace userintent::postgres {
namespace {

constexpr size_t kRemembered = 1000;

// $1 and $2: rows that are there in whatever state; $3 and $4: rows that ended for ever.
const std::string& MissingSql() {
  static const auto* const kSql = new std::string([] {
    const auto count = [](const char* callers, const char* ids, const char* states) {
      return absl::StrCat("(SELECT count(*) FROM unnest(", callers, "::text[], ", ids,
                          "::uuid[]) AS k (caller, request_id) WHERE NOT EXISTS (SELECT 1 FROM request r JOIN caller c "
                          "ON c.id = r.caller WHERE c.name = k.caller AND r.request_id = k.request_id",
                          states, "))");
    };
    return absl::StrCat("SELECT ", count("$1", "$2", ""), " + ", count("$3", "$4", " AND r.state IN (2, 3)"));
  }());
  return *kSql;
}

}  // namespace

void Store::Remember(const ledger::Row& row) {
  if (row.record.state != ledger::State::kSucceeded && row.record.state != ledger::State::kFailed) return;
  ended_.push_back(row.record.key);
  if (ended_.size() > kRemembered) ended_.pop_front();
}

absl::Status Store::CheckNothingLost(Connection& connection) {
  if (running_.empty() && ended_.empty()) return absl::OkStatus();
  std::vector<std::string> run_callers, end_callers;
  std::vector<Uuid> run_ids, end_ids;
  for (const auto& [key, row] : running_) {
    run_callers.push_back(key.caller);
    run_ids.push_back(key.request_id);
  }
  for (const ledger::Key& key : ended_) {
    end_callers.push_back(key.caller);
    end_ids.push_back(key.request_id);
  }
  ++round_trips_;
  const absl::StatusOr<Rows> missing = connection.Query(MissingSql(), {run_callers, run_ids, end_callers, end_ids});
  if (!missing.ok()) return missing.status();
  const int64_t lost = missing->Number(0, 0);
  if (lost == 0) return absl::OkStatus();
  options_.on_lost(static_cast<size_t>(lost));
  return absl::DataLossError(absl::StrCat("the database has forgotten ", lost, " requests that it had confirmed"));
}

}  // namespace userintent::postgres
