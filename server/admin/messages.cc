#include "server/admin/messages.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <utility>

#include "server/base/time.h"
#include "server/base/uuid.h"
#include "server/usecase/attempt_id.h"
#include "server/usecase/error_table.h"

namespace userintent::admin {
namespace {

v1::RequestState StateOf(ledger::State state) {
  switch (state) {
    case ledger::State::kSending:
      return v1::REQUEST_STATE_SENDING;
    case ledger::State::kSucceeded:
      return v1::REQUEST_STATE_SUCCEEDED;
    case ledger::State::kFailed:
      return v1::REQUEST_STATE_FAILED;
    case ledger::State::kUnknown:
      return v1::REQUEST_STATE_UNKNOWN;
    case ledger::State::kReleased:
      return v1::REQUEST_STATE_RELEASED;
  }
  return v1::REQUEST_STATE_UNSPECIFIED;
}

template <typename Message>
void SetIfAny(absl::Time time, Message* out, google::protobuf::Timestamp* (Message::*field)()) {
  if (time != absl::InfinitePast()) SetTimestamp(time, (out->*field)());
}

}  // namespace

absl::Duration WholeMillis(absl::Duration duration) {
  return std::max(absl::ZeroDuration(), absl::Trunc(duration, absl::Milliseconds(1)));
}

void Fill(const ledger::Record& record, absl::Time now, bool server_runs, v1::Request* out) {
  const ledger::Answer& answer = record.answer;
  out->set_caller(record.key.caller);
  out->set_request_id(UuidText(record.key.request_id));
  out->set_state(StateOf(record.state));
  out->set_owner_gone(record.state == ledger::State::kSending && !server_runs);
  out->set_sent(std::string(usecase::SentWord(record.sent)));
  if (record.reason != 0) out->set_reason(std::string(usecase::ReasonName(record.reason)));
  out->set_http_status(answer.http_status);
  out->set_confirmed(answer.confirmed);
  out->set_user_intent_id(answer.user_intent_id);
  const bool succeeded = record.state == ledger::State::kSucceeded;
  out->set_astra_status(succeeded ? record.latest.astra_status : answer.astra_status);
  out->set_user_id(record.latest.user_id);
  SetIfAny(record.latest.status_since, out, &v1::Request::mutable_status_time);
  SetIfAny(record.latest.read_at, out, &v1::Request::mutable_read_time);
  out->set_astra_request_id(answer.astra_request_id);
  if (usecase::AstraWasTold(record.attempt_id)) out->set_gateway_attempt_id(UuidText(record.attempt_id));
  out->set_posts(record.posts);
  if (record.supersedes) out->set_supersedes_request_id(UuidText(*record.supersedes));
  if (record.superseded_by) out->set_superseded_by_request_id(UuidText(*record.superseded_by));
  SetTimestamp(record.created, out->mutable_create_time());
  SetTimestamp(record.updated, out->mutable_update_time());
  SetIfAny(answer.at, out, &v1::Request::mutable_answer_time);
  SetDuration(WholeMillis(now - record.created), out->mutable_age());
}

void Fill(const ledger::Budget& budget, v1::Request* out) {
  out->set_attempts_used_min(budget.used_min);
  out->set_attempts_used_max(budget.used_max);
}

void Fill(const ledger::WebhookEvidence& evidence, absl::Time created, v1::WebhookEvidence* out) {
  for (const ledger::WebhookEvidence::Naming& one : evidence.naming) {
    v1::Webhook* webhook = out->add_naming();
    webhook->set_webhook_id(one.webhook.id);
    webhook->set_webhook_type(one.webhook.type);
    webhook->set_user_intent_id(one.webhook.resource_id);
    SetTimestamp(one.webhook.received, webhook->mutable_receive_time());
    webhook->set_result(one.result);
    webhook->set_waits(one.waits);
  }
  out->set_naming_count(evidence.naming_all);
  out->set_other_count(evidence.others);
  out->set_nameless_count(evidence.nameless);
  SetIfAny(evidence.receiver_began, out, &v1::WebhookEvidence::mutable_receiver_since);
  if (!evidence.receiver_up) {
    SetIfAny(evidence.receiver_until, out, &v1::WebhookEvidence::mutable_receiver_until);
  }
  out->set_receiver_covers(evidence.receiver_up && evidence.receiver_began <= created);
  SetIfAny(evidence.forgotten_before, out, &v1::WebhookEvidence::mutable_forgotten_before);
}

void Fill(const ledger::AuditEntry& entry, v1::AuditEntry* out) {
  out->set_seq(entry.seq);
  SetTimestamp(entry.at, out->mutable_time());
  out->set_actor(entry.actor);
  out->set_action(entry.action);
  out->set_caller(entry.key.caller);
  out->set_request_id(UuidText(entry.key.request_id));
  out->set_from_state(StateOf(entry.from));
  out->set_to_state(StateOf(entry.to));
  out->set_evidence(entry.evidence);
}

void Fill(const ledger::Conflict& conflict, v1::Conflict* out) {
  out->set_seq(conflict.seq);
  SetTimestamp(conflict.at, out->mutable_time());
  out->set_caller(conflict.key.caller);
  out->set_request_id(UuidText(conflict.key.request_id));
  if (usecase::AstraWasTold(conflict.attempt_id)) out->set_gateway_attempt_id(UuidText(conflict.attempt_id));
  out->set_recorded_state(StateOf(conflict.recorded));
  out->set_recorded_user_intent_id(conflict.recorded_intent);
  out->set_claimed_state(StateOf(conflict.claimed));
  out->set_claimed_user_intent_id(conflict.claimed_intent);
  out->set_action(conflict.action);
  out->set_evidence(conflict.evidence);
}

void Fill(const std::vector<ledger::LedgerKey>& keys, std::map<uint64_t, int64_t> requests,
          v1::GetStatisticsResponse* out) {
  for (const ledger::LedgerKey& key : keys) {
    v1::KeyUse* use = out->add_keys();
    use->set_key(ledger::KeyName(key.id));
    use->set_role(key.until ? "previous" : "current");
    use->set_requests(std::exchange(requests[key.id], 0));
    SetTimestamp(key.since, use->mutable_since());
    if (key.until) SetTimestamp(*key.until, use->mutable_until());
  }
  for (const auto& [id, count] : requests) {
    if (count == 0) continue;
    v1::KeyUse* use = out->add_keys();
    use->set_key(ledger::KeyName(id));
    use->set_role("unknown");
    use->set_requests(count);
  }
}

void Fill(const ledger::CopyReport& report, v1::Copy* out) {
  const std::array<int64_t, 6>& requests = report.totals.requests;
  out->set_bytes(report.bytes);
  out->set_schema_version(report.schema_version);
  out->set_requests(std::accumulate(requests.begin(), requests.end(), int64_t{0}));
  out->set_sending(requests.at(static_cast<size_t>(ledger::State::kSending)));
  out->set_email_addresses(report.totals.addresses);
  out->set_audit_entries(report.audit_entries);
  out->set_key(ledger::KeyName(report.key_id));
  SetIfAny(report.last_change, out, &v1::Copy::mutable_last_change_time);
}

}  // namespace userintent::admin
