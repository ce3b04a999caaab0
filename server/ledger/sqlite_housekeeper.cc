#include "server/ledger/sqlite_housekeeper.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/ledger/execute.h"

namespace userintent::ledger {
namespace {

constexpr std::chrono::seconds kLookAtFreeSpaceEvery{1};

}  // namespace

SqliteHousekeeper::SqliteHousekeeper(SqliteStore& store, std::unique_ptr<LedgerFile> file, int64_t acknowledged,
                                     SqliteHousekeeping options, const SqliteStoreOptions& store_options)
    : store_(store),
      file_(std::move(file)),
      options_(std::move(options)),
      path_(store_options.path),
      now_(store_options.now),
      marker_(store, path_, acknowledged, options_.mark_interval, options_.warn),
      rows_(store.rows()) {
  marker_.Write();
}

// ---- around a batch ----

void SqliteHousekeeper::Look(GroupCommit& commit, Time now) {
  if (now >= look_at_place_) {
    LookAtPlace();
    look_at_place_ = now + absl::ToChronoNanoseconds(options_.look_interval);
  }
  if (now >= look_at_space_) {
    LookAtFreeSpace();
    look_at_space_ = now + kLookAtFreeSpaceEvery;
  }
  commit.set_admit(room_ && in_place());
  commit.set_resend(in_place());
}

void SqliteHousekeeper::BeforeWrites(GroupCommit& commit, Time now) {
  if (marker_.Due(now) && in_place()) marker_.Advance(commit, now);
  marker_.NoteChange();
}

void SqliteHousekeeper::WhenIdle(GroupCommit& commit, Time now) {
  if (!room_ || !in_place()) return;
  const auto next = [this, now](bool more) {
    return now + absl::ToChronoMilliseconds(more ? options_.purge_interval : options_.purge_pause);
  };
  if (now >= prune_at_ && store_.LogIsLong(options_.watch_history)) PruneLog(commit, now);
  if (now >= forget_webhooks_at_) forget_webhooks_at_ = next(ForgetSomeWebhooks(commit));
  if (Purges() && now >= purge_at_) purge_at_ = next(PurgeSome(commit));
}

void SqliteHousekeeper::AfterTurn(const GroupCommit& commit) {
  Report(commit);
  if (!commit.healthy()) return;
  const absl::Status copied = store_.CheckpointIfLong();
  if (!copied.ok() && log_copied_) options_.warn(std::string(copied.message()));
  log_copied_ = copied.ok();
}

void SqliteHousekeeper::AtEnd(GroupCommit& commit) {
  if (commit.waiting_outcomes() != 0) {
    options_.warn(absl::StrCat("ledger ", path_, ": ", commit.waiting_outcomes(),
                               " outcomes could not be written; their requests stay unknown"));
  }
  LookAtPlace();
  if (commit.healthy() && in_place() && marker_.changed()) marker_.Advance(commit, std::chrono::steady_clock::now());
}

Housekeeper::Time SqliteHousekeeper::NextDue(bool healthy) const {
  const auto at = look_at_place_ - absl::ToChronoNanoseconds(options_.look_interval) +
                  absl::ToChronoNanoseconds(options_.idle_look_interval);
  if (!healthy) return at;
  if (!room_) return std::min(at, look_at_space_);
  if (!in_place()) return at;  // old rows wait until the files are back
  Time due = std::min(at, forget_webhooks_at_);
  if (Purges()) due = std::min(due, purge_at_);
  if (store_.LogIsLong(options_.watch_history)) due = std::min(due, prune_at_);
  return due;
}

// ---- what operators do ----

absl::Status SqliteHousekeeper::Transact(GroupCommit& commit, absl::FunctionRef<absl::Status(SqliteStore&)> work) {
  bool wrote = false;
  const absl::Status status = commit.Transact([&] {
    const int before = store_.changes();
    absl::Status s = work(store_);
    wrote = s.ok() && store_.changes() != before;
    if (wrote) s = store_.Touch();  // newer than every copy that was made before
    return s;
  });
  if (status.ok() && wrote && in_place()) marker_.Write();
  marker_.NoteCopy();
  return status;
}

absl::Status SqliteHousekeeper::Between(absl::FunctionRef<absl::Status(SqliteStore&)> work) {
  const absl::Status status = work(store_);
  marker_.NoteCopy();
  return status;
}

// ---- what it looks after ----

void SqliteHousekeeper::LookAtPlace() {
  const absl::Status status = file_->InPlace();
  if (in_place_.exchange(status.ok()) == status.ok()) return;
  if (status.ok()) {
    options_.warn(absl::StrCat("ledger ", path_, ": its files are back in their place"));
    return;
  }
  options_.warn(absl::StrCat(std::string(status.message()),
                             "; nothing new starts until the very files are back; what runs is recorded into the open "
                             "file, which userintent-ledger backup can still copy if it was removed"));
}

void SqliteHousekeeper::LookAtFreeSpace() {
  struct statvfs space {};
  // Where it cannot be told, writing will tell.
  room_ = ::statvfs(DataDirectory(path_).c_str(), &space) != 0 ||
          static_cast<int64_t>(space.f_bavail) * static_cast<int64_t>(space.f_frsize) >= options_.min_free_bytes;
}

// False: all that is old was looked at.
bool SqliteHousekeeper::PurgeSome(GroupCommit& commit) {
  const auto before = [now = now_()](absl::Duration kept) {
    return kept > absl::ZeroDuration() ? now - kept : absl::InfinitePast();
  };
  PurgeAnswer purged;
  const absl::Status s = commit.Transact([&]() -> absl::Status {
    absl::StatusOr<PurgeAnswer> some = Execute(
        store_, PurgeRequest{before(options_.retention), options_.purge_at_once, before(options_.released_retention)});
    if (some.ok()) purged = *some;
    return some.status();
  });
  if (!s.ok()) {
    options_.warn(absl::StrCat(std::string(s.message()), "; old rows stay for now"));
    return false;
  }
  if (purged.purged != 0) marker_.NoteChange();
  if (purged.purged != 0) options_.on_purge(purged.purged);
  return purged.seen != 0;
}

void SqliteHousekeeper::PruneLog(GroupCommit& commit, Time now) {
  const absl::Status s =
      commit.Transact([this] { return store_.PruneLog(options_.watch_history, options_.prune_at_once); });
  if (!s.ok()) options_.warn(absl::StrCat(std::string(s.message()), "; old changes stay for now"));
  prune_at_ = now + absl::ToChronoMilliseconds(options_.prune_interval);
}

// False: no more are old. A ledger is none the newer for what it forgot of them.
bool SqliteHousekeeper::ForgetSomeWebhooks(GroupCommit& commit) {
  size_t forgotten = 0;
  const absl::Status s = commit.Transact([&]() -> absl::Status {
    const absl::StatusOr<size_t> some =
        store_.webhooks().ForgetWebhooks(now_() - kWebhooksKept, options_.purge_at_once);
    if (some.ok()) forgotten = *some;
    return some.status();
  });
  if (!s.ok()) options_.warn(absl::StrCat(std::string(s.message()), "; old webhooks stay for now"));
  return s.ok() && forgotten == options_.purge_at_once;
}

// Tells the other threads and the log when writing stopped or works again.
void SqliteHousekeeper::Report(const GroupCommit& commit) {
  rows_.store(store_.rows(), std::memory_order_relaxed);
  const bool can_write = commit.healthy() && room_;
  writable_.store(can_write && in_place(), std::memory_order_relaxed);
  if (std::exchange(reported_writable_, can_write) == can_write) return;
  if (can_write) {
    options_.warn(absl::StrCat("ledger ", path_, ": can be written again"));
  } else if (!commit.healthy()) {
    options_.warn(absl::StrCat(std::string(commit.last_error().message()), "; nothing new starts, ",
                               commit.waiting_outcomes(), " outcomes wait for the disk"));
  } else {
    options_.warn(
        absl::StrCat("ledger ", path_, ": fewer than ", options_.min_free_bytes, " bytes free; nothing new starts"));
  }
}

}  // namespace userintent::ledger
