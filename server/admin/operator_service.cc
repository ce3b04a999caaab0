#include "server/admin/operator_service.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <numeric>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/base/time.h"
#include "server/base/uuid.h"
#include "server/ledger/execute.h"
#include "server/usecase/error_table.h"
#include "userintent/v1/errors.pb.h"

// In this file: conversions to the messages of the API; then one method after the other, in the order of the proto.

namespace userintent::admin {
namespace {

using ledger::Inspector;
using ledger::Store;

constexpr size_t kDefaultLimit = 100;
constexpr size_t kMaxLimit = 1000;
// About 5 ms of the writer's time, in which no call is answered.
constexpr int64_t kSlice = 10'000;
// Astra's limit for an e-mail address.
constexpr int kAttempts = 3;

// How long something has lasted; nothing when the clock was set back meanwhile.
absl::Duration WholeMillis(absl::Duration duration) {
  return std::max(absl::ZeroDuration(), absl::Trunc(duration, absl::Milliseconds(1)));
}

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

void Set(const ledger::Budget& budget, v1::Request* out) {
  out->set_attempts_used_min(budget.used_min);
  out->set_attempts_used_max(budget.used_max);
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

absl::StatusOr<Uuid> IdOf(const std::string& text) {
  const std::optional<Uuid> id = ParseUuid(text);
  if (!id) return absl::InvalidArgumentError("the request id must be a UUID, 8-4-4-4-12 hexadecimal digits");
  return *id;
}

absl::StatusOr<size_t> LimitOf(int32_t limit) {
  if (limit == 0) return kDefaultLimit;
  if (limit < 0 || static_cast<size_t>(limit) > kMaxLimit) {
    return absl::InvalidArgumentError("the limit must be from 1 to 1000");
  }
  return static_cast<size_t>(limit);
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

int64_t SizeOf(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(size);
}

}  // namespace

void OperatorService::Fill(const ledger::Record& record, v1::Request* out) const {
  const ledger::Answer& answer = record.answer;
  out->set_caller(record.key.caller);
  out->set_request_id(UuidText(record.key.request_id));
  out->set_state(StateOf(record.state));
  out->set_owner_gone(record.state == ledger::State::kSending && !options_.server_runs);
  out->set_sent(std::string(usecase::SentWord(record.sent)));
  if (record.reason != 0) out->set_reason(std::string(usecase::ReasonName(record.reason)));
  out->set_http_status(answer.http_status);
  out->set_confirmed(answer.confirmed);
  out->set_user_intent_id(answer.user_intent_id);
  out->set_astra_status(answer.astra_status);
  out->set_astra_request_id(answer.astra_request_id);
  out->set_gateway_attempt_id(UuidText(record.attempt_id));
  out->set_posts(record.posts);
  if (record.supersedes) out->set_supersedes_request_id(UuidText(*record.supersedes));
  if (record.superseded_by) out->set_superseded_by_request_id(UuidText(*record.superseded_by));
  SetTimestamp(record.created, out->mutable_create_time());
  SetTimestamp(record.updated, out->mutable_update_time());
  if (answer.at != absl::InfinitePast()) SetTimestamp(answer.at, out->mutable_answer_time());
  SetDuration(WholeMillis(options_.now() - record.created), out->mutable_age());
}

absl::Status OperatorService::ShowRequest(const v1::ShowRequestRequest& request, v1::ShowRequestResponse* response) {
  const absl::StatusOr<Uuid> id = IdOf(request.request_id());
  if (!id.ok()) return id.status();
  return options_.ledger->Transact([&](Store&, Inspector& inspector) -> absl::Status {
    const absl::StatusOr<std::vector<ledger::Row>> rows = inspector.WithId(*id);
    if (!rows.ok()) return rows.status();
    for (const ledger::Row& row : *rows) {
      if (!request.caller().empty() && row.record.key.caller != request.caller()) continue;
      const absl::StatusOr<ledger::Counters> count = inspector.Count({row.email});
      if (!count.ok()) return count.status();
      v1::Request* out = response->add_requests();
      Fill(row.record, out);
      Set(ledger::BudgetOf(*count), out);
    }
    if (response->requests().empty()) {
      return absl::NotFoundError(request.caller().empty() ? "no caller has such a request"
                                                          : "this caller has no such request");
    }
    const absl::StatusOr<std::vector<ledger::AuditEntry>> audit = inspector.Audit(*id, kDefaultLimit);
    if (!audit.ok()) return audit.status();
    for (const ledger::AuditEntry& entry : *audit) {
      if (request.caller().empty() || entry.key.caller == request.caller()) admin::Fill(entry, response->add_audit());
    }
    return absl::OkStatus();
  });
}

absl::Status OperatorService::ListUnresolved(const v1::ListUnresolvedRequest& request,
                                             v1::ListUnresolvedResponse* response) {
  const absl::StatusOr<size_t> limit = LimitOf(request.limit());
  if (!limit.ok()) return limit.status();
  const absl::Duration older_than =
      absl::Seconds(request.older_than().seconds()) + absl::Nanoseconds(request.older_than().nanos());
  if (older_than < absl::ZeroDuration()) return absl::InvalidArgumentError("the age must not be negative");
  return options_.ledger->Transact([&](Store&, Inspector& inspector) -> absl::Status {
    const absl::StatusOr<std::vector<ledger::Row>> rows =
        inspector.Oldest(request.sending() ? ledger::State::kSending : ledger::State::kUnknown,
                         options_.now() - older_than, request.not_superseded(), *limit + 1);
    if (!rows.ok()) return rows.status();
    response->set_more(rows->size() > *limit);
    for (size_t i = 0; i < std::min(rows->size(), *limit); ++i) Fill((*rows)[i].record, response->add_requests());
    return absl::OkStatus();
  });
}

absl::Status OperatorService::GetStatistics(const v1::GetStatisticsRequest&, v1::GetStatisticsResponse* response) {
  ledger::Totals totals;
  while (!totals.done) {
    absl::Status s = options_.ledger->Transact(
        [&](Store&, Inspector& inspector) { return inspector.Add(kAttempts, kSlice, totals); });
    if (!s.ok()) return s;
  }
  const auto of = [&](ledger::State state) { return totals.requests.at(static_cast<size_t>(state)); };
  response->set_sending(of(ledger::State::kSending));
  response->set_succeeded(of(ledger::State::kSucceeded));
  response->set_failed(of(ledger::State::kFailed));
  response->set_unknown(of(ledger::State::kUnknown));
  response->set_released(of(ledger::State::kReleased));
  response->set_email_addresses(totals.addresses);
  response->set_email_addresses_at_limit(totals.addresses_at_limit);
  response->set_database_bytes(SizeOf(options_.path));
  response->set_log_bytes(SizeOf(options_.path + "-wal"));
  response->set_server_runs(options_.server_runs);
  return options_.ledger->Transact([&](Store&, Inspector& inspector) -> absl::Status {
    const absl::StatusOr<std::vector<ledger::LedgerKey>> keys = inspector.Keys();
    if (!keys.ok()) return keys.status();
    admin::Fill(*keys, std::move(totals.requests_by_key), response);
    const absl::Time now = options_.now();
    const auto oldest = [&](ledger::State state) { return inspector.Oldest(state, absl::InfiniteFuture(), false, 1); };
    const auto sending = oldest(ledger::State::kSending);
    if (!sending.ok()) return sending.status();
    const auto unknown = oldest(ledger::State::kUnknown);
    if (!unknown.ok()) return unknown.status();
    if (!sending->empty())
      SetDuration(WholeMillis(now - sending->front().record.created), response->mutable_oldest_sending_age());
    if (!unknown->empty())
      SetDuration(WholeMillis(now - unknown->front().record.created), response->mutable_oldest_unknown_age());
    const absl::StatusOr<int64_t> entries = inspector.AuditEntries();
    if (!entries.ok()) return entries.status();
    response->set_audit_entries(*entries);
    response->set_callers(inspector.callers());
    response->set_schema_version(inspector.schema_version());
    return absl::OkStatus();
  });
}

absl::Status OperatorService::ResolveRequest(const v1::ResolveRequestRequest& request,
                                             v1::ResolveRequestResponse* response) {
  const absl::StatusOr<Uuid> id = IdOf(request.request_id());
  if (!id.ok()) return id.status();
  if (request.caller().empty()) return absl::InvalidArgumentError("the caller is missing");
  ledger::ResolveRequest resolve;
  if (request.outcome_case() == v1::ResolveRequestRequest::kUserIntentId) {
    resolve.created = request.user_intent_id();
  } else if (!request.not_created()) {
    return absl::InvalidArgumentError("the outcome is missing: created, with the intent id, or not created");
  }
  resolve.key = {request.caller(), *id};
  resolve.not_created_reason = userintent::v1::ERROR_REASON_UPSTREAM_REJECTED;
  resolve.actor = request.actor();
  resolve.evidence = request.evidence();
  resolve.now = ToMicros(options_.now());
  return options_.ledger->Transact([&](Store& store, Inspector&) -> absl::Status {
    const absl::StatusOr<ledger::ResolveAnswer> answer = ledger::Execute(store, resolve);
    if (!answer.ok()) return answer.status();
    v1::Request* out = response->mutable_request();
    Fill(answer->record, out);
    Set(answer->budget, out);
    response->set_changed(answer->changed);
    return absl::OkStatus();
  });
}

absl::Status OperatorService::ListAudit(const v1::ListAuditRequest& request, v1::ListAuditResponse* response) {
  std::optional<Uuid> id;
  if (!request.request_id().empty()) {
    const absl::StatusOr<Uuid> given = IdOf(request.request_id());
    if (!given.ok()) return given.status();
    id = *given;
  }
  const absl::StatusOr<size_t> limit = LimitOf(request.limit());
  if (!limit.ok()) return limit.status();
  return options_.ledger->Transact([&](Store&, Inspector& inspector) -> absl::Status {
    const absl::StatusOr<std::vector<ledger::AuditEntry>> entries = inspector.Audit(id, *limit + 1);
    if (!entries.ok()) return entries.status();
    response->set_more(entries->size() > *limit);
    for (size_t i = 0; i < std::min(entries->size(), *limit); ++i) {
      admin::Fill((*entries)[i], response->add_entries());
    }
    return absl::OkStatus();
  });
}

// What is not found must not be there: so every key with rows is needed. A server's start has seen to that.
absl::Status OperatorService::CheckKeys(Inspector& inspector) const {
  if (options_.server_runs) return absl::OkStatus();
  const absl::StatusOr<std::vector<ledger::LedgerKey>> keys = inspector.Keys();
  if (!keys.ok()) return keys.status();
  const std::vector<uint64_t> previous = options_.fingerprinter->previous_key_ids();
  for (const ledger::LedgerKey& key : *keys) {
    if (key.id == options_.fingerprinter->key_id() ||
        std::find(previous.begin(), previous.end(), key.id) != previous.end()) {
      continue;
    }
    const absl::StatusOr<bool> any = inspector.HasRowsUnder(key.id);
    if (!any.ok()) return any.status();
    if (*any) {
      return absl::FailedPreconditionError(
          absl::StrCat("the ledger holds requests under the key ", ledger::KeyName(key.id), ", which was not given"));
    }
  }
  return absl::OkStatus();
}

absl::Status OperatorService::FindRequests(const v1::FindRequestsRequest& request, v1::FindRequestsResponse* response) {
  const absl::StatusOr<size_t> limit = LimitOf(request.limit());
  if (!limit.ok()) return limit.status();
  if (options_.fingerprinter == nullptr) return absl::FailedPreconditionError("the ledger's key is not known here");
  userintent::v1::CreateUserIntentRequest only_email;
  only_email.set_email(request.email());
  std::vector<ledger::Digest> emails = {options_.fingerprinter->Current(only_email).email};
  for (const ledger::Fingerprints& older : options_.fingerprinter->Older(only_email)) {
    if (std::find(emails.begin(), emails.end(), older.email) == emails.end()) emails.push_back(older.email);
  }
  ledger::Counters count;
  absl::Status status = options_.ledger->Transact([&](Store&, Inspector& inspector) -> absl::Status {
    if (absl::Status s = CheckKeys(inspector); !s.ok()) return s;
    const absl::StatusOr<ledger::Counters> found = inspector.Count(emails);
    if (found.ok()) count = *found;
    return found.status();
  });
  std::vector<ledger::Row> rows;
  int64_t last = 0;
  for (bool more = true; status.ok() && more && rows.size() <= *limit;) {
    status = options_.ledger->Transact([&](Store&, Inspector& inspector) -> absl::Status {
      const absl::StatusOr<bool> any = inspector.AddOfAddresses(emails, kSlice, last, rows);
      more = any.ok() && *any;
      return any.status();
    });
  }
  if (!status.ok()) return status;
  response->set_more(rows.size() > *limit);
  for (size_t i = 0; i < std::min(rows.size(), *limit); ++i) Fill(rows[i].record, response->add_requests());
  response->set_attempts_used_min(ledger::BudgetOf(count).used_min);
  response->set_attempts_used_max(ledger::BudgetOf(count).used_max);
  return absl::OkStatus();
}

void OperatorService::Fill(const ledger::CopyReport& report, v1::Copy* out) {
  const std::array<int64_t, 6>& requests = report.totals.requests;
  out->set_bytes(report.bytes);
  out->set_schema_version(report.schema_version);
  out->set_requests(std::accumulate(requests.begin(), requests.end(), int64_t{0}));
  out->set_sending(requests.at(static_cast<size_t>(ledger::State::kSending)));
  out->set_email_addresses(report.totals.addresses);
  out->set_audit_entries(report.audit_entries);
  out->set_key(ledger::KeyName(report.key_id));
  if (report.last_change != absl::InfinitePast()) SetTimestamp(report.last_change, out->mutable_last_change_time());
}

absl::Status OperatorService::BackUp(const v1::BackUpRequest& request, v1::BackUpResponse* response,
                                     std::function<bool()> cancelled) {
  if (backing_up_.test_and_set()) {
    return absl::FailedPreconditionError("another backup is being made; wait for its end");
  }
  const absl::Cleanup done = [this] { backing_up_.clear(); };
  ledger::BackupOptions options;
  options.path = request.path();
  options.cancelled = std::move(cancelled);
  const absl::StatusOr<ledger::BackupReport> report = options_.ledger->BackUp(options);
  if (!report.ok()) return report.status();
  response->set_path(request.path());
  Fill(report->copy, response->mutable_copy());
  SetDuration(WholeMillis(report->took), response->mutable_took());
  SetDuration(WholeMillis(report->longest_slice), response->mutable_longest_wait());
  return absl::OkStatus();
}

}  // namespace userintent::admin
