// OpenLedger: the ledger that --ledger asks for, with the hashes of its keys.
//
// Called by server.cc at the start. Blocks while the ledger is opened and recovered.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "server/config/load.h"
#include "server/intent/fingerprint.h"
#include "server/ledger/change_feed.h"
#include "server/ledger/ledger.h"
#include "server/ledger/sqlite_ledger.h"
#include "server/ledger/webhook_queue.h"
#include "server/observe/metrics.h"
#include "server/postgres/ledger.h"
#include "server/usecase/watch_token.h"

namespace userintent {

struct OpenedLedger {
  std::unique_ptr<ledger::Ledger> ledger;
  // Of the current key and of those previous ones that rows are left under: a call pays for each key.
  std::unique_ptr<intent::Fingerprinter> fingerprinter;
  ledger::ChangeFeed* changes = nullptr;     // of the same ledger
  ledger::SqliteLedger* sqlite = nullptr;    // the same ledger, where it is one
  postgres::Ledger* postgres = nullptr;      // likewise
  ledger::WebhookQueue* webhooks = nullptr;  // of the same ledger
  // Of all the keys: a token may be younger than the last row under its key.
  std::unique_ptr<usecase::WatchTokens> watch_tokens;
};

// Logs what of the ledger's life an operator must not overlook. `metrics` outlives the ledger, which counts its commits
// there. The status begins with --ledger.
absl::StatusOr<OpenedLedger> OpenLedger(const config::Settings& settings, const config::LedgerKeys& keys,
                                        observe::Metrics& metrics);

// How it stands with the ledger, whichever of the two it is, in the metrics.
void ShowLedger(const ledger::SqliteLedger* sqlite, const postgres::Ledger* postgres, observe::Metrics& metrics);

}  // namespace userintent
