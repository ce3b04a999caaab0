#include "server/admin/copy.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/admin/restore.h"
#include "server/base/crash_point.h"
#include "server/base/uuid.h"
#include "server/ledger/mark.h"
#include "server/ledger/moved.h"
#include "server/ledger/opening.h"
#include "server/ledger/sqlite_content.h"
#include "server/ledger/sqlite_ledger.h"
#include "server/postgres/import.h"
#include "server/postgres/schema.h"
#include "server/postgres/url.h"
#include "userintent/v1/errors.pb.h"

namespace userintent::admin {
namespace {

using ledger::Moved;

absl::Status Refuse(const std::string& text) { return absl::FailedPreconditionError(text); }

// The file, locked as a server locks it.
class Source {
 public:
  static absl::StatusOr<std::unique_ptr<Source>> Open(const std::string& path) {
    std::unique_ptr<Source> source(new Source);
    source->options_.store.path = path;
    source->options_.store.for_operator = true;
    source->options_.store.moved_too = true;
    absl::StatusOr<ledger::OpenedFiles> files = ledger::OpenFiles(source->options_);
    if (absl::IsAborted(files.status())) {
      return Refuse(absl::StrCat("ledger ", path, ": a server runs on it, or another tool; stop it first"));
    }
    if (!files.ok()) return files.status();
    source->files_ = *std::move(files);
    source->content_.emplace(*source->files_.store);
    absl::StatusOr<std::optional<Moved>> moved = source->content_->GetMoved();
    if (!moved.ok()) return moved.status();
    source->moved_ = *std::move(moved);
    return source;
  }

  const std::string& path() const { return options_.store.path; }
  const std::optional<Moved>& moved() const { return moved_; }
  ledger::SqliteContent& content() { return *content_; }

  // What a dead process left under way is unknown, as after a server's start.
  absl::StatusOr<size_t> Recover() {
    return ledger::RecoverAll(*files_.store, options_.store, userintent::v1::ERROR_REASON_OUTCOME_UNKNOWN);
  }

  // Durable; and a backup from before is older than what its directory knows.
  absl::Status Mark(const std::optional<Moved>& moved) {
    if (absl::Status s = content_->SetMoved(moved); !s.ok()) return s;
    moved_ = moved;
    const ledger::SqliteStore& store = *files_.store;
    const ledger::Mark mark{store.made_at(), store.revision(), store.in_file(), files_.acknowledged};
    if (absl::Status s = ledger::WriteMark(path(), mark); !s.ok()) return s;
    return GiveAway(ledger::MarkPath(path()), path());
  }

 private:
  Source() = default;
  ledger::OpeningOptions options_;
  ledger::OpenedFiles files_;
  std::optional<ledger::SqliteContent> content_;
  std::optional<Moved> moved_;
};

// Where the numbers of the file's changes are beyond those that the database gives: the log begins anew, as after a
// restore, so that whoever followed the old one does so, too.
class WithoutLog final : public ledger::Content {
 public:
  explicit WithoutLog(ledger::Content& content) : content_(content), now_(absl::ToUnixMicros(absl::Now())) {}

  absl::StatusOr<ledger::Life> GetLife() override {
    absl::StatusOr<ledger::Life> life = content_.GetLife();
    if (life.ok()) life->forgotten_to = life->logged = 0;
    return life;
  }
  absl::StatusOr<std::vector<ledger::LedgerKey>> Keys() override { return content_.Keys(); }
  absl::Status Rows(Each<ledger::Row> each) override { return content_.Rows(each); }
  absl::Status Addresses(Each<ledger::AddressAttempts> each) override { return content_.Addresses(each); }
  absl::Status Audit(Each<ledger::AuditEntry> each) override { return content_.Audit(each); }
  absl::Status Conflicts(Each<ledger::Conflict> each) override { return content_.Conflicts(each); }
  absl::Status Webhooks(Each<ledger::KeptWebhook> each) override { return content_.Webhooks(each); }
  absl::Status Periods(Each<ledger::ReceiverPeriod> each) override { return content_.Periods(each); }
  absl::Status Restores(Each<ledger::Restored> each) override {
    if (absl::Status s = content_.Restores(each); !s.ok()) return s;
    return each({now_, now_, now_});
  }
  absl::Status Changes(Each<ledger::LoggedChange>) override { return absl::OkStatus(); }

 private:
  ledger::Content& content_;
  const int64_t now_;
};

// The other side, for the file that says where it goes.
absl::StatusOr<std::unique_ptr<postgres::Import>> OpenTarget(const Source& source, const std::string& url) {
  absl::StatusOr<std::unique_ptr<postgres::Import>> target = postgres::Import::Open(url);
  if (!target.ok()) return target.status();
  if (source.moved() && source.moved()->database != (*target)->database()) {
    return Refuse(absl::StrCat("ledger ", source.path(), ": its copy to another database, ", source.moved()->place,
                               ", has begun; --to must name that one"));
  }
  return target;
}

absl::Status CheckTarget(const postgres::Import::Found& found) {
  if (found.schema_version == 0) {
    return Refuse("the database holds no tables for a ledger; userintent-ledger migrate makes them");
  }
  if (found.schema_version != postgres::SchemaVersion()) {
    return Refuse(absl::StrCat("the schema of the database is version ", found.schema_version, ", this program needs ",
                               postgres::SchemaVersion(),
                               "; run userintent-ledger migrate, or the tool of its version"));
  }
  if (found.used) {
    return Refuse(
        "the database holds a ledger already, or a gateway was started on it; a ledger is copied into an empty one");
  }
  return absl::OkStatus();
}

// Writes, reads back, compares. The transaction stays open.
absl::Status Fill(postgres::Import& target, ledger::Content& from, const Uuid& copy, CopyResult& result) {
  if (absl::Status s = target.Write(from, copy); !s.ok()) return s;
  if (absl::Status s = target.CheckCounters(); !s.ok()) return s;
  absl::StatusOr<std::vector<ledger::PartSum>> was = ledger::SumsOf(from);
  if (!was.ok()) return was.status();
  const absl::StatusOr<std::vector<ledger::PartSum>> is = ledger::SumsOf(target.content());
  if (!is.ok()) return is.status();
  for (size_t i = 0; i < was->size(); ++i) {
    if ((*was)[i] == (*is)[i]) continue;
    const std::string how = (*was)[i].count == (*is)[i].count
                                ? "with other values"
                                : absl::StrCat((*is)[i].count, " instead of ", (*was)[i].count);
    return absl::InternalError(absl::StrCat("the ", (*was)[i].part, " in the database are not those of the file: ", how,
                                            "; nothing was copied"));
  }
  result.sums = *std::move(was);
  return absl::OkStatus();
}

// From here on the file is refused by every start, whatever becomes of this process.
absl::Status Hand(Source& source, postgres::Import& target, Moved moved) {
  CrashPoint("copy-written");
  if (absl::Status s = source.Mark(moved); !s.ok()) return s;
  CrashPoint("copy-marked");
  if (absl::Status s = target.Commit(); !s.ok()) {
    if (target.in_doubt()) {
      return absl::UnavailableError(absl::StrCat(
          "the database has not confirmed the copy, so it may be there or not; run the same command again, "
          "until then the file is not served (",
          std::string(s.message()), ")"));
    }
    if (absl::Status back = source.Mark(std::nullopt); !back.ok()) return back;
    return s;
  }
  CrashPoint("copy-committed");
  moved.done = absl::Now();
  return source.Mark(moved);
}

absl::StatusOr<CopyResult> Copy(Source& source, postgres::Import& target, const std::string& url) {
  CopyResult result;
  const absl::StatusOr<postgres::Import::Found> found = target.Begin();
  if (!found.ok()) return found.status();
  if (source.moved() && found->copy == source.moved()->copy) {
    if (absl::Status s = target.Confirm(); !s.ok()) return s;
    Moved moved = *source.moved();
    moved.done = absl::Now();
    result.was_there = true;
    if (absl::Status s = source.Mark(moved); !s.ok()) return s;
    return result;
  }
  if (absl::Status s = CheckTarget(*found); !s.ok()) return s;
  const absl::StatusOr<size_t> recovered = source.Recover();
  if (!recovered.ok()) return recovered.status();
  result.recovered = *recovered;
  const absl::StatusOr<ledger::Life> life = source.content().GetLife();
  if (!life.ok()) return life.status();
  const absl::StatusOr<int64_t> next = target.NextRevision();
  if (!next.ok()) return next.status();
  result.log_goes_on = life->logged < *next;
  WithoutLog without_log(source.content());
  ledger::Content& from = result.log_goes_on ? static_cast<ledger::Content&>(source.content()) : without_log;
  Moved moved{postgres::PlaceOf(url), target.database(), RandomUuid(), absl::Now(), std::nullopt};
  if (absl::Status s = Fill(target, from, moved.copy, result); !s.ok()) return s;
  if (absl::Status s = Hand(source, target, std::move(moved)); !s.ok()) return s;
  return result;
}

}  // namespace

absl::StatusOr<CopyResult> CopyLedger(const std::string& path, const std::string& url) {
  const absl::StatusOr<std::unique_ptr<Source>> source = Source::Open(path);
  if (!source.ok()) return source.status();
  if ((*source)->moved() && (*source)->moved()->done) {
    return Refuse(absl::StrCat("ledger ", path, ": ", ledger::WhyRefused(*(*source)->moved())));
  }
  const absl::StatusOr<std::unique_ptr<postgres::Import>> target = OpenTarget(**source, url);
  if (!target.ok()) return target.status();
  return Copy(**source, **target, url);
}

absl::Status UndoCopy(const std::string& path, const std::string& url) {
  const absl::StatusOr<std::unique_ptr<Source>> source = Source::Open(path);
  if (!source.ok()) return source.status();
  if (!(*source)->moved()) return Refuse(absl::StrCat("ledger ", path, ": was not copied, so it can be served"));
  const absl::StatusOr<std::unique_ptr<postgres::Import>> target = OpenTarget(**source, url);
  if (!target.ok()) return target.status();
  // Nothing can come into the database before the file is free.
  const absl::StatusOr<postgres::Import::Found> found = (*target)->Begin();
  if (!found.ok()) return found.status();
  if (found->used) {
    return Refuse(
        "the database holds the copy; only if no gateway was ever started on it (userintent-ledger replicas shows "
        "none) "
        "may its owner run DROP SCHEMA userintent CASCADE there, and then this again");
  }
  absl::Status s = (*source)->Mark(std::nullopt);
  (*target)->Rollback();
  return s;
}

}  // namespace userintent::admin
