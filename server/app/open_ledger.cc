#include "server/app/open_ledger.h"

#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/crash_point.h"
#include "server/ledger/memory_ledger.h"
#include "server/observe/log.h"
#include "server/postgres/url.h"
#include "userintent/v1/errors.pb.h"

namespace userintent {
namespace {

using observe::Level;
using observe::Log;
using observe::SafeText;

ledger::WaiterLimits WaiterLimitsOf(const config::Settings& settings) {
  return {static_cast<size_t>(settings.max_waiters_per_request), static_cast<size_t>(settings.max_waiters_per_caller)};
}

std::function<void(const ledger::BatchReport&)> OnBatch(observe::Metrics& metrics) {
  return [&metrics](const ledger::BatchReport& report) {
    if (report.may_write) metrics.RecordCommit(static_cast<int>(report.operations), report.took);
    if (!report.committed) {
      metrics.CountCommitFailure();
    } else if (report.may_write) {
      metrics.SetLedgerLastCommit(absl::Now());
    }
    metrics.SetLedgerUncommitted(static_cast<int64_t>(report.waiting_outcomes));
  };
}

ledger::SqliteLedgerOptions OptionsOf(const config::Settings& settings, const intent::Fingerprinter& fingerprinter,
                                      observe::Metrics& metrics) {
  ledger::SqliteLedgerOptions options;
  options.store.path = settings.ledger.path;
  options.store.key_id = fingerprinter.key_id();
  options.store.previous_key_ids = fingerprinter.previous_key_ids();
  options.store.environment = config::Text(settings.astra_environment());
  options.store.crash_point = CrashHook::Get();
  // In a crash test keys are merged as early and as slowly as can be, so that kills meet every stage of it.
  if (CrashHook::Get() != nullptr) options.store.merge = {.begin_at = 2, .at_once = 1, .faster = 1};
  options.store.on_broken = [](const std::string& why) {
    const std::string text = absl::StrCat(
        why, ": what would keep a request from being sent twice cannot be relied on; this process ends, and ",
        "the next start reads the ledger anew or refuses it");
    Log(Level::kError, "ledger_broken", {{"warning", SafeText(text)}});
    std::_Exit(1);
  };
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
  options.on_batch = OnBatch(metrics);
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

std::string ReplicaName(const config::Settings& settings) {
  if (!settings.replica_name.empty()) return settings.replica_name;
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "replica";
}

postgres::LedgerOptions PostgresOptionsOf(const config::Settings& settings, const intent::Fingerprinter& fingerprinter,
                                          observe::Metrics& metrics) {
  const auto warn = [](const std::string& text) { Log(Level::kError, "ledger", {{"warning", SafeText(text)}}); };
  postgres::LedgerOptions options;
  postgres::MemberOptions& member = options.member;
  member.connection.url = settings.ledger.url;
  member.connection.application_name = absl::StrCat("userintent ", ReplicaName(settings));
  member.name = ReplicaName(settings);
  // The longest that an exchange lasts, and something for a machine that is busy.
  member.constants = {settings.ledger_lease, settings.ledger_fence, settings.upstream_timeout + absl::Seconds(5)};
  member.key_id = fingerprinter.key_id();
  member.previous_key_ids = fingerprinter.previous_key_ids();
  member.environment = config::Text(settings.astra_environment());
  member.single_node = settings.ledger_single_node;
  member.migrate = settings.ledger_migrate;
  member.warn = warn;
  postgres::Housekeeping& housekeeping = options.housekeeping;
  housekeeping.unknown_reason = v1::ERROR_REASON_OUTCOME_UNKNOWN;
  housekeeping.retention = settings.retention;
  housekeeping.released_retention = settings.released_retention;
  housekeeping.watch_history = settings.watch_history;
  housekeeping.warn = warn;
  housekeeping.on_recovered = [&metrics](size_t rows) { metrics.replica().CountSwept(static_cast<int64_t>(rows)); };
  housekeeping.on_purge = [&metrics](size_t rows) { metrics.CountPurged(static_cast<int64_t>(rows)); };
  options.released_reason = v1::ERROR_REASON_LEDGER_UNAVAILABLE;
  options.on_lost = [](size_t rows) {
    const std::string text = absl::StrCat(
        "the database has forgotten ", rows,
        " requests that it had confirmed: a failover to a standby that did not have them, or a restore. What "
        "they kept from being sent twice is not kept any more; this process ends");
    Log(Level::kError, "ledger_lost", {{"warning", SafeText(text)}});
    std::_Exit(1);
  };
  options.batch.unknown_reason = v1::ERROR_REASON_OUTCOME_UNKNOWN;
  options.batch.waiters = WaiterLimitsOf(settings);
  options.batch.webhook_limit = static_cast<size_t>(settings.webhook_queue);
  options.batch.crash_point = CrashHook::Get();
  options.batch.on_batch = OnBatch(metrics);
  return options;
}

absl::StatusOr<OpenedLedger> OpenPostgres(const config::Settings& settings, const config::LedgerKeys& keys,
                                          std::unique_ptr<intent::Fingerprinter> all_keys, observe::Metrics& metrics) {
  auto opened = postgres::Ledger::Open(PostgresOptionsOf(settings, *all_keys, metrics));
  if (!opened.ok()) {
    return absl::Status(opened.status().code(), absl::StrCat("--ledger: ", std::string(opened.status().message())));
  }
  postgres::Ledger* const ledger = opened->get();
  metrics.SetLedgerMadeAt(ledger->made_at());
  if (ledger->restored() != 0) metrics.SetLedgerRestored(absl::FromUnixMicros(ledger->restored()));
  Log(Level::kInfo, "replica",
      {{"address", SafeText(postgres::PlaceOf(settings.ledger.url))}, {"epoch", ledger->epoch()}});
  if (settings.ledger_single_node) {
    Log(Level::kWarn, "single_node",
        {{"warning",
          "no synchronous standby has the ledger (--ledger_single_node): if this one server is lost, so is the promise "
          "for what came since its last backup"}});
  }
  OpenedLedger all;
  all.ledger = *std::move(opened);
  all.fingerprinter = std::move(all_keys);
  all.changes = ledger;
  all.postgres = ledger;
  all.webhooks = ledger;
  all.watch_tokens = NewTokens(keys, *ledger, ledger->restored());
  return all;
}

}  // namespace

absl::StatusOr<OpenedLedger> OpenLedger(const config::Settings& settings, const config::LedgerKeys& keys,
                                        observe::Metrics& metrics) {
  auto all_keys = std::make_unique<intent::Fingerprinter>(keys.current, keys.previous);
  if (settings.ledger.kind == config::LedgerLocation::Kind::kMemory) {
    auto memory =
        std::make_unique<ledger::MemoryLedger>(WaiterLimitsOf(settings), static_cast<size_t>(settings.webhook_queue));
    ledger::MemoryLedger* const ledger = memory.get();
    return OpenedLedger{std::move(memory),          std::move(all_keys), ledger, nullptr, nullptr, ledger,
                        NewTokens(keys, *ledger, 0)};
  }
  if (settings.ledger.kind == config::LedgerLocation::Kind::kPostgresql) {
    return OpenPostgres(settings, keys, std::move(all_keys), metrics);
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
                      nullptr,
                      sqlite,
                      NewTokens(keys, *sqlite, restored ? restored->acknowledged_at : 0)};
}

void ShowLedger(const ledger::SqliteLedger* sqlite, const postgres::Ledger* postgres, observe::Metrics& metrics) {
  if (sqlite != nullptr) {
    metrics.SetLedgerRows(sqlite->rows());
    metrics.SetLedgerInPlace(sqlite->InPlace());
  }
  if (postgres != nullptr) {
    const postgres::MemberReport report = postgres->report();
    metrics.replica().Show({report.well, report.replicas, report.unswept, report.standbys, report.lease_left,
                            report.commit_waits, report.oldest_writer, static_cast<int>(postgres->in_doubt())});
  }
}

}  // namespace userintent
