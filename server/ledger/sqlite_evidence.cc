// What SqliteWebhooks tells operators about one request.
#include <algorithm>

#include "server/ledger/sqlite_store.h"
#include "server/ledger/sqlite_webhooks.h"

namespace userintent::ledger {
namespace {

constexpr int kFirstVersion = 7;  // of the schema, that knows webhooks

}  // namespace

absl::StatusOr<WebhookEvidence> SqliteStore::EvidenceOf(const Record& record, absl::Time now) {
  if (version_ < kFirstVersion) return WebhookEvidence();
  return webhooks_.EvidenceOf(record.attempt_id, record.created, now);
}

absl::StatusOr<WebhookEvidence> SqliteWebhooks::EvidenceOf(const Uuid& attempt_id, absl::Time since, absl::Time now) {
  WebhookEvidence evidence;
  evidence.forgotten_before = now - kWebhooksKept;
  absl::Status s = AddNaming(attempt_id, since, evidence);
  if (s.ok()) s = AddOthers(since, evidence);
  if (s.ok()) s = AddPeriod(now, evidence);
  if (!s.ok()) return s;
  return evidence;
}

// Takes those that name it from `others`, which AddOthers then adds to.
absl::Status SqliteWebhooks::AddNaming(const Uuid& attempt_id, absl::Time since, WebhookEvidence& evidence) {
  {
    SqliteUse count(
        connection_,
        "SELECT count(*), count(CASE WHEN received_at >= ?2 THEN 1 END) FROM webhook WHERE attempt_id = ?1");
    const absl::StatusOr<bool> counted = count.Bind(1, attempt_id).Bind(2, Micros(since)).Step();
    if (!counted.ok()) return counted.status();
    evidence.naming_all = count.Number(0);
    evidence.others = -count.Number(1);
  }
  SqliteUse use(connection_,
                "SELECT webhook_id, type, resource_id, received_at, result, due_at IS NOT NULL FROM webhook "
                "WHERE attempt_id = ?1 ORDER BY id DESC LIMIT ?2");
  use.Bind(1, attempt_id).Bind(2, kNamingShown);
  for (;;) {
    const absl::StatusOr<bool> more = use.Step();
    if (!more.ok() || !*more) return more.status();
    WebhookEvidence::Naming& one = evidence.naming.emplace_back();
    one.webhook = {use.Text(0), use.Text(1), use.Text(2), attempt_id, use.Time(3)};
    one.result = use.Text(4);
    one.waits = use.Number(5) != 0;
  }
}

// Counts by the numbers of the rows, which grow by one with each that arrives: there may be millions.
absl::Status SqliteWebhooks::AddOthers(absl::Time since, WebhookEvidence& evidence) {
  const absl::StatusOr<int64_t> first = connection_.Number(
      "SELECT id FROM webhook WHERE received_at >= ?1 ORDER BY received_at, id LIMIT 1", Micros(since));
  if (!first.ok()) return first.status();
  const absl::StatusOr<int64_t> last = connection_.Number("SELECT max(id) FROM webhook WHERE true");
  if (!last.ok()) return last.status();
  evidence.others = *first == 0 ? 0 : std::max<int64_t>(0, evidence.others + *last - *first + 1);
  SqliteUse use(connection_,
                "SELECT count(*) FROM (SELECT 1 FROM webhook WHERE attempt_id IS NULL AND received_at >= ?1 LIMIT ?2)");
  const absl::StatusOr<bool> counted = use.Bind(1, Micros(since)).Bind(2, kNamelessCounted).Step();
  if (!counted.ok()) return counted.status();
  evidence.nameless = use.Number(0);
  return absl::OkStatus();
}

absl::Status SqliteWebhooks::AddPeriod(absl::Time now, WebhookEvidence& evidence) {
  SqliteUse use(connection_, "SELECT began, until FROM receiver_period ORDER BY id DESC LIMIT 1");
  const absl::StatusOr<bool> found = use.Step();
  if (!found.ok() || !*found) return found.status();
  evidence.receiver_began = use.Time(0);
  evidence.receiver_until = use.Time(1);
  evidence.receiver_up = now - evidence.receiver_until <= kReceiverGap;
  return absl::OkStatus();
}

}  // namespace userintent::ledger
