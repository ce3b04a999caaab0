// postgres::Store: a ledger::Store in PostgreSQL.
//
// Over a network each question is a round trip, so a transaction of this store lives in memory: Prepare (or a Load that
// was not announced) fetches rows and addresses, Load answers from them, Apply changes them there, and Commit sends all
// changes as arrays, in one transaction and one round trip. No lock is held across a round trip. What holds against
// other replicas: every change of any row of an address raises the address's `version`, and Commit compares and sets
// it; where it lost, nothing is committed and Commit says Aborted. Addresses are fetched before rows, so a row is never
// older than the version that guards it.
//
// Rows that this process runs are kept from their Begin on, so that their Finish needs no fetch.
//
// A transaction that begins something locks its own row of `session` first and finds it open, or is refused: that is
// how a replica is fenced. When the connection is lost during a COMMIT, what became of it is settled before anything
// else is done (store_doubt.cc): what is found is released, never sent.
//
// Single-threaded, as ledger::Store says. Calls wait for the server; see connection.h for how long.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/node_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/time.h"
#include "server/ledger/store.h"
#include "server/postgres/connection.h"
#include "server/postgres/rows.h"
#include "server/postgres/webhooks.h"

namespace userintent::postgres {

struct StoreOptions {
  ConnectionOptions connection;
  // Who this process is at the moment; epoch 0: nobody, so nothing can begin.
  std::function<ledger::Owner()> owner = [] { return ledger::Owner{}; };
  // The epochs whose SENDING rows may be recovered.
  std::function<std::vector<int64_t>()> gone = [] { return std::vector<int64_t>(); };
  // After a reconnect: so many rows that were confirmed are not there. Nothing is done with that database; the process
  // should end, loudly.
  std::function<void(size_t rows)> on_lost = [](size_t) {};
  // Reason number of a row that was begun in a commit whose answer was lost.
  int released_reason = 0;
  absl::Time (*now)() = NowMicros;
};

class Store final : public ledger::Store {
 public:
  // Connected; the schema is there.
  static absl::StatusOr<std::unique_ptr<Store>> Open(StoreOptions options);
  ~Store() override;

  absl::Status Start() override;
  absl::Status Commit() override;
  void Rollback() override;
  bool prepares() const override { return true; }
  absl::Status Prepare(absl::Span<const ledger::Lookup> lookups) override;
  absl::StatusOr<ledger::View> Load(const ledger::Lookup& lookup) override;
  ledger::Owner owner() const override { return owner_; }  // as of Start
  absl::StatusOr<std::vector<ledger::Row>> Sending(size_t limit) override;
  absl::StatusOr<ledger::OldRows> NextOldRows(absl::Time created_before, size_t limit) override;
  absl::StatusOr<ledger::TraceAnswer> Trace(const ledger::TraceRequest& request) override;
  absl::StatusOr<ledger::SucceededAnswer> Succeeded(const ledger::SucceededRequest& request) override;
  absl::StatusOr<ledger::UnresolvedAnswer> Unresolved() override;
  absl::StatusOr<ledger::LogSlice> ReadLog(const ledger::LogLookup& lookup) override;
  // Changes are told by ChangePoller, this process's own among everybody's.
  int64_t logged() const override { return 0; }
  std::vector<ledger::Change> TakeLogged() override { return {}; }
  absl::Status Apply(ledger::Changes changes) override;
  absl::Status Touch() override;
  Webhooks& webhooks() override { return webhooks_; }

  // Between transactions; reconnects where it must.
  absl::StatusOr<Connection*> Connected();
  // The last one that was of use; lasts until the next call.
  Connection* connection() { return connection_.get(); }
  // Round trips so far, for tests and metrics.
  int64_t round_trips() const { return round_trips_; }
  // Any thread: rows whose begin is in doubt; nothing starts while there are any.
  size_t in_doubt() const { return in_doubt_.load(std::memory_order_relaxed); }

  // Any thread: since when a commit, a fetch or a reconnect waits for its answer; 0: none does.
  BootNanos committing_since() const { return waiting_since_.load(std::memory_order_acquire); }

 private:
  // While it lives, the server is waited for. The outermost one counts.
  class Waiting {
   public:
    explicit Waiting(std::atomic<BootNanos>& since)
        : since_(since), outer_(since.load(std::memory_order_relaxed) == 0) {
      if (outer_) since_.store(BootNow(), std::memory_order_release);
    }
    ~Waiting() {
      if (outer_) since_.store(0, std::memory_order_release);
    }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

   private:
    std::atomic<BootNanos>& since_;
    const bool outer_;
  };
  // A row as the transaction has it.
  struct Held {
    std::optional<ledger::Row> stored;  // in the database, when it was fetched
    std::optional<ledger::Row> now;
    bool progress = false, whole = false, latest = false;  // what changed
  };
  struct HeldAddress {
    AddressState stored;
    ledger::Counters counters;  // now
    ledger::Counters purged;    // more of them than stored
    bool touched = false;       // a row changed, or a count: the version grows
  };
  struct Move {
    int64_t id = 0;  // of the address that is moved
    int64_t version = 0;
    ledger::Digest to{};
    int64_t into = 0;  // 0: it gets a new digest; else its rows go to that address, and it is dropped
  };
  // What one fetch asks.
  struct Wants {
    std::vector<std::string> callers;  // of keys
    std::vector<Uuid> ids;
    std::vector<ledger::Digest> emails;       // addresses
    std::vector<ledger::Digest> open;         // addresses, their open rows and persons
    std::vector<ledger::Digest> persons;      // of these
    std::vector<std::string> linked_callers;  // of keys whose rows' superseded and superseding rows are wanted
    std::vector<Uuid> linked_ids;
    std::vector<const ledger::Lookup*> intents;
    bool empty() const {
      return ids.empty() && emails.empty() && open.empty() && linked_ids.empty() && intents.empty();
    }
  };

  explicit Store(StoreOptions options)
      : options_(std::move(options)),
        webhooks_({[this] { return connection_.get(); }, [this] { return options_.owner().epoch; }}) {}

  absl::Status Connect();
  absl::Status EnsureSession();

  // store_load.cc
  void Want(const ledger::Lookup& lookup, Wants& wants);
  absl::Status Fetch(const Wants& wants);
  void Keep(const Rows& rows);
  absl::Status Take(const Rows& rows);
  absl::Status FetchKey(const ledger::Key& key);
  absl::Status FetchAddress(const ledger::Digest& email);
  const ledger::Row* Find(const ledger::Key& key) const;
  const ledger::Row* FindLinked(const ledger::Row& own, const Uuid& id, bool own_replaces) const;
  const ledger::Row* FindPerson(const ledger::Lookup& lookup) const;
  std::vector<ledger::Row> OpenOf(const ledger::Lookup& lookup) const;
  std::vector<const ledger::Row*> RowsOf(const ledger::Digest& email) const;

  // store_apply.cc
  void Put(ledger::RowChange&& change);
  HeldAddress& Touched(const ledger::Digest& email);
  void MoveEmail(const ledger::Digest& from, const ledger::Digest& to);
  void MovePerson(const ledger::Changes::PersonMove& move);

  // store_commit.cc
  // Which statements of a commit made new ones, and answer their numbers; SIZE_MAX: none does.
  struct Made {
    size_t addresses_at = SIZE_MAX;
    size_t rows_at = SIZE_MAX;
  };
  void AddAddresses(std::vector<Statement>& out, Made& made) const;
  void AddRows(std::vector<Statement>& out, Made& made) const;
  void AddRecords(std::vector<Statement>& out) const;
  void Settled(const std::vector<Rows>& answers, const Made& made);
  void TakeNumbers(const std::vector<Rows>& answers, const Made& made);
  void Lost();
  void Clear();

  // store_loss.cc
  void Remember(const ledger::Row& row);
  absl::Status CheckNothingLost(Connection& connection);

  // store_doubt.cc
  void Doubt();
  absl::Status ResolveDoubt();

  const StoreOptions options_;
  std::unique_ptr<Connection> connection_;  // never null once Open has succeeded; it may be broken
  Webhooks webhooks_;
  ledger::Owner owner_;
  bool open_ = false;  // a transaction is
  int64_t session_ = 0;
  int64_t session_epoch_ = 0;
  int64_t round_trips_ = 0;
  std::atomic<BootNanos> waiting_since_{0};
  int64_t old_to_ = 0;  // the row where NextOldRows goes on

  // Of the open transaction.
  absl::node_hash_map<ledger::Key, Held, ledger::KeyHash> rows_;
  absl::node_hash_map<ledger::Digest, HeldAddress> addresses_;
  absl::flat_hash_map<ledger::Digest, std::vector<ledger::Key>> by_email_;
  absl::flat_hash_set<ledger::Digest> opened_;                              // addresses whose open rows were fetched
  absl::flat_hash_set<std::pair<ledger::Digest, ledger::Digest>> persons_;  // of an address, that were asked for
  absl::flat_hash_map<std::string, ledger::Key>
      intents_;  // "caller\nintent": the row; one without an id: there is none
  std::vector<Move> moves_;
  std::vector<ledger::Changes::PersonMove> person_moves_;
  std::vector<ledger::AuditEntry> audit_;
  std::vector<ledger::Conflict> conflicts_;
  std::vector<ledger::Key> log_;
  bool touch_ = false;

  // Rows that this process runs, and their addresses, as the database has them.
  absl::flat_hash_map<ledger::Key, ledger::Row, ledger::KeyHash> running_;
  absl::flat_hash_map<ledger::Digest, AddressState> kept_;
  std::deque<ledger::Key> ended_;             // the last ones that ended here for ever
  absl::flat_hash_set<std::string> callers_;  // that have a row in `caller`

  struct Begun {
    ledger::Key key;
    Uuid attempt_id{};
    int64_t owner = 0;
  };
  struct InDoubt {
    int64_t session = 0;  // 0: nothing is in doubt
    std::vector<Begun> begun;
  };
  InDoubt doubt_;
  std::atomic<size_t> in_doubt_{0};  // doubt_.begun, for other threads
};

}  // namespace userintent::postgres
