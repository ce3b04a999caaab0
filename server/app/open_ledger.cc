#include "server/app/open_ledger.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/crash_point.h"
#include "server/ledger/memory_ledger.h"
#include "server/observe/log.h"
#include "userintent/v1/errors.pb.h"

namespace userintent {
namespace {

using observe::Level;
using observe::Log;
using observe::SafeText;

ledger::WaiterLimits WaiterLimitsOf(const config::Settings& settings) {
  return {static_cast<size_t>(settings.max_waiters_per_request), static_cast<size_t>(settings.max_waiters_per_caller)};
}

ledger::SqliteLedgerOptions OptionsOf(const config::Settings& settings, const intent::Fingerprinter& fingerprinter,
                                      observe::Metrics& metrics) {
  ledger::SqliteLedgerOptions options;
  options.store.path = settings.ledger.path;
  options.store.key_id = fingerprinter.key_id();
  options.store.previous_key_ids = fingerprinter.previous_key_ids();
  options.store.environment = config::Text(settings.astra_environment());
  options.store.crash_point = CrashHook::Get();
  options.unknown_reason = v1::ERROR_REASON_OUTCOME_UNKNOWN;
  options.waiters = WaiterLimitsOf(settings);
  options.webhook_limit = static_cast<size_t>(settings.webhook_queue);
  options.retention = settings.retention;
  options.released_retention = settings.released_retention;
  options.watch_history = settings.watch_history;
  options.must_exist = settings.ledger_must_exist;
  options.restored = settings.ledger_restored;
  options.on_purge = [&metrics](size_t rows) { metrics.CountPurged(static_cast<int64_t>(rows)); };
  options.warn = [](const std::string& text) { Log(Level::kError, "ledger", {{"warning", SafeText(text)}}); };
  options.on_batch = [&metrics](const ledger::BatchReport& report) {
    metrics.RecordCommit(static_cast<int>(report.operations), report.took);
    if (!report.committed) metrics.CountCommitFailure();
    metrics.SetLedgerUncommitted(static_cast<int64_t>(report.waiting_outcomes));
  };
  return options;
}

void TellOfLedger(const std::string& path, const ledger::SqliteLedger& ledger, observe::Metrics& metrics) {
  metrics.SetLedgerRows(ledger.rows());
  metrics.SetLedgerMadeAt(ledger.made_at());
  if (ledger.made()) {
    const std::string text =
        absl::StrCat("ledger ", path,
                     ": is new and knows no request; right at the first start only. From the second "
                     "one on, --ledger_must_exist keeps a lost ledger from being replaced by an empty one");
    Log(Level::kWarn, "new_ledger", {{"warning", SafeText(text)}});
  }
  if (const std::optional<ledger::Restored>& restored = ledger.restored()) {
    metrics.SetLedgerRestored(absl::FromUnixMicros(restored->backup_of));
    const std::string text =
        absl::StrCat("ledger ", path, ": is a backup of ", ledger::TimeText(restored->backup_of),
                     " in the place of one that served until ", ledger::TimeText(restored->served_until),
                     "; what was sent after the backup is not in it, and a repeat of it would be "
                     "sent again");
    Log(Level::kWarn, "restored_ledger", {{"warning", SafeText(text)}});
  }
}

// `restored`: which restore made it what it is.
std::unique_ptr<usecase::WatchTokens> NewTokens(const config::LedgerKeys& keys, const ledger::ChangeFeed& changes,
                                                int64_t restored) {
  return std::make_unique<usecase::WatchTokens>(
      usecase::WatchTokens::Options{.ledger_id = changes.ledger_id(), .restored = restored}, keys.current,
      keys.previous);
}

}  // namespace

absl::StatusOr<OpenedLedger> OpenLedger(const config::Settings& settings, const config::LedgerKeys& keys,
                                        observe::Metrics& metrics) {
  auto all_keys = std::make_unique<intent::Fingerprinter>(keys.current, keys.previous);
  if (settings.ledger.kind == config::LedgerLocation::Kind::kMemory) {
    auto memory =
        std::make_unique<ledger::MemoryLedger>(WaiterLimitsOf(settings), static_cast<size_t>(settings.webhook_queue));
    ledger::MemoryLedger* const ledger = memory.get();
    return OpenedLedger{std::move(memory), std::move(all_keys), ledger, nullptr, ledger, NewTokens(keys, *ledger, 0)};
  }
  auto opened = ledger::SqliteLedger::Open(OptionsOf(settings, *all_keys, metrics));
  if (!opened.ok()) {
    return absl::Status(opened.status().code(), absl::StrCat("--ledger: ", opened.status().message()));
  }
  ledger::SqliteLedger* const sqlite = opened->get();
  TellOfLedger(settings.ledger.path, *sqlite, metrics);
  const std::optional<ledger::Restored>& restored = sqlite->restored();
  const std::vector<uint64_t> key_ids = all_keys->previous_key_ids();
  std::vector<Secret> needed;
  for (size_t i = 0; i < keys.previous.size(); ++i) {
    if (sqlite->needs_key(key_ids[i])) needed.push_back(keys.previous[i]);
  }
  return OpenedLedger{*std::move(opened),
                      std::make_unique<intent::Fingerprinter>(keys.current, needed),
                      sqlite,
                      sqlite,
                      sqlite,
                      NewTokens(keys, *sqlite, restored ? restored->acknowledged_at : 0)};
}

}  // namespace userintent
