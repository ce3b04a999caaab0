#include "server/postgres/member.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace userintent::postgres {
namespace {

constexpr BootNanos kSecond = 1'000'000'000;
constexpr BootNanos kReconnectPause = 200'000'000;
// A COMMIT that is not answered for so long hangs: its standby is gone, or its server.
constexpr BootNanos kHangs = 2 * kSecond;
// Between two questions whether another server has taken the place of one that does not answer.
constexpr BootNanos kAskPause = 3 * kSecond;
constexpr BootNanos kLongestSleep = 200'000'000;
// An end waits so long for the commit that tells the others of it.
constexpr BootNanos kLastMoment = 3 * kSecond;

constexpr char kBeat[] =
    "UPDATE replica SET beat = beat + 1, seen = clock_timestamp() WHERE epoch = $1 AND ended IS NULL RETURNING beat";
constexpr char kOthers[] = "SELECT epoch, beat, ended IS NOT NULL FROM replica WHERE NOT swept";
// Two statements, so that the second one sees every session that was opened before the first one got its lock.
constexpr char kEndReplica[] =
    "UPDATE replica SET ended = clock_timestamp() WHERE epoch = $1 AND beat = $2 AND ended IS NULL";
constexpr char kClose[] =
    "UPDATE session SET open = false WHERE epoch = $1 AND open "
    "AND EXISTS (SELECT 1 FROM replica WHERE epoch = $1 AND ended IS NOT NULL)";
constexpr char kSwept[] =
    "UPDATE replica SET swept = true WHERE epoch = ANY ($1) AND ended IS NOT NULL "
    "AND NOT EXISTS (SELECT 1 FROM request WHERE state = 1 AND owner = replica.epoch)";
constexpr char kLeave[] =
    "UPDATE replica SET ended = clock_timestamp(), swept = NOT EXISTS "
    "(SELECT 1 FROM request WHERE state = 1 AND owner = $1) WHERE epoch = $1 AND ended IS NULL";
constexpr char kServerNow[] =
    "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on', "
    "current_setting('synchronous_commit') IN ('on', 'remote_apply'), current_setting('synchronous_standby_names') <> "
    "'', "
    "(SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')), "
    "coalesce((SELECT extract(epoch FROM clock_timestamp() - min(xact_start)) FROM pg_stat_activity "
    "WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()), 0)::bigint, "
    "current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on'";

double Seconds(BootNanos nanos) { return static_cast<double>(nanos) / 1e9; }

}  // namespace

// So that a beat that hangs is seen, and ended with the thread.
MemberOptions Member::Watched(MemberOptions options) {
  options.connection.while_waiting = [this](BootNanos) {
    if (!runs_.load(std::memory_order_acquire)) return BootNow() < give_up_at_.load(std::memory_order_acquire);
    Judge(BootNow());
    if (Superseded()) return false;
    const MutexLock lock(mutex_);
    return !stop_;
  };
  return options;
}

// A server that was frozen while its standby took its place keeps its connections and answers nothing; what is waited
// for there is waited for in vain. Nothing is concluded from the waiting itself: a standby that is away is
// waited for likewise, and its primary is still the primary.
bool Member::Superseded() {
  const BootNanos now = BootNow();
  if (connection_ == nullptr || place_.timeline == 0 || now - step_at_ < kHangs || now < ask_at_) return false;
  ConnectionOptions options = options_.connection;
  options.while_waiting = [this](BootNanos) {
    const MutexLock lock(mutex_);
    return !stop_;
  };
  const absl::StatusOr<int64_t> newest = TimelineOf(options);
  ask_at_ = BootNow() + kAskPause;
  if (!newest.ok() || *newest <= place_.timeline) return false;
  options_.warn("ledger: another server has become the primary; this one is not waited for any longer");
  superseded_at_.store(BootNow(), std::memory_order_release);
  return true;
}

Member::Member(MemberOptions options)
    : options_(Watched(std::move(options))),
      watch_({absl::ToInt64Nanoseconds(options_.constants.fence), absl::ToInt64Nanoseconds(options_.constants.quiet)}) {
}

Member::~Member() { Stop(false); }

void Member::Run(Hooks hooks) {
  hooks_ = std::move(hooks);
  runs_.store(true, std::memory_order_release);
  thread_ = std::thread([this] { Loop(); });
}

void Member::Stop(bool clean) {
  if (!thread_.joinable()) return;
  {
    const MutexLock lock(mutex_);
    stop_ = true;
    wake_.NotifyAll();
  }
  thread_.join();
  give_up_at_.store(BootNow() + kLastMoment, std::memory_order_release);
  runs_.store(false, std::memory_order_release);
  const MutexLock lock(mutex_);
  if (lease_ != nullptr) lease_->End();
  if (!clean || epoch_ == 0 || connection_ == nullptr || connection_->IsBroken()) return;
  const Statement statements[] = {{kLeave, {epoch_}}, {kClose, {epoch_}}};
  const auto left = connection_->Transact(statements);
  if (!left.ok()) options_.warn(absl::StrCat(std::string(left.status().message()), "; others fence this replica"));
}

ledger::Owner Member::owner() const {
  const MutexLock lock(mutex_);
  return {epoch_, lease_};
}

ledger::Share Member::share() const {
  const MutexLock lock(mutex_);
  return share_;
}

std::vector<int64_t> Member::gone() const {
  const MutexLock lock(mutex_);
  return gone_;
}

bool Member::well() const {
  const MutexLock lock(mutex_);
  return well_.load(std::memory_order_acquire) && lease_ != nullptr && lease_->Holds();
}

MemberReport Member::report() const {
  const bool is_well = well();
  const MutexLock lock(mutex_);
  MemberReport report = report_;
  report.well = is_well;
  report.lease_left = lease_ == nullptr ? -1 : Seconds(lease_->until() - BootNow());
  return report;
}

void Member::Loop() {
  for (;;) {
    const BootNanos now = BootNow();
    if (connection_ == nullptr || connection_->IsBroken()) {
      connection_.reset();
      if (now >= connect_at_) {
        if (const absl::Status s = Connect(); !s.ok()) wrong_ = std::string(s.message());
        connect_at_ = BootNow() + kReconnectPause;
      }
    }
    if (connection_ != nullptr) {
      const absl::Status s = Turn(now);
      if (!s.ok()) wrong_ = std::string(s.message());
    }
    Judge(BootNow());
    const BootNanos due = connection_ == nullptr ? connect_at_ : std::min({beat_at_, look_at_, poll_at_});
    const BootNanos sleep = std::clamp<BootNanos>(due - BootNow(), 1'000'000, kLongestSleep);
    const MutexLock lock(mutex_);
    const auto until = std::chrono::steady_clock::now() + std::chrono::nanoseconds(sleep);
    while (!stop_ && wake_.WaitUntil(mutex_, until)) {
    }
    if (stop_) return;
  }
}

// Everything that is due.
absl::Status Member::Turn(BootNanos now) {
  step_at_ = BootNow();
  if (now >= beat_at_) {
    if (absl::Status s = Beat(); !s.ok()) return s;
    beat_at_ = now + absl::ToInt64Nanoseconds(options_.beat);
  }
  step_at_ = BootNow();
  if (now >= look_at_) {
    if (absl::Status s = LookAtOthers(); !s.ok()) return s;
    if (absl::Status s = LookAtServer(); !s.ok()) return s;
    look_at_ = now + absl::ToInt64Nanoseconds(options_.beat);
  }
  if (now >= poll_at_) {
    poll_at_ = now + kLongestSleep;
    for (Poller* poller : hooks_.pollers) {
      step_at_ = BootNow();
      const absl::StatusOr<BootNanos> next = poller->Turn(*connection_, BootNow());
      if (!next.ok()) return next.status();
      poll_at_ = std::min(poll_at_, *next);
    }
  }
  return absl::OkStatus();
}

// The lease counts from before the beat was sent, and only once its commit is confirmed.
absl::Status Member::Beat() {
  int64_t epoch = 0;
  std::shared_ptr<Lease> lease;
  {
    const MutexLock lock(mutex_);
    epoch = epoch_;
    lease = lease_;
  }
  const BootNanos before = BootNow();
  const Statement statement{kBeat, {epoch}};
  const absl::StatusOr<std::vector<Rows>> beaten = connection_->Transact({&statement, 1});
  if (!beaten.ok()) return beaten.status();
  const Rows& row = beaten->front();
  if (row.size() == 1 && row.Number(0, 0) > beat_) {
    beat_ = row.Number(0, 0);
    lease->Extend(before + absl::ToInt64Nanoseconds(options_.constants.lease));
    return absl::OkStatus();
  }
  lease->End();
  const absl::StatusOr<Rows> known = connection_->Query("SELECT 1 FROM replica WHERE epoch = $1", {epoch});
  if (!known.ok()) return known.status();
  if (row.size() == 1 || known->size() == 0) {
    // What was confirmed is not there: another server, without the last commits, or a restored one.
    options_.on_lost(1);
    return absl::DataLossError("the database has forgotten that this replica beat");
  }
  options_.warn(
      "ledger: another replica took this one for dead and fenced it; what runs is finished, and everything else "
      "goes on under a new epoch");
  {
    const MutexLock lock(mutex_);
    epoch_ = 0;  // until there is a new one
  }
  beat_ = 0;
  return Register(false);
}

absl::Status Member::LookAtOthers() {
  const BootNanos before = BootNow();
  const absl::StatusOr<Rows> rows = connection_->Query(kOthers, std::initializer_list<Value>{});
  if (!rows.ok()) return rows.status();
  const BootNanos after = BootNow();
  std::vector<TakersWatch::Replica> all;
  for (int at = 0; at < rows->size(); ++at)
    all.push_back({rows->Number(at, 0), rows->Number(at, 1), rows->Bool(at, 2)});
  const TakersWatch::Verdict verdict = watch_.Look(all, owner().epoch, before, after);
  {
    const MutexLock lock(mutex_);
    gone_ = verdict.sweep;
    share_ = {verdict.rank, std::max(verdict.alive, verdict.rank + 1)};
    report_.replicas = verdict.alive;
    report_.unswept = verdict.ended;
  }
  for (const TakersWatch::Replica& replica : verdict.fence) {
    if (absl::Status s = Fence(replica); !s.ok() && connection_->IsBroken()) return s;
  }
  if (verdict.sweep.empty()) return absl::OkStatus();
  return connection_->Query(kSwept, {verdict.sweep}).status();
}

absl::Status Member::Fence(const TakersWatch::Replica& replica) {
  const Statement statements[] = {{kEndReplica, {replica.epoch, replica.beat}}, {kClose, {replica.epoch}}};
  const absl::StatusOr<std::vector<Rows>> done = connection_->Transact(statements);
  if (!done.ok()) return done.status();
  if (done->front().touched() > 0) {
    options_.warn(absl::StrCat("ledger: the replica with epoch ", replica.epoch,
                               " gives no sign of life and was fenced; what it had under way becomes unknown after ",
                               absl::FormatDuration(options_.constants.quiet)));
  }
  return absl::OkStatus();
}

absl::Status Member::LookAtServer() {
  const absl::StatusOr<Rows> rows = connection_->Query(kServerNow, std::initializer_list<Value>{});
  if (!rows.ok()) return rows.status();
  wrong_.clear();
  if (rows->Bool(0, 0)) {
    wrong_ = "the server has become read-only";
  } else if (!rows->Bool(0, 1)) {
    wrong_ = "synchronous_commit was taken back";
  } else if (!rows->Bool(0, 5)) {
    wrong_ = "fsync or full_page_writes was turned off, so that the server may forget what it said";
  } else if (!options_.single_node && !rows->Bool(0, 2)) {
    wrong_ = "synchronous_standby_names was emptied, so that a failover may forget what was committed";
  } else if (!options_.single_node && rows->Number(0, 3) == 0) {
    wrong_ = "no standby is in sync";
  }
  const int64_t oldest = rows->Number(0, 4);
  const bool is_long = oldest >= absl::ToInt64Seconds(options_.long_transaction);
  if (std::exchange(told_of_writer_, is_long) != is_long) {
    options_.warn(is_long ? absl::StrCat("ledger: a transaction on the database server has written and is open for ",
                                         oldest,
                                         " s; what watchers are told waits for its end (pg_stat_activity, backend_xid)")
                          : "ledger: no transaction on the database server holds watchers back any more");
  }
  const MutexLock lock(mutex_);
  report_.standbys = rows->Int(0, 3);
  report_.oldest_writer = static_cast<double>(oldest);
  return absl::OkStatus();
}

// Tells the other threads and the log how it stands.
void Member::Judge(BootNanos now) {
  BootNanos since = hooks_.committing_since();
  const BootNanos own = connection_ == nullptr ? 0 : connection_->committing_since();
  if (own != 0 && (since == 0 || own < since)) since = own;
  const BootNanos waits = since == 0 ? 0 : now - since;
  const ledger::Owner mine = owner();
  std::string wrong = wrong_;
  if (waits > kHangs) {
    wrong = "a commit is not answered; its standby or its server is gone";
    hooks_.give_up();
  }
  if (wrong.empty() && (mine.epoch == 0 || !mine.lease->Holds(now))) wrong = "the lease is over";
  {
    const MutexLock lock(mutex_);
    report_.commit_waits = Seconds(waits);
  }
  // A connection that is lost and back within the lease is nobody's concern.
  const bool lease_holds = mine.epoch != 0 && mine.lease->Holds(now);
  const bool away = connection_ == nullptr || connection_->IsBroken();
  const bool well = wrong.empty() || (away && lease_holds && waits <= kHangs);
  well_.store(well, std::memory_order_release);
  if (well && !told_.empty()) options_.warn("ledger: the database keeps the promise again");
  if (!well && told_.empty()) options_.warn(absl::StrCat("ledger: ", wrong, "; nothing new starts"));
  told_ = well ? "" : wrong;
}

}  // namespace userintent::postgres
