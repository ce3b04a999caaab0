#include "server/postgres/foreign_joins.h"

#include <algorithm>
#include <string>
#include <utility>

#include "server/postgres/connection.h"

namespace userintent::postgres {
namespace {

// A row that is not there has ended as well; the ledger says how.
constexpr char kEnded[] =
    "SELECT w.place FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS w (caller, request_id, place) "
    "LEFT JOIN caller c ON c.name = w.caller "
    "LEFT JOIN LATERAL (SELECT q.state FROM request q WHERE q.caller = c.id AND q.request_id = w.request_id OFFSET 0) "
    "r ON true "
    "WHERE r.state IS DISTINCT FROM 1";

}  // namespace

bool JoinPace::IsDue(const std::vector<ledger::Key>& keys, BootNanos now) {
  const bool waited = !known_.empty();
  const bool news = std::ranges::any_of(keys, [this](const ledger::Key& key) { return !known_.contains(key); });
  known_ = {keys.begin(), keys.end()};
  if (keys.empty()) return false;
  if (news) {
    pause_ = kFirstPause;
    ask_at_ = waited ? std::min(ask_at_, now + kFirstPause) : now + kFirstPause;
  }
  if (now < ask_at_) return false;
  pause_ = std::min(2 * pause_, kLongestPause);
  ask_at_ = now + pause_;
  return true;
}

absl::StatusOr<BootNanos> ForeignJoins::Turn(Connection& connection, BootNanos now) {
  std::vector<ledger::Key> keys = ledger_.waits();
  if (!pace_.IsDue(keys, now)) return now + kLookEvery;
  std::vector<std::string> callers;
  std::vector<Uuid> ids;
  for (const ledger::Key& key : keys) {
    callers.push_back(key.caller);
    ids.push_back(key.request_id);
  }
  const absl::StatusOr<Rows> rows = connection.Query(kEnded, {callers, ids});
  if (!rows.ok()) return rows.status();
  std::vector<ledger::Key> ended;
  for (int at = 0; at < rows->size(); ++at) {
    ended.push_back(std::move(keys[static_cast<size_t>(rows->Number(at, 0) - 1)]));
  }
  if (!ended.empty()) ledger_.ended(std::move(ended));
  return now + kLookEvery;
}

}  // namespace userintent::postgres
