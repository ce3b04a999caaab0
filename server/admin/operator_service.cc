#include "server/admin/operator_service.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/admin/messages.h"
#include "server/base/time.h"
#include "server/base/uuid.h"
#include "server/ledger/execute.h"
#include "userintent/v1/errors.pb.h"

// In this file: one method after the other, in the order of the proto.

namespace userintent::admin {
namespace {

using ledger::Inspector;
using ledger::Store;

constexpr size_t kDefaultLimit = 100;
constexpr size_t kMaxLimit = 1000;
// About 5 ms of the writer's time, in which no call is answered.
constexpr int64_t kSlice = 10'000;
constexpr size_t kEvidenceSlice = 50;
// Astra's limit for an e-mail address.
constexpr int kAttempts = 3;

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

int64_t SizeOf(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(size);
}

}  // namespace

absl::Status OperatorService::AddEvidence(Inspector& inspector, const ledger::Record& record, v1::Request* out) const {
  if (record.state != ledger::State::kUnknown) return absl::OkStatus();
  const absl::StatusOr<ledger::WebhookEvidence> evidence = inspector.EvidenceOf(record, options_.now());
  if (!evidence.ok()) return evidence.status();
  Fill(*evidence, record.created, out->mutable_webhooks());
  return absl::OkStatus();
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
      Fill(row.record, options_.now(), options_.server_runs, out);
      Fill(ledger::BudgetOf(*count), out);
      if (absl::Status s = AddEvidence(inspector, row.record, out); !s.ok()) return s;
    }
    if (response->requests().empty()) {
      return absl::NotFoundError(request.caller().empty() ? "no caller has such a request"
                                                          : "this caller has no such request");
    }
    const absl::StatusOr<std::vector<ledger::AuditEntry>> audit = inspector.Audit(*id, kDefaultLimit);
    if (!audit.ok()) return audit.status();
    for (const ledger::AuditEntry& entry : *audit) {
      if (request.caller().empty() || entry.key.caller == request.caller()) Fill(entry, response->add_audit());
    }
    const absl::StatusOr<std::vector<ledger::Conflict>> conflicts = inspector.Conflicts(*id, kDefaultLimit);
    if (!conflicts.ok()) return conflicts.status();
    for (const ledger::Conflict& one : *conflicts) {
      if (request.caller().empty() || one.key.caller == request.caller()) Fill(one, response->add_conflicts());
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
  std::vector<ledger::Row> rows;
  absl::Status status = options_.ledger->Transact([&](Store&, Inspector& inspector) -> absl::Status {
    absl::StatusOr<std::vector<ledger::Row>> found =
        inspector.Oldest(request.sending() ? ledger::State::kSending : ledger::State::kUnknown,
                         options_.now() - older_than, request.not_superseded(), *limit + 1);
    if (!found.ok()) return found.status();
    rows = *std::move(found);
    return absl::OkStatus();
  });
  response->set_more(rows.size() > *limit);
  const size_t count = std::min(rows.size(), *limit);
  for (size_t first = 0; status.ok() && first < count; first += kEvidenceSlice) {
    status = options_.ledger->Transact([&](Store&, Inspector& inspector) -> absl::Status {
      for (size_t i = first; i < std::min(count, first + kEvidenceSlice); ++i) {
        v1::Request* out = response->add_requests();
        Fill(rows[i].record, options_.now(), options_.server_runs, out);
        if (absl::Status s = AddEvidence(inspector, rows[i].record, out); !s.ok()) return s;
      }
      return absl::OkStatus();
    });
  }
  return status;
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
    Fill(*keys, std::move(totals.requests_by_key), response);
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

absl::Status OperatorService::TellAcceptedOutcomes(const ledger::Key& key) const {
  return options_.ledger->Transact([&](Store& store, Inspector&) -> absl::Status {
    const absl::StatusOr<ledger::GetAnswer> found = ledger::Execute(store, ledger::GetRequest{key, {}});
    if (!found.ok()) return found.status();
    if (!found->record) return absl::NotFoundError("this caller has no such request");
    const ledger::Outcomes outcomes = ledger::AcceptedOutcomes(*found->record);
    if (outcomes.accepted.empty()) return absl::FailedPreconditionError(outcomes.why_not);
    return absl::InvalidArgumentError(absl::StrCat("the outcome is missing; accepted: ", outcomes.accepted,
                                                   outcomes.why_not.empty() ? "" : "; ", outcomes.why_not));
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
    return TellAcceptedOutcomes({request.caller(), *id});
  }
  resolve.key = {request.caller(), *id};
  resolve.not_created_reason = userintent::v1::ERROR_REASON_UPSTREAM_REJECTED;
  resolve.actor = request.actor();
  resolve.evidence = request.evidence();
  resolve.now = ToMicros(options_.now());
  ledger::SettleAnswer settled{ledger::SettleVerdict::kSettled, {}};
  const absl::Status done = options_.ledger->Transact([&](Store& store, Inspector&) -> absl::Status {
    const absl::StatusOr<ledger::ResolveAnswer> answer = ledger::Execute(store, resolve);
    if (!answer.ok()) return answer.status();
    v1::Request* out = response->mutable_request();
    Fill(answer->record, options_.now(), options_.server_runs, out);
    Fill(answer->budget, out);
    response->set_changed(answer->changed);
    settled.record = answer->record;
    return absl::OkStatus();
  });
  if (done.ok() && response->changed() && options_.settle_observer != nullptr) {
    options_.settle_observer->OnSettled(usecase::SettleWay::kOperator, resolve.key, settled);
  }
  return done;
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
      Fill((*entries)[i], response->add_entries());
    }
    return absl::OkStatus();
  });
}

absl::Status OperatorService::ListConflicts(const v1::ListConflictsRequest& request,
                                            v1::ListConflictsResponse* response) {
  const absl::StatusOr<size_t> limit = LimitOf(request.limit());
  if (!limit.ok()) return limit.status();
  return options_.ledger->Transact([&](Store&, Inspector& inspector) -> absl::Status {
    const absl::StatusOr<std::vector<ledger::Conflict>> conflicts = inspector.Conflicts(std::nullopt, *limit + 1);
    if (!conflicts.ok()) return conflicts.status();
    response->set_more(conflicts->size() > *limit);
    for (size_t i = 0; i < std::min(conflicts->size(), *limit); ++i) Fill((*conflicts)[i], response->add_conflicts());
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
  for (size_t i = 0; i < std::min(rows.size(), *limit); ++i) {
    Fill(rows[i].record, options_.now(), options_.server_runs, response->add_requests());
  }
  response->set_attempts_used_min(ledger::BudgetOf(count).used_min);
  response->set_attempts_used_max(ledger::BudgetOf(count).used_max);
  return absl::OkStatus();
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
