// What the ledger knows, in the messages of userintent.admin.v1. Pure; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "absl/time/time.h"
#include "server/ledger/inspector.h"
#include "server/ledger/ledger.h"
#include "server/ledger/operator_access.h"
#include "server/ledger/store.h"
#include "userintent/admin/v1/ledger_admin_service.pb.h"

namespace userintent::admin {

// How long something has lasted, in whole milliseconds; nothing when the clock was set back meanwhile.
absl::Duration WholeMillis(absl::Duration duration);

// `server_runs`: false: what is SENDING has lost its owner.
void Fill(const ledger::Record& record, absl::Time now, bool server_runs, v1::Request* out);
void Fill(const ledger::Budget& budget, v1::Request* out);
// Of a request that was first recorded at `created`.
void Fill(const ledger::WebhookEvidence& evidence, absl::Time created, v1::WebhookEvidence* out);
void Fill(const ledger::AuditEntry& entry, v1::AuditEntry* out);
void Fill(const ledger::Conflict& conflict, v1::Conflict* out);
void Fill(const std::vector<ledger::LedgerKey>& keys, std::map<uint64_t, int64_t> requests,
          v1::GetStatisticsResponse* out);
void Fill(const ledger::CopyReport& report, v1::Copy* out);

}  // namespace userintent::admin
