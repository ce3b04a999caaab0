#include "server/ledger/sqlite_webhooks.h"

#include "absl/strings/str_cat.h"

namespace userintent::ledger {
namespace {

// In the order of ReadWebhook.
constexpr char kWebhookColumns[] = "webhook_id, type, resource_id, attempt_id, received_at, tries, result, due_at";

bool ReadWebhook(const SqliteUse& use, Webhook& webhook) {
  webhook.id = use.Text(0);
  webhook.type = use.Text(1);
  webhook.resource_id = use.Text(2);
  webhook.received = use.Time(4);
  return use.OptionalId(3, webhook.attempt_id);
}

}  // namespace

absl::StatusOr<WebhookStore::Standing> SqliteWebhooks::StandingOf(const std::string& id) {
  SqliteUse use(connection_, "SELECT due_at FROM webhook WHERE webhook_id = ?1");
  const absl::StatusOr<bool> found = use.Bind(1, id).Step();
  if (!found.ok()) return found.status();
  if (!*found) return Standing::kNew;
  return use.IsNull(0) ? Standing::kDone : Standing::kWaits;
}

absl::StatusOr<size_t> SqliteWebhooks::Waiting() {
  if (waiting_) return *waiting_;
  const absl::StatusOr<int64_t> count = connection_.Number("SELECT count(*) FROM webhook WHERE due_at IS NOT NULL");
  if (!count.ok()) return count.status();
  waiting_ = static_cast<size_t>(*count);
  return *waiting_;
}

absl::Status SqliteWebhooks::Add(const Webhook& webhook) {
  SqliteUse use(connection_,
                "INSERT INTO webhook (webhook_id, type, resource_id, attempt_id, received_at, due_at, tries, result) "
                "VALUES (?1, ?2, ?3, ?4, ?5, ?5, 0, '')");
  use.Bind(1, webhook.id).Bind(2, webhook.type).Bind(3, webhook.resource_id).Bind(4, webhook.attempt_id);
  absl::Status s = use.Bind(5, Micros(webhook.received)).Run();
  if (s.ok() && waiting_) ++*waiting_;
  return s;
}

absl::StatusOr<WebhookQueue::NextAnswer> SqliteWebhooks::Next(absl::Time now, size_t limit) {
  WebhookQueue::NextAnswer answer;
  const absl::StatusOr<size_t> waiting = Waiting();
  if (!waiting.ok()) return waiting.status();
  answer.waiting = *waiting;
  answer.available = true;
  if (*waiting == 0) return answer;
  const absl::StatusOr<int64_t> oldest =
      connection_.Number("SELECT min(received_at) FROM webhook WHERE due_at IS NOT NULL");
  if (!oldest.ok()) return oldest.status();
  answer.oldest = absl::FromUnixMicros(*oldest);
  SqliteUse use(connection_, absl::StrCat("SELECT ", kWebhookColumns,
                                          " FROM webhook WHERE due_at IS NOT NULL "
                                          "ORDER BY due_at, received_at, webhook_id LIMIT ?1"));
  use.Bind(1, static_cast<int64_t>(limit) + 1);
  for (;;) {
    const absl::StatusOr<bool> more = use.Step();
    if (!more.ok()) return more.status();
    if (!*more) return answer;
    if (use.Time(7) > now || answer.due.size() == limit) {
      answer.next = use.Time(7);
      return answer;
    }
    WebhookQueue::Due& due = answer.due.emplace_back();
    due.tries = use.Int(5);
    if (!ReadWebhook(use, due.webhook)) return connection_.Damaged("a webhook does not make sense");
  }
}

absl::Status SqliteWebhooks::End(const WebhookQueue::EndRequest& request) {
  SqliteUse use(connection_,
                "UPDATE webhook SET due_at = ?2, tries = tries + (?2 IS NOT NULL), result = ?3 "
                "WHERE webhook_id = ?1 AND due_at IS NOT NULL");
  use.Bind(1, request.id).Bind(3, request.result);
  if (request.again) use.Bind(2, Micros(*request.again));
  if (absl::Status s = use.Run(); !s.ok()) return s;
  if (waiting_ && !request.again) *waiting_ -= static_cast<size_t>(sqlite3_changes(connection_.db()));
  return absl::OkStatus();
}

absl::Status SqliteWebhooks::ReceiverAlive(absl::Time now) {
  SqliteUse last(connection_, "SELECT id, until FROM receiver_period ORDER BY id DESC LIMIT 1");
  const absl::StatusOr<bool> found = last.Step();
  if (!found.ok()) return found.status();
  if (*found && absl::AbsDuration(now - last.Time(1)) <= kReceiverGap) {
    SqliteUse use(connection_, "UPDATE receiver_period SET until = max(until, ?2) WHERE id = ?1");
    return use.Bind(1, last.Number(0)).Bind(2, Micros(now)).Run();
  }
  SqliteUse use(connection_, "INSERT INTO receiver_period (began, until) VALUES (?1, ?1)");
  return use.Bind(1, Micros(now)).Run();
}

absl::StatusOr<size_t> SqliteWebhooks::ForgetWebhooks(absl::Time before, size_t limit) {
  SqliteUse use(connection_,
                "DELETE FROM webhook WHERE id IN (SELECT id FROM webhook WHERE received_at < ?1 AND due_at IS NULL "
                "ORDER BY received_at LIMIT ?2)");
  use.Bind(1, Micros(before)).Bind(2, static_cast<int64_t>(limit));
  if (absl::Status s = use.Run(); !s.ok()) return s;
  const int forgotten = sqlite3_changes(connection_.db());
  SqliteUse periods(connection_, "DELETE FROM receiver_period WHERE until < ?1");
  if (absl::Status s = periods.Bind(1, Micros(before)).Run(); !s.ok()) return s;
  return static_cast<size_t>(forgotten);
}

}  // namespace userintent::ledger
