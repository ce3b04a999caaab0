#include "server/ledger/sqlite_ledger.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/ledger/backup.h"

namespace userintent::ledger {
namespace {

constexpr size_t kRecoverAtOnce = 1000;
constexpr std::chrono::seconds kLookAtFreeSpaceEvery{1};

bool MayWrite(const Op& op) { return !std::holds_alternative<GetOp>(op) && !std::holds_alternative<ForgetOp>(op); }

}  // namespace

absl::StatusOr<size_t> RecoverAll(SqliteStore& store, const SqliteStoreOptions& options, int unknown_reason) {
  size_t all = 0;
  for (;;) {
    if (absl::Status s = store.Start(); !s.ok()) return s;
    const absl::StatusOr<size_t> some = Execute(store, RecoverRequest{unknown_reason, options.now(), kRecoverAtOnce});
    if (!some.ok()) return some.status();
    if (options.crash_point != nullptr) options.crash_point("during-recovery");
    if (absl::Status s = store.Commit(); !s.ok()) return s;
    all += *some;
    if (*some == 0) return all;
  }
}

absl::StatusOr<std::unique_ptr<SqliteLedger>> SqliteLedger::Open(SqliteLedgerOptions options) {
  OpeningOptions opening;
  opening.store = options.store;
  opening.must_exist = options.must_exist;
  opening.restored = options.restored;
  opening.warn = options.warn;
  absl::StatusOr<OpenedFiles> files = OpenFiles(opening);
  if (!files.ok()) return files.status();
  if (files->file->volatile_storage()) {
    options.warn(absl::StrCat("ledger ", options.store.path,
                              ": lies in memory (tmpfs); a reboot empties it and voids the promise"));
  }
  const absl::StatusOr<size_t> recovered = RecoverAll(*files->store, options.store, options.unknown_reason);
  if (!recovered.ok()) return recovered.status();
  return std::unique_ptr<SqliteLedger>(new SqliteLedger(std::move(options), *std::move(files), *recovered));
}

SqliteLedger::SqliteLedger(SqliteLedgerOptions options, OpenedFiles files, size_t recovered)
    : options_(std::move(options)),
      made_(files.made),
      restored_(files.restored),
      file_(std::move(files.file)),
      recovered_(recovered),
      needed_keys_(files.store->needed_keys()),
      made_at_(absl::FromUnixMicros(files.store->made_at())),
      rows_(files.store->rows()),
      store_(std::move(files.store)),
      front_(*store_, options_.unknown_reason, options_.store.crash_point, options_.waiters),
      marker_(*store_, options_.store.path, files.acknowledged, options_.mark_interval, options_.warn) {
  marker_.Write();
  writer_ = std::thread([this] { Write(); });
}

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

absl::Status SqliteLedger::Transact(OperatorAccess::Work work) {
  return Administer([&work](SqliteStore& store) { return work(store, store); });
}

absl::StatusOr<BackupReport> SqliteLedger::BackUp(const BackupOptions& options) {
  return ledger::BackUp([this](Work work) { return Between(work); }, options);
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
    absl::StatusOr<PurgeAnswer> some =
        Execute(*store_, PurgeRequest{options_.store.now() - options_.retention, options_.purge_at_once});
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

void SqliteLedger::Look(Steady::time_point now) {
  if (now >= look_at_place_) {
    LookAtPlace();
    look_at_place_ = now + absl::ToChronoNanoseconds(options_.look_interval);
  }
  if (now >= look_at_space_) {
    LookAtFreeSpace();
    look_at_space_ = now + kLookAtFreeSpaceEvery;
  }
  front_.set_admit(room_ && InPlace());
  front_.set_resend(InPlace());
}

void SqliteLedger::LookAtPlace() {
  const absl::Status status = file_->InPlace();
  if (in_place_.exchange(status.ok()) == status.ok()) return;
  if (status.ok()) {
    options_.warn(absl::StrCat("ledger ", options_.store.path, ": its files are back in their place"));
    return;
  }
  options_.warn(absl::StrCat(std::string(status.message()),
                             "; nothing new starts until the very files are back; what runs is recorded into the open "
                             "file, which userintent-ledger backup can still copy if it was removed"));
}

void SqliteLedger::LookAtFreeSpace() {
  struct statvfs space {};
  // Where it cannot be told, writing will tell.
  room_ = ::statvfs(DataDirectory(options_.store.path).c_str(), &space) != 0 ||
          static_cast<int64_t>(space.f_bavail) * static_cast<int64_t>(space.f_frsize) >= options_.min_free_bytes;
}

// Tells the world and the log when writing stopped or works again.
void SqliteLedger::Report() {
  rows_.store(store_->rows(), std::memory_order_relaxed);
  const bool can_write = front_.healthy() && room_;
  writable_.store(can_write && InPlace(), std::memory_order_relaxed);
  if (std::exchange(reported_writable_, can_write) == can_write) return;
  if (can_write) {
    options_.warn(absl::StrCat("ledger ", options_.store.path, ": can be written again"));
  } else if (!front_.healthy()) {
    options_.warn(absl::StrCat(std::string(front_.last_error().message()), "; nothing new starts, ",
                               front_.waiting_outcomes(), " outcomes wait for the disk"));
  } else {
    options_.warn(absl::StrCat("ledger ", options_.store.path, ": fewer than ", options_.min_free_bytes,
                               " bytes free; nothing new starts"));
  }
}

// When the writer has something to do though nobody brings it work. Under mutex_, on the writer's thread.
SqliteLedger::Steady::time_point SqliteLedger::WakeAt() const {
  auto at = look_at_place_ - absl::ToChronoNanoseconds(options_.look_interval) +
            absl::ToChronoNanoseconds(options_.idle_look_interval);
  if (!front_.healthy()) return std::min(at, retry_at_);
  if (!room_) return std::min(at, look_at_space_);
  if (!InPlace()) return at;  // old rows wait until the files are back
  return options_.retention > absl::ZeroDuration() ? std::min(at, purge_at_) : at;
}

SqliteLedger::Turn SqliteLedger::Take() {
  Turn turn;
  std::unique_lock<std::mutex> lock(mutex_);
  const auto awake = [this] { return stop_ || !queue_.empty() || !jobs_.empty(); };
  if (!awake()) {
    idle_ = true;
    wake_.wait_until(lock, WakeAt(), awake);
    idle_ = false;
  }
  const auto count = static_cast<std::ptrdiff_t>(std::min(queue_.size(), options_.max_batch));
  std::move(queue_.begin(), queue_.begin() + count, std::back_inserter(turn.batch));
  queue_.erase(queue_.begin(), queue_.begin() + count);
  if (!jobs_.empty()) {
    turn.job = jobs_.front();
    jobs_.pop_front();
  }
  turn.stopping = stop_ && turn.batch.empty() && turn.job == nullptr;
  return turn;
}

void SqliteLedger::Retry(Steady::time_point now, bool stopping) {
  if (front_.healthy() || (now < retry_at_ && !stopping)) return;
  if (front_.Retry()) return;
  pause_ = std::min(2 * pause_, absl::ToChronoMilliseconds(options_.retry_most));
  retry_at_ = now + pause_;
}

void SqliteLedger::RunBatch(std::vector<Op> batch, Steady::time_point now) {
  if (front_.healthy() && std::any_of(batch.begin(), batch.end(), MayWrite)) {
    if (marker_.Due(now) && InPlace()) marker_.Advance(front_, now);
    marker_.NoteChange();
  }
  BatchReport report;
  report.operations = batch.size();
  front_.Run(std::move(batch));
  report.took = absl::FromChrono(Steady::now() - now);
  report.committed = front_.healthy();
  report.waiting_outcomes = front_.waiting_outcomes();
  options_.on_batch(report);
}

void SqliteLedger::RunJob(Job* job) {
  std::promise<absl::Status> done = std::move(job->done);  // the job is gone as soon as this is kept
  bool wrote = false;
  const auto work = [&] {
    const int before = store_->changes();
    absl::Status s = job->work(*store_);
    wrote = s.ok() && job->in_transaction && store_->changes() != before;
    if (wrote) s = store_->Touch();  // newer than every copy that was made before
    return s;
  };
  const absl::Status status = job->in_transaction ? front_.Transact(work) : work();
  if (status.ok() && wrote && InPlace()) marker_.Write();
  marker_.NoteCopy();  // the work may have been a backup
  done.set_value(status);
}

void SqliteLedger::Write() {
  pause_ = absl::ToChronoMilliseconds(options_.retry_first);
  const bool purges = options_.retention > absl::ZeroDuration();
  for (;;) {
    Turn turn = Take();
    const auto now = Steady::now();
    Look(now);
    Retry(now, turn.stopping);
    if (turn.stopping) break;
    const bool before = front_.healthy();
    if (turn.batch.empty() && turn.job == nullptr && purges && front_.healthy() && room_ && InPlace() &&
        now >= purge_at_) {
      const absl::Duration wait = PurgeSome() ? options_.purge_interval : options_.purge_pause;
      purge_at_ = now + absl::ToChronoMilliseconds(wait);
    }
    if (!turn.batch.empty()) RunBatch(std::move(turn.batch), now);
    if (turn.job != nullptr) RunJob(turn.job);
    if (before && !front_.healthy()) {
      pause_ = absl::ToChronoMilliseconds(options_.retry_first);
      retry_at_ = Steady::now() + pause_;
    }
    Report();
    if (front_.healthy()) {
      const absl::Status copied = store_->CheckpointIfLong();
      if (!copied.ok() && log_copied_) options_.warn(std::string(copied.message()));
      log_copied_ = copied.ok();
    }
  }
  EndWriting();
}

void SqliteLedger::EndWriting() {
  if (front_.waiting_outcomes() != 0) {
    options_.warn(absl::StrCat("ledger ", options_.store.path, ": ", front_.waiting_outcomes(),
                               " outcomes could not be written; their requests stay unknown"));
  }
  LookAtPlace();
  if (front_.healthy() && InPlace() && marker_.changed()) marker_.Advance(front_, Steady::now());
}

}  // namespace userintent::ledger
