// postgres::Member: this process as one of the replicas that share a ledger.
//
// Owns connection C and the thread that uses it: registers an epoch, beats, watches the others and fences those that
// are dead, says whose rows may be swept, watches whether the database still keeps the promise, and gives the pollers
// their turns. It sends nothing and frees nothing.
//
// Fenced by another replica (its own row is ended): the lease of that epoch is over for ever, what runs is finished
// under the old epoch, and everything else goes on under a fresh one.
//
// Everything public may be called from any thread, unless it says otherwise.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/mutex.h"
#include "server/ledger/ledger.h"
#include "server/postgres/connection.h"
#include "server/postgres/poller.h"
#include "server/postgres/takers_watch.h"

namespace userintent::postgres {

// What all replicas of one ledger must have in common; kept in its table `setting`.
struct Constants {
  absl::Duration lease = absl::Seconds(5);   // so long after a beat may a request begin to leave
  absl::Duration fence = absl::Seconds(10);  // so long without a beat: dead
  absl::Duration quiet = absl::Seconds(35);  // so long after that runs nothing of it any more
};

struct MemberOptions {
  ConnectionOptions connection;
  std::string name;  // shown to operators
  Constants constants;
  uint64_t key_id = 0;
  std::vector<uint64_t> previous_key_ids;
  std::string environment;   // Astra's; empty: it cannot be told
  bool single_node = false;  // no standby is needed
  bool migrate = false;      // bring the schema up to date
  absl::Duration beat = absl::Seconds(1);
  // A transaction that has written and stays open holds back what watchers are told: so long, and the log says so.
  absl::Duration long_transaction = absl::Seconds(60);
  std::function<void(const std::string&)> warn = [](const std::string&) {};
  // As StoreOptions::on_lost.
  std::function<void(size_t rows)> on_lost = [](size_t) {};
};

// For metrics and health.
struct MemberReport {
  bool well = true;          // the lease holds, the database keeps the promise, and no commit hangs
  int replicas = 0;          // that beat, this one among them
  int unswept = 0;           // that have ended, and whose rows are not swept
  int standbys = 0;          // in sync
  double lease_left = 0;     // seconds; below 0: it is over
  double commit_waits = 0;   // seconds for which the answer to a COMMIT is waited for
  double oldest_writer = 0;  // seconds since the oldest open transaction of the server began
};

class Member {
 public:
  // Connects, checks what the promise needs, and registers. Everything that it refuses is one line.
  static absl::StatusOr<std::unique_ptr<Member>> Join(MemberOptions options);
  ~Member();
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;

  // Once, before Run: what the database holds for all replicas.
  uint64_t ledger_id() const { return ledger_id_; }
  int64_t restored() const { return restored_; }  // when an operator last acknowledged a restore, Unix microseconds
  absl::Time made_at() const { return made_at_; }
  absl::StatusOr<int64_t> LastRevision();

  // Begins to beat and to watch. `hooks` outlive Stop.
  struct Hooks {
    std::vector<Poller*> pollers;
    std::function<BootNanos()> committing_since = [] { return BootNanos{0}; };
    std::function<void()> give_up = [] {};  // a commit hangs: what waits behind it need not
  };
  void Run(Hooks hooks);
  // Ends the thread. `clean`: every row of this process has ended, so nobody need wait for the lease.
  void Stop(bool clean);

  ledger::Owner owner() const;
  ledger::Share share() const;
  std::vector<int64_t> gone() const;  // epochs whose SENDING rows may be recovered
  MemberReport report() const;
  // Whether a connection that was opened at that time may be to a server whose place another one has taken.
  bool superseded(BootNanos opened) const { return opened < superseded_at_.load(std::memory_order_acquire); }
  // What the thread saw last, and the lease as it is now: the thread may be held up by a server that does not answer.
  bool well() const;

 private:
  explicit Member(MemberOptions options);
  MemberOptions Watched(MemberOptions options);

  // Where the ledger is.
  struct Place {
    std::string database;  // empty: it cannot be told
    int64_t timeline = 0;  // likewise
  };

  absl::Status Connect();
  absl::Status CheckServer();
  absl::Status CheckSchema();
  absl::Status Register(bool first);
  absl::Status UseKey(bool alone);
  absl::Status UseConstants(bool alone);
  absl::Status UseEnvironment();
  static absl::StatusOr<Place> ReadPlace(Connection& connection);
  absl::Status UsePlace();
  absl::Status ReadLife();

  static absl::StatusOr<int64_t> TimelineOf(const ConnectionOptions& options);

  void Loop();
  bool Superseded();
  absl::Status Turn(BootNanos now);
  absl::Status Beat();
  absl::Status LookAtOthers();
  absl::Status LookAtServer();
  absl::Status Fence(const TakersWatch::Replica& replica);
  void Judge(BootNanos now);

  const MemberOptions options_;
  std::unique_ptr<Connection> connection_;
  Place place_;  // of the connection
  TakersWatch watch_;
  uint64_t ledger_id_ = 0;
  int64_t restored_ = 0;
  absl::Time made_at_;
  Hooks hooks_;

  mutable Mutex mutex_;
  CondVar wake_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<Lease> lease_ ABSL_GUARDED_BY(mutex_);
  std::vector<int64_t> gone_ ABSL_GUARDED_BY(mutex_);
  ledger::Share share_ ABSL_GUARDED_BY(mutex_);
  MemberReport report_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> well_{true};
  std::atomic<bool> runs_{false};
  std::atomic<BootNanos> superseded_at_{0};
  std::atomic<BootNanos> give_up_at_{
      std::numeric_limits<BootNanos>::max()};  // what Stop waits for, it waits for until then

  // The thread's own.
  int64_t beat_ = 0;  // the last one that was confirmed
  BootNanos beat_at_ = 0;
  BootNanos look_at_ = 0;
  BootNanos poll_at_ = 0;
  BootNanos connect_at_ = 0;
  BootNanos step_at_ = 0;  // the last time that it went on
  BootNanos ask_at_ = 0;
  std::string wrong_;  // why the database does not keep the promise; empty: it does
  std::string told_;   // of that, in the log
  bool told_of_writer_ = false;
  std::thread thread_;
};

}  // namespace userintent::postgres
