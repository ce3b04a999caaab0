#include "server/ledger/sqlite_ledger.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace userintent::ledger {
namespace {

using Steady = std::chrono::steady_clock;

constexpr size_t kRecoverAtOnce = 1000;
constexpr std::chrono::seconds kLookAtFreeSpaceEvery{1};

}  // namespace

absl::StatusOr<size_t> RecoverAll(SqliteStore& store, const SqliteStoreOptions& options, int unknown_reason) {
  Book book(store);
  size_t all = 0;
  for (;;) {
    if (absl::Status s = store.Start(); !s.ok()) return s;
    const absl::StatusOr<size_t> some = book.Recover(unknown_reason, options.now(), kRecoverAtOnce);
    if (!some.ok()) return some.status();
    if (options.crash_point != nullptr) options.crash_point("during-recovery");
    if (absl::Status s = store.Commit(); !s.ok()) return s;
    all += *some;
    if (*some == 0) return all;
  }
}

absl::StatusOr<std::unique_ptr<SqliteLedger>> SqliteLedger::Open(SqliteLedgerOptions options) {
  absl::StatusOr<std::unique_ptr<LedgerFile>> file = LedgerFile::Open(options.store.path);
  if (!file.ok()) return file.status();
  if ((*file)->volatile_storage()) {
    options.warn(absl::StrCat("ledger ", options.store.path,
                              ": lies in memory (tmpfs); a reboot empties it and voids the promise"));
  }
  absl::StatusOr<std::unique_ptr<SqliteStore>> store = SqliteStore::Open(options.store);
  if (!store.ok()) return store.status();
  const absl::StatusOr<size_t> recovered = RecoverAll(**store, options.store, options.unknown_reason);
  if (!recovered.ok()) return recovered.status();
  return std::unique_ptr<SqliteLedger>(
      new SqliteLedger(std::move(options), *std::move(file), *std::move(store), *recovered));
}

SqliteLedger::SqliteLedger(SqliteLedgerOptions options, std::unique_ptr<LedgerFile> file,
                           std::unique_ptr<SqliteStore> store, size_t recovered)
    : options_(std::move(options)),
      file_(std::move(file)),
      recovered_(recovered),
      needed_keys_(store->needed_keys()),
      store_(std::move(store)),
      book_(*store_),
      front_(*store_, book_, options_.unknown_reason, options_.store.crash_point, options_.waiters),
      writer_([this] { Write(); }) {}

SqliteLedger::~SqliteLedger() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    wake_.notify_one();
  }
  writer_.join();
}

void SqliteLedger::Wake() {
  if (std::exchange(idle_, false)) wake_.notify_one();
}

void SqliteLedger::Run(Op op) {
  const std::lock_guard<std::mutex> lock(mutex_);
  queue_.push_back(std::move(op));
  Wake();
}

absl::Status SqliteLedger::Administer(Work work) { return Await({work, true, {}}); }

absl::Status SqliteLedger::Between(Work work) { return Await({work, false, {}}); }

absl::Status SqliteLedger::Await(Job job) {
  std::future<absl::Status> done = job.done.get_future();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(&job);
    Wake();
  }
  return done.get();
}

// False: all that is old was looked at.
bool SqliteLedger::PurgeSome() {
  PurgeAnswer purged;
  const absl::Status s = front_.Transact([&]() -> absl::Status {
    absl::StatusOr<PurgeAnswer> some = book_.Purge(options_.store.now() - options_.retention, options_.purge_at_once);
    if (some.ok()) purged = *some;
    return some.status();
  });
  if (!s.ok()) {
    options_.warn(absl::StrCat(std::string(s.message()), "; old rows stay for now"));
    return false;
  }
  if (purged.purged != 0) options_.on_purge(purged.purged);
  return purged.seen != 0;
}

void SqliteLedger::LookAtFreeSpace() {
  struct statvfs space {};
  // Where it cannot be told, writing will tell.
  room_ = ::statvfs(file_->directory().c_str(), &space) != 0 ||
          static_cast<int64_t>(space.f_bavail) * static_cast<int64_t>(space.f_frsize) >= options_.min_free_bytes;
  front_.set_admit(room_);
}

// Tells the world and the log when writing stopped or works again.
void SqliteLedger::Report() {
  const bool writable = front_.healthy() && room_;
  writable_.store(writable, std::memory_order_relaxed);
  if (std::exchange(reported_writable_, writable) == writable) return;
  if (writable) {
    options_.warn(absl::StrCat("ledger ", options_.store.path, ": can be written again"));
  } else if (!front_.healthy()) {
    options_.warn(absl::StrCat(std::string(front_.last_error().message()), "; nothing new starts, ",
                               front_.waiting_outcomes(), " outcomes wait for the disk"));
  } else {
    options_.warn(absl::StrCat("ledger ", options_.store.path, ": fewer than ", options_.min_free_bytes,
                               " bytes free; nothing new starts"));
  }
}

void SqliteLedger::Write() {
  auto look_at_space = Steady::now();
  auto retry_at = Steady::time_point::max();
  auto pause = absl::ToChronoMilliseconds(options_.retry_first);
  const bool purges = options_.retention > absl::ZeroDuration();
  auto purge_at = Steady::now();
  std::vector<Op> batch;
  for (;;) {
    bool stopping = false;
    Job* job = nullptr;
    batch.clear();
    {
      std::unique_lock<std::mutex> lock(mutex_);
      const auto awake = [this] { return stop_ || !queue_.empty() || !jobs_.empty(); };
      if (!awake()) {
        idle_ = true;
        if (!front_.healthy()) {
          wake_.wait_until(lock, retry_at, awake);
        } else if (!room_) {
          wake_.wait_until(lock, look_at_space, awake);
        } else if (purges) {
          wake_.wait_until(lock, purge_at, awake);
        } else {
          wake_.wait(lock, awake);
        }
        idle_ = false;
      }
      const size_t count = std::min(queue_.size(), options_.max_batch);
      std::move(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(count), std::back_inserter(batch));
      queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(count));
      if (!jobs_.empty()) {
        job = jobs_.front();
        jobs_.pop_front();
      }
      stopping = stop_ && batch.empty() && job == nullptr;
    }
    const auto now = Steady::now();
    if (now >= look_at_space) {
      LookAtFreeSpace();
      look_at_space = now + kLookAtFreeSpaceEvery;
    }
    if (!front_.healthy() && (now >= retry_at || stopping)) {
      if (!front_.Retry()) {
        pause = std::min(2 * pause, absl::ToChronoMilliseconds(options_.retry_most));
        retry_at = now + pause;
      }
    }
    if (stopping) break;
    const bool before = front_.healthy();
    if (batch.empty() && job == nullptr && purges && front_.healthy() && room_ && now >= purge_at) {
      const absl::Duration wait = PurgeSome() ? options_.purge_interval : options_.purge_pause;
      purge_at = now + absl::ToChronoMilliseconds(wait);
    }
    if (!batch.empty()) {
      BatchReport report;
      report.operations = batch.size();
      front_.Run(std::move(batch));
      report.took = absl::FromChrono(Steady::now() - now);
      report.committed = front_.healthy();
      report.waiting_outcomes = front_.waiting_outcomes();
      options_.on_batch(report);
    }
    if (job != nullptr) {
      std::promise<absl::Status> done = std::move(job->done);  // the job is gone as soon as this is kept
      const auto work = [&] { return job->work(*store_, book_); };
      done.set_value(job->in_transaction ? front_.Transact(work) : work());
    }
    if (before && !front_.healthy()) {
      pause = absl::ToChronoMilliseconds(options_.retry_first);
      retry_at = Steady::now() + pause;
    }
    Report();
    if (front_.healthy()) {
      const absl::Status copied = store_->CheckpointIfLong();
      if (!copied.ok() && log_copied_) options_.warn(std::string(copied.message()));
      log_copied_ = copied.ok();
    }
  }
  if (front_.waiting_outcomes() != 0) {
    options_.warn(absl::StrCat("ledger ", options_.store.path, ": ", front_.waiting_outcomes(),
                               " outcomes could not be written; their requests stay unknown"));
  }
}

}  // namespace userintent::ledger
