#include "server/postgres/webhooks.h"

#include <algorithm>
#include <initializer_list>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace userintent::postgres {
namespace {

using ledger::WebhookQueue;

// Microseconds.
constexpr char kClock[] = "WITH clock AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now) ";
constexpr char kFree[] = "(claimed_by IS NULL OR claimed_by = $1 OR claimed_until <= clock.now)";
constexpr char kClaimedUntil[] = "clock.now + 60000000";

// $1: the claimer, $2: at most, $3: webhooks that are left out. Whether a claim holds for another 30 s, and the row.
std::string DueSql() {
  constexpr char kColumns[] =
      "webhook_id, type, resource_id, attempt_id, received_at, tries, due_at, "
      "coalesce(claimed_by = $1 AND claimed_until > clock.now + 30000000, false)";
  return absl::StrCat(kClock, "(SELECT 0, ", kColumns, " FROM webhook, clock WHERE due_at IS NOT NULL AND ", kFree,
                      " AND webhook_id <> ALL ($3) ORDER BY due_at, received_at, webhook_id LIMIT $2) "
                      "UNION ALL (SELECT 1, ",
                      kColumns, " FROM webhook, clock WHERE due_at IS NOT NULL AND webhook_id = ANY ($3))");
}

constexpr char kCount[] =
    "SELECT count(*), min(received_at) FROM webhook WHERE due_at IS NOT NULL AND webhook_id <> ALL ($1)";

// $1: the claimer, $2: the webhooks. Those that another replica claims at this moment are left to it.
std::string ClaimSql() {
  return absl::StrCat(kClock, ", free AS (SELECT id FROM webhook, clock WHERE webhook_id = ANY ($2) ",
                      "AND due_at IS NOT NULL AND ", kFree, " ORDER BY id FOR UPDATE OF webhook SKIP LOCKED) ",
                      "UPDATE webhook SET claimed_by = $1, claimed_until = ", kClaimedUntil,
                      " FROM free, clock WHERE webhook.id = free.id RETURNING webhook_id");
}

// Another replica may have stored the same one meanwhile: then it is stored.
std::string AddSql() {
  return absl::StrCat(kClock, "INSERT INTO webhook (webhook_id, type, resource_id, attempt_id, received_at, due_at, ",
                      "tries, result, claimed_by, claimed_until) ",
                      "SELECT id, type, resource_id, attempt_id, received_at, received_at, 0, '', $1, ", kClaimedUntil,
                      " FROM clock, unnest($2::text[], $3::text[], $4::text[], $5::uuid[], $6::bigint[]) ",
                      "AS n (id, type, resource_id, attempt_id, received_at) ORDER BY id ",
                      "ON CONFLICT (webhook_id) DO NOTHING");
}

constexpr char kEnd[] =
    "UPDATE webhook w SET due_at = e.again, tries = w.tries + e.put_back, result = e.result "
    "FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS e (id, result, put_back, again) "
    "WHERE w.webhook_id = e.id AND w.due_at IS NOT NULL";

// $1: now, $2: the longest gap. The last period goes on, or one begins.
constexpr char kAlive[] =
    "WITH last AS (SELECT id, until FROM receiver_period ORDER BY id DESC LIMIT 1), "
    "longer AS (UPDATE receiver_period p SET until = greatest(p.until, $1) FROM last "
    "WHERE p.id = last.id AND abs($1 - last.until) <= $2 RETURNING p.id) "
    "INSERT INTO receiver_period (began, until) SELECT $1, $1 WHERE NOT EXISTS (SELECT 1 FROM longer)";

// $1: before, $2: at most.
constexpr char kForget[] =
    "WITH periods AS (DELETE FROM receiver_period WHERE until < $1) "
    "DELETE FROM webhook WHERE id IN (SELECT id FROM webhook WHERE received_at < $1 AND due_at IS NULL "
    "ORDER BY received_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

// The queue may have more or fewer than is known here for so long; it is a limit, and no promise.
constexpr BootNanos kCountedFor = 1'000'000'000;

}  // namespace

absl::StatusOr<Connection*> Webhooks::Connected() const {
  Connection* const connection = lent_.connection();
  if (connection == nullptr) return absl::UnavailableError("the database: there is no connection");
  return connection;
}

// ---- what is asked

absl::StatusOr<Webhooks::Standing> Webhooks::StandingOf(const std::string& id) {
  const auto pending = pending_.find(id);
  const bool changed = pending != pending_.end();
  if (!changed || !pending->second.added) {
    const absl::StatusOr<Connection*> connection = Connected();
    if (!connection.ok()) return connection.status();
    const absl::StatusOr<Rows> rows =
        (*connection)->Query("SELECT due_at IS NULL FROM webhook WHERE webhook_id = $1", {id});
    if (!rows.ok()) return rows.status();
    if (rows->size() == 0) return Standing::kNew;
    if (rows->Bool(0, 0)) return Standing::kDone;
  }
  return changed && pending->second.IsDone() ? Standing::kDone : Standing::kWaits;
}

absl::StatusOr<size_t> Webhooks::Waiting() {
  if (!counted_at_ || BootNow() - *counted_at_ > kCountedFor) {
    const absl::StatusOr<Connection*> connection = Connected();
    if (!connection.ok()) return connection.status();
    const absl::StatusOr<Rows> rows =
        (*connection)->Query("SELECT count(*) FROM webhook WHERE due_at IS NOT NULL", std::initializer_list<Value>{});
    if (!rows.ok()) return rows.status();
    counted_ = rows->Number(0, 0);
    counted_at_ = BootNow();
  }
  return static_cast<size_t>(std::max<int64_t>(0, counted_ + Growth()));
}

// Of the queue, by the open transaction; as far as is known here.
int64_t Webhooks::Growth() const {
  int64_t growth = 0;
  for (const auto& [id, pending] : pending_) growth += (pending.added ? 1 : 0) - (pending.IsDone() ? 1 : 0);
  return growth;
}

std::vector<std::string> Webhooks::Changed() const {
  std::vector<std::string> ids;
  ids.reserve(pending_.size());
  for (const auto& [id, pending] : pending_) ids.push_back(id);
  return ids;
}

absl::StatusOr<WebhookQueue::NextAnswer> Webhooks::Next(absl::Time now, size_t limit) {
  const absl::StatusOr<Connection*> connection = Connected();
  if (!connection.ok()) return connection.status();
  Queue queue;
  if (absl::Status s = Count(**connection, queue); !s.ok()) return s;
  if (absl::Status s = Find(**connection, limit, queue); !s.ok()) return s;
  std::vector<Waiter>& waiters = queue.waiters;
  std::sort(waiters.begin(), waiters.end(), [](const Waiter& a, const Waiter& b) {
    return std::tie(a.at, a.due.webhook.received, a.due.webhook.id) <
           std::tie(b.at, b.due.webhook.received, b.due.webhook.id);
  });
  WebhookQueue::NextAnswer answer;
  size_t due = 0;
  while (due < std::min(limit, waiters.size()) && waiters[due].at <= now) ++due;
  if (due < waiters.size()) answer.next = waiters[due].at;
  waiters.resize(due);
  if (absl::Status s = Claim(**connection, waiters); !s.ok()) return s;
  answer.available = true;
  answer.waiting = queue.waiting;
  answer.oldest = queue.oldest;
  for (Waiter& waiter : waiters) answer.due.push_back(std::move(waiter.due));
  return answer;
}

absl::Status Webhooks::Count(Connection& connection, Queue& queue) {
  const absl::StatusOr<Rows> rows = connection.Query(kCount, {Changed()});
  if (!rows.ok()) return rows.status();
  queue.waiting = static_cast<size_t>(rows->Number(0, 0));
  if (!rows->IsNull(0, 1)) queue.oldest = rows->Time(0, 1);
  if (pending_.empty()) {
    counted_ = rows->Number(0, 0);
    counted_at_ = BootNow();
  }
  return absl::OkStatus();
}

absl::Status Webhooks::Find(Connection& connection, size_t limit, Queue& queue) const {
  static const std::string* const kSql = new std::string(DueSql());
  const absl::StatusOr<Rows> rows = connection.Query(*kSql, {lent_.epoch(), limit + 1, Changed()});
  if (!rows.ok()) return rows.status();
  std::set<std::string> stored;  // of those that the transaction changes
  for (int at = 0; at < rows->size(); ++at) {
    Waiter waiter;
    waiter.due.webhook = {rows->Text(at, 1), rows->Text(at, 2), rows->Text(at, 3), rows->OptionalId(at, 4),
                          rows->Time(at, 5)};
    waiter.due.tries = rows->Int(at, 6);
    waiter.at = rows->Time(at, 7);
    waiter.claimed = rows->Bool(at, 8);
    if (rows->Number(at, 0) == 0) {
      queue.waiters.push_back(std::move(waiter));
      continue;
    }
    stored.insert(waiter.due.webhook.id);
    if (AsItWillBe(pending_.at(waiter.due.webhook.id), waiter)) Take(std::move(waiter), queue);
  }
  for (const auto& [id, pending] : pending_) {
    if (!pending.added || stored.contains(id)) continue;
    Waiter waiter{{*pending.added, 0}, pending.added->received, true};
    if (AsItWillBe(pending, waiter)) Take(std::move(waiter), queue);
  }
  return absl::OkStatus();
}

// False: it waits no more.
bool Webhooks::AsItWillBe(const Pending& pending, Waiter& waiter) {
  if (!pending.ended) return true;
  if (!pending.again) return false;
  waiter.at = *pending.again;
  waiter.due.tries += pending.put_back;
  return true;
}

void Webhooks::Take(Waiter waiter, Queue& queue) {
  ++queue.waiting;
  queue.oldest = std::min(queue.oldest, waiter.due.webhook.received);
  queue.waiters.push_back(std::move(waiter));
}

// Leaves out what another replica took at this moment.
absl::Status Webhooks::Claim(Connection& connection, std::vector<Waiter>& waiters) const {
  std::vector<std::string> wanted;
  for (const Waiter& waiter : waiters) {
    if (!waiter.claimed) wanted.push_back(waiter.due.webhook.id);
  }
  if (wanted.empty()) return absl::OkStatus();
  static const std::string* const kSql = new std::string(ClaimSql());
  const absl::StatusOr<Rows> rows = connection.Query(*kSql, {lent_.epoch(), wanted});
  if (!rows.ok()) return rows.status();
  std::set<std::string> got;
  for (int at = 0; at < rows->size(); ++at) got.insert(rows->Text(at, 0));
  std::erase_if(waiters,
                [&got](const Waiter& waiter) { return !waiter.claimed && !got.contains(waiter.due.webhook.id); });
  return absl::OkStatus();
}

// ---- what is written

absl::Status Webhooks::Add(const ledger::Webhook& webhook) {
  pending_[webhook.id].added = webhook;
  return absl::OkStatus();
}

absl::Status Webhooks::End(const WebhookQueue::EndRequest& request) {
  Pending& pending = pending_[request.id];
  if (pending.IsDone()) return absl::OkStatus();
  pending.ended = true;
  pending.put_back += request.again ? 1 : 0;
  pending.result = request.result;
  pending.again = request.again;
  return absl::OkStatus();
}

absl::Status Webhooks::ReceiverAlive(absl::Time now) {
  alive_.push_back(now);
  return absl::OkStatus();
}

absl::StatusOr<size_t> Webhooks::ForgetWebhooks(absl::Time before, size_t limit) {
  const absl::StatusOr<Connection*> connection = Connected();
  if (!connection.ok()) return connection.status();
  const absl::StatusOr<Rows> rows = (*connection)->Query(kForget, {absl::ToUnixMicros(before), limit});
  if (!rows.ok()) return rows.status();
  return static_cast<size_t>(rows->touched());
}

std::vector<Statement> Webhooks::Writes() const {
  std::vector<std::string> added, types, resources, ended, results;
  std::vector<std::optional<Uuid>> attempts;
  std::vector<int64_t> received, put_back;
  std::vector<std::optional<int64_t>> again;
  for (const auto& [id, pending] : pending_) {
    if (pending.added) {
      added.push_back(id);
      types.push_back(pending.added->type);
      resources.push_back(pending.added->resource_id);
      attempts.push_back(pending.added->attempt_id);
      received.push_back(absl::ToUnixMicros(pending.added->received));
    }
    if (pending.ended) {
      ended.push_back(id);
      results.push_back(pending.result);
      put_back.push_back(pending.put_back);
      again.push_back(pending.again ? std::optional(absl::ToUnixMicros(*pending.again)) : std::nullopt);
    }
  }
  static const std::string* const kAdd = new std::string(AddSql());
  std::vector<Statement> writes;
  if (!added.empty()) writes.push_back({*kAdd, {lent_.epoch(), added, types, resources, attempts, received}});
  if (!ended.empty()) writes.push_back({kEnd, {ended, results, put_back, again}});
  for (const absl::Time now : alive_)
    writes.push_back({kAlive, {absl::ToUnixMicros(now), absl::ToInt64Microseconds(ledger::kReceiverGap)}});
  return writes;
}

void Webhooks::Committed() {
  counted_ += Growth();
  pending_.clear();
  alive_.clear();
}

void Webhooks::Rollback() {
  counted_at_.reset();
  pending_.clear();
  alive_.clear();
}

}  // namespace userintent::postgres
