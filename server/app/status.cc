#include "server/app/status.h"

#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/admin/tool_text.h"
#include "server/admin/unresolved.h"
#include "server/config/load.h"
#include "server/postgres/url.h"

// In this file: what the rows are taken from; which rows there are; the unresolved requests; the page.

namespace userintent {
namespace {

using admin::AgeText;
using admin::TimeText;
using observe::StatusPage;
using Rows = std::vector<StatusPage::Row>;

constexpr auto kKept = std::chrono::seconds(1);
constexpr auto kLedgerPatience = std::chrono::seconds(1);

std::string FarTimeText(absl::Time time, absl::Time now) {
  const std::string at = TimeText(time);
  return time <= now ? absl::StrCat(at, " (", AgeText(now - time), " ago)")
                     : absl::StrCat(at, " (in ", AgeText(time - now), ")");
}

// ---- what the rows are taken from

// The series of /metrics: what a row says, an alert can say as well.
class Samples {
 public:
  explicit Samples(const std::string& text) {
    for (const std::string& line : std::vector<std::string>(absl::StrSplit(text, '\n'))) {
      const size_t space = line.rfind(' ');
      double value = 0;
      if (line.empty() || line.front() == '#' || space == std::string::npos) continue;
      if (absl::SimpleAtod(line.substr(space + 1), &value)) values_.emplace(line.substr(0, space), value);
    }
  }

  // Nothing: there is no such series.
  std::optional<double> Of(std::string_view series) const {
    const auto found = values_.find(series);
    if (found == values_.end()) return std::nullopt;
    return found->second;
  }

  // The value of the label, of each series of that name, with the series' own.
  std::vector<std::pair<std::string, double>> ByLabel(const std::string& name, const std::string& label) const {
    std::vector<std::pair<std::string, double>> found;
    const std::string begin = absl::StrCat(name, "{", label, "=\"");
    for (auto at = values_.lower_bound(begin); at != values_.end() && at->first.starts_with(begin); ++at) {
      const std::string rest = at->first.substr(begin.size());
      found.emplace_back(rest.substr(0, rest.find('"')), at->second);
    }
    return found;
  }

 private:
  std::map<std::string, double, std::less<>> values_;
};

// ---- which rows there are

enum class Kind {
  kCount,
  kYesNo,
  kSeconds,  // how long
  kTime,     // Unix time; 0: never
  kWords,    // the value of the one label of the series that is 1
};

struct Row {
  const char* name;
  const char* series;  // without such a series there is no row
  Kind kind = Kind::kCount;
  const char* label = "";
};

constexpr Row kUpstream[] = {
    {"calls in flight", "userintent_calls_in_flight"},
    {"POSTs in flight", "userintent_upstream_posts_in_flight"},
    {"POSTs listened to after their time", "userintent_late_exchanges"},
    {"breaker", "userintent_upstream_breaker_state", Kind::kWords, "state"},
    {"limit", "userintent_upstream_limit"},
    {"of the limit taken", "userintent_upstream_slots"},
    {"calls that wait for a place", "userintent_upstream_queue"},
    {"refusals by an edge before Astra", "userintent_upstream_edge_rejections_total"},
};

constexpr Row kLedger[] = {
    {"requests", "userintent_ledger_rows"},
    {"can be written", "userintent_ledger_writable", Kind::kYesNo},
    {"last commit", "userintent_ledger_last_commit_timestamp_seconds", Kind::kTime},
    {"commits that failed", "userintent_ledger_commit_failures_total"},
    {"outcomes not yet committed", "userintent_ledger_uncommitted_outcomes"},
    {"made unknown at the start", "userintent_ledger_recovered_rows"},
};

constexpr Row kSqlite[] = {
    {"its files are in their place", "userintent_ledger_in_place", Kind::kYesNo},
    {"made", "userintent_ledger_made_at_seconds", Kind::kTime},
};

constexpr Row kReplicas[] = {
    {"this replica may begin requests", "userintent_replica_well", Kind::kYesNo},
    {"its lease lasts", "userintent_replica_lease_seconds", Kind::kSeconds},
    {"replicas", "userintent_replicas"},
    {"ended, with requests that wait to become unknown", "userintent_replicas_unswept"},
    {"standbys in sync", "userintent_ledger_standbys"},
    {"requests in doubt", "userintent_ledger_in_doubt"},
};

constexpr Row kPolicy[] = {
    {"read", "userintent_policy_age_seconds", Kind::kSeconds},
    {"readings refused", "userintent_policy_reload_failures_total"},
};

constexpr Row kWebhooks[] = {
    {"last received", "userintent_webhook_last_received_timestamp_seconds", Kind::kTime},
    {"waiting", "userintent_webhook_unprocessed"},
    {"the oldest waits for", "userintent_webhook_oldest_unprocessed_seconds", Kind::kSeconds},
    {"connections", "userintent_webhook_connections"},
};

constexpr Row kAfterwards[] = {
    {"watch streams", "userintent_watch_streams"},
    {"requests followed", "userintent_follow_up_intents"},
    {"of these watched", "userintent_follow_up_watched"},
    {"the first one is late by", "userintent_follow_up_late_seconds", Kind::kSeconds},
    {"not followed, for there are too many", "userintent_follow_up_left_out_total"},
};

std::string ValueText(double value, Kind kind, absl::Time now) {
  switch (kind) {
    case Kind::kYesNo:
      return value != 0 ? "yes" : "NO";
    case Kind::kSeconds:
      return value < 0 ? "over" : AgeText(absl::Seconds(value));
    case Kind::kTime:
      return value == 0 ? "never" : FarTimeText(absl::UnixEpoch() + absl::Seconds(value), now);
    default:
      return absl::StrCat(static_cast<int64_t>(std::llround(value)));
  }
}

template <size_t N>
void Append(Rows& rows, const Row (&shown)[N], const Samples& samples, absl::Time now) {
  for (const Row& row : shown) {
    if (row.kind == Kind::kWords) {
      for (const auto& [word, value] : samples.ByLabel(row.series, row.label)) {
        if (value == 1) rows.push_back({row.name, word});
      }
    } else if (const std::optional<double> value = samples.Of(row.series)) {
      rows.push_back({row.name, ValueText(*value, row.kind, now)});
    }
  }
}

Rows ProcessRows(const Status::View& view, const Samples& samples, absl::Time now) {
  Rows rows;
  rows.push_back({"version", std::string(config::ProgramVersion())});
  rows.push_back({"started", ValueText(samples.Of("userintent_start_time_seconds").value_or(0), Kind::kTime, now)});
  rows.push_back({"address", view.address});
  if (!view.settings.replica_name.empty()) rows.push_back({"replica", view.settings.replica_name});
  rows.push_back({"page made", TimeText(now)});
  return rows;
}

Rows UpstreamRows(const Status::View& view, const Samples& samples, absl::Time now) {
  Rows rows;
  rows.push_back({"Astra", view.settings.astra_base_url.Text()});
  const absl::Duration held = view.admission.Held(SteadyClock::now());
  if (held > absl::ZeroDuration()) rows.push_back({"held back, as Astra asked", absl::StrCat("for ", AgeText(held))});
  Append(rows, kUpstream, samples, now);
  return rows;
}

Rows LedgerRows(const Status::View& view, const Samples& samples, absl::Time now) {
  using LedgerKind = config::LedgerLocation::Kind;
  const config::LedgerLocation& ledger = view.settings.ledger;
  Rows rows;
  switch (ledger.kind) {
    case LedgerKind::kSqlite:
      rows.push_back({"kind", absl::StrCat("SQLite, ", ledger.path)});
      Append(rows, kLedger, samples, now);
      Append(rows, kSqlite, samples, now);
      break;
    case LedgerKind::kPostgresql:
      rows.push_back({"kind", absl::StrCat("PostgreSQL, ", postgres::PlaceOf(ledger.url))});
      // Of the requests there is no count: another replica may write.
      for (const Row& row : kLedger) {
        if (row.series == std::string_view("userintent_ledger_rows")) continue;
        const Row one[] = {row};
        Append(rows, one, samples, now);
      }
      Append(rows, kReplicas, samples, now);
      break;
    case LedgerKind::kMemory:
      rows.push_back({"kind", "memory: everything is forgotten at the end of the process"});
  }
  return rows;
}

Rows CertificateRows(const Samples& samples, absl::Time now) {
  Rows rows;
  for (const auto& [which, value] : samples.ByLabel("userintent_certificate_not_after_seconds", "which")) {
    if (value == 0) continue;  // none is in use
    const absl::Time end = absl::UnixEpoch() + absl::Seconds(value);
    rows.push_back({which, absl::StrCat(end < now ? "ENDED " : "ends ", FarTimeText(end, now))});
  }
  if (rows.empty()) rows.push_back({"certificates", "none in use"});
  return rows;
}

Rows PolicyRows(const Status::View& view, const Samples& samples, absl::Time now) {
  Rows rows;
  if (view.settings.policy_file.empty()) {
    rows.push_back({"policy file", "none: every authenticated caller may call everything"});
    return rows;
  }
  rows.push_back({"policy file", view.settings.policy_file});
  for (const auto& [sha256, rules] : samples.ByLabel("userintent_policy_rules", "sha256")) {
    rows.push_back({"in force", absl::StrCat(static_cast<int64_t>(rules), " rules, sha256 ", sha256)});
  }
  Append(rows, kPolicy, samples, now);
  return rows;
}

Rows WebhookRows(const Status::View& view, const Samples& samples, absl::Time now) {
  Rows rows;
  if (view.settings.webhook_listen.empty()) {
    rows.push_back({"receiver", "none are received: --webhook_listen is not set"});
  } else {
    Append(rows, kWebhooks, samples, now);
  }
  return rows;
}

// ---- the unresolved requests

std::string NoteOf(const UnresolvedReader::Answer& answer, absl::Time now) {
  const admin::Unresolved* list = answer.list.get();
  if (list == nullptr) return absl::StrCat("Not known: ", answer.problem, ".");
  std::string note;
  const int64_t shown = static_cast<int64_t>(list->requests.size());
  if (list->all == 0) {
    note = "None.";
  } else if (list->all == shown) {
    note = absl::StrCat(shown, ", the oldest first.");
  } else {
    note = absl::StrCat("The oldest ", shown, list->all < admin::Unresolved::kCounted ? "; " : "; at least ",
                        list->all - shown, " more: userintent-ledger unresolved --not_superseded --limit=1000.");
  }
  if (!answer.problem.empty()) {
    absl::StrAppend(&note, " This is how it was ", AgeText(now - list->read), " ago: ", answer.problem, ".");
  }
  return note;
}

}  // namespace

void Status::AddUnresolved(StatusPage& page, absl::Time now) const {
  if (!unresolved_) {
    page.unresolved_note = "Not known: no tool can look into this ledger.";
    return;
  }
  const UnresolvedReader::Answer answer = unresolved_->Get(kLedgerPatience);
  page.unresolved_note = NoteOf(answer, now);
  if (!answer.list) return;
  if (!answer.list->requests.empty()) {
    absl::StrAppend(&page.unresolved_note,
                    " A command settles one for ever: find out first, from Astra, what became of it. Each asks for "
                    "what only you know: INTENT_ID, and EVIDENCE (a ticket, the id of Astra's answer; no personal "
                    "data), as variables of the shell.");
    if (view_.settings.ledger.kind == config::LedgerLocation::Kind::kPostgresql) {
      absl::StrAppend(&page.unresolved_note, " USERINTENT_LEDGER must be the database's URL.");
    }
  }
  for (const admin::Unresolved::Request& request : answer.list->requests) {
    StatusPage::Unresolved& shown = page.unresolved.emplace_back();
    shown.request_id = request.request_id;
    for (const auto& [name, value] : request.facts) shown.facts.push_back({name, value});
    shown.commands.push_back({"If the User Intent exists:", request.created});
    shown.commands.push_back({"If it surely does not:", request.not_created});
  }
}

// ---- the page

std::string Status::Make() {
  const absl::Time now = absl::Now();
  const Samples samples(view_.metrics.Text());
  const std::vector<std::string> reasons = view_.reasons_not_ready();
  StatusPage page;
  page.well = reasons.empty();
  page.headline = page.well ? "Ready." : absl::StrCat("Not ready: ", absl::StrJoin(reasons, "; "), ".");
  page.sections.push_back({"Process", ProcessRows(view_, samples, now)});
  page.sections.push_back({"Upstream", UpstreamRows(view_, samples, now)});
  page.sections.push_back({"Ledger", LedgerRows(view_, samples, now)});
  page.sections.push_back({"Certificates", CertificateRows(samples, now)});
  page.sections.push_back({"Policy", PolicyRows(view_, samples, now)});
  page.sections.push_back({"Webhooks", WebhookRows(view_, samples, now)});
  Rows afterwards;
  Append(afterwards, kAfterwards, samples, now);
  page.sections.push_back({"Watching and following", std::move(afterwards)});
  AddUnresolved(page, now);
  return page.Html();
}

std::string Status::Page() {
  if (making_.test_and_set(std::memory_order_acquire)) {
    const MutexLock lock(mutex_);
    if (!page_.empty()) return page_;
    StatusPage busy;
    busy.headline = "The page is being made: ask again in a moment.";
    return busy.Html();
  }
  const absl::Cleanup made = [this] { making_.clear(std::memory_order_release); };
  bool due = false;
  {
    const MutexLock lock(mutex_);
    due = page_.empty() || SteadyClock::now() - made_ >= kKept;
  }
  if (due) {
    std::string page = Make();
    const MutexLock lock(mutex_);
    page_ = std::move(page);
    made_ = SteadyClock::now();
  }
  const MutexLock lock(mutex_);
  return page_;
}

}  // namespace userintent
