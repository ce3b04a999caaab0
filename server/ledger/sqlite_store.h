// ledger::SqliteStore: a Store in one SQLite file, over one connection of its own, and its Inspector.
//
// Single-threaded like every Store; it may move to another thread between two operations. A transaction is durable when
// Commit returns: WAL with synchronous=FULL. locking_mode=EXCLUSIVE keeps other processes out, needs no shared memory
// file, and avoids a WAL bug of SQLite before 3.51.3 that takes two connections.
//
// Rows hold an internal number for their e-mail address, so that a key rotation moves an address with all its rows by
// changing one digest. Rows and addresses lie in the order of their arrival; what they are found by, which is random,
// lies in three merged indexes (sqlite_merged_index.h).
//
// sqlite_open.cc opens and checks, sqlite_lookups.cc and sqlite_searches.cc load, sqlite_store.cc applies,
// sqlite_log.cc keeps the change log, sqlite_webhooks.cc webhooks, sqlite_inspector.cc answers operators.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/inspector.h"
#include "server/ledger/restored.h"
#include "server/ledger/sqlite_connection.h"
#include "server/ledger/sqlite_merged_index.h"
#include "server/ledger/sqlite_webhooks.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

struct SqliteStoreOptions {
  std::string path;
  // Fingerprints::key_id of the ledger's key, and of the keys before it. A ledger that was last used with any other key
  // is refused: it would know nobody, and the promise would be void. So is one with rows under a key that is not given.
  uint64_t key_id = 0;
  std::vector<uint64_t> previous_key_ids;
  // Which of Astra's environments it is used with, by any name; empty where that cannot be told. The first name is
  // kept, and a ledger of another one is refused: it would count the attempts of other persons.
  std::string environment;
  // For an operator's tool: the ledger must be there already, and its key is not asked for, because nothing is looked
  // up by a hash.
  bool for_operator = false;
  // With that, for a copy to be made of it: it is neither brought up to date nor made ready for calls.
  bool as_it_is = false;
  // With for_operator, for a file that only this process reads: every page and every index is checked, and nothing is
  // written, not even beside it. `cancelled` is asked while that lasts.
  bool inspect = false;
  std::function<bool()> cancelled = nullptr;
  // Every page and every index is checked, however large the file is. `inspect` does so, too.
  bool check_whole = false;
  // Of a file of more pages only some are checked at a start.
  int64_t pages_to_check_whole = 60'000;
  absl::Time (*now)() = absl::Now;
  void (*crash_point)(std::string_view name) = nullptr;
  // The write-ahead log is copied into the database when it holds this many pages of 4 KiB. Calls wait meanwhile, so
  // rather often than long; a longer log costs no less, because random pages repeat little.
  int long_log_pages = 1000;
  MergeOptions merge;
  // A key was forgotten, or two rows have one: nothing that this store says is to be relied on, and every Start fails.
  // The process should end, loudly; the next start reads everything anew, and refuses a file that is at fault.
  std::function<void(const std::string& why)> on_broken = [](const std::string&) {};
  // Also one that has been copied elsewhere (moved.h), which is refused otherwise: for who copies it.
  bool moved_too = false;
  // For tests only: another SQLite VFS; and NORMAL, to show that a power cut then breaks the promise.
  const char* vfs = nullptr;
  bool synchronous_normal = false;
};

class SqliteStore : public Store, public Inspector {
 public:
  // Opens or makes the database and checks it: readable by us, not newer than us, undamaged, our key, counters equal to
  // the sum over the rows. Does not recover (Execute(RecoverRequest)).
  static absl::StatusOr<std::unique_ptr<SqliteStore>> Open(const SqliteStoreOptions& options);
  ~SqliteStore() override;
  SqliteStore(const SqliteStore&) = delete;
  SqliteStore& operator=(const SqliteStore&) = delete;

  absl::Status Start() override;
  absl::Status Commit() override;
  void Rollback() override;
  absl::StatusOr<View> Load(const Lookup& lookup) override;
  absl::StatusOr<std::vector<Row>> Sending(size_t limit) override;
  absl::StatusOr<OldRows> NextOldRows(absl::Time created_before, size_t limit) override;
  absl::StatusOr<TraceAnswer> Trace(const TraceRequest& request) override;
  absl::StatusOr<SucceededAnswer> Succeeded(const SucceededRequest& request) override;
  absl::StatusOr<UnresolvedAnswer> Unresolved() override;
  absl::StatusOr<LogSlice> ReadLog(const LogLookup& lookup) override;
  int64_t logged() const override { return logged_; }
  std::vector<Change> TakeLogged() override { return std::exchange(committed_log_, {}); }
  absl::Status Apply(Changes changes) override;
  absl::Status Touch() override;
  SqliteWebhooks& webhooks() override { return webhooks_; }

  absl::StatusOr<std::vector<Row>> WithId(const Uuid& request_id) override;
  absl::StatusOr<std::vector<Row>> Oldest(State state, absl::Time created_before, bool not_superseded,
                                          size_t limit) override;
  absl::StatusOr<Counters> Count(const std::vector<Digest>& emails) override;
  absl::StatusOr<bool> AddOfAddresses(const std::vector<Digest>& emails, int64_t slice, int64_t& last,
                                      std::vector<Row>& rows) override;
  absl::StatusOr<std::vector<AuditEntry>> Audit(const std::optional<Uuid>& request_id, size_t limit) override;
  absl::StatusOr<int64_t> AuditEntries() override;
  absl::StatusOr<std::vector<Conflict>> Conflicts(const std::optional<Uuid>& request_id, size_t limit) override;
  absl::Status Add(int attempt_limit, int64_t slice, Totals& totals) override;
  absl::StatusOr<std::vector<LedgerKey>> Keys() override;
  absl::StatusOr<bool> HasRowsUnder(uint64_t key_id) override;
  absl::StatusOr<WebhookEvidence> EvidenceOf(const Record& record, absl::Time now) override;
  int64_t callers() const override { return static_cast<int64_t>(caller_ids_.size()); }
  int schema_version() const override { return version_; }

  // Those of the previous keys given that something may still be found under, as of Open.
  const std::set<uint64_t>& needed_keys() const { return needed_keys_; }
  // When a request changed last. Reads them all.
  absl::StatusOr<absl::Time> LastChange();
  absl::StatusOr<bool> IsCurrentKey(uint64_t key_id);

  // The ledger's life. `made_at`, in Unix microseconds, also tells one ledger from another. `revision` grows with every
  // Touch, and is the time of that Touch in Unix microseconds unless the clock went back: of two copies of a ledger the
  // one with the larger revision is the newer. 0: never touched since revisions exist.
  int64_t made_at() const { return made_at_; }
  int64_t revision() const { return revision_; }
  // The revision, or where there is none the newest change of a request, which takes a pass over all.
  absl::StatusOr<int64_t> NewestRevision();
  // As Touch, with a revision that is larger than `beyond`, too.
  absl::Status Advance(int64_t beyond);
  // Also begins the change log anew, with revisions beyond those of the ledger that is lost: who followed it stands at
  // a change that this one never had, and must begin anew, too.
  absl::Status AddRestored(const Restored& restored);
  absl::StatusOr<std::optional<Restored>> LastRestored();
  // Forgets the oldest entries of the change log, as many as that at once, until `keep` are left; the last one always
  // stays, so that no revision is used twice. LogIsLong: there is something to forget.
  absl::Status PruneLog(int64_t keep, int64_t at_once);
  bool LogIsLong(int64_t keep) const;
  // What the database file holds for sure without its write-ahead log, by the copying of this process; 0: not known.
  int64_t in_file() const { return in_file_; }
  void set_in_file(int64_t revision) { in_file_ = revision; }
  int64_t rows() const { return rows_; }  // requests
  // How many rows of any table this connection has written; only good for telling whether some work wrote.
  int changes() const { return sqlite3_total_changes(connection_.db()); }

  // Copies the write-ahead log into the database once it is long. Between transactions; when it fails nothing is lost,
  // the log only grows. Kept out of Commit, so that no answer waits for it.
  absl::Status CheckpointIfLong();
  absl::Status Checkpoint();

 private:
  friend class SqliteCopy;     // backup.cc
  friend class SqliteContent;  // sqlite_content.h
  explicit SqliteStore(const SqliteStoreOptions& options)
      : options_(options),
        connection_(options.path),
        webhooks_(connection_),
        request_keys_(connection_, options.merge),
        email_keys_(connection_, options.merge),
        intent_keys_(connection_, options.merge) {}

  // Open's steps, in this order.
  absl::Status Connect();
  absl::Status CheckOurs();
  absl::Status CheckUndamaged();
  absl::Status CheckPartialIndexes();
  absl::Status Migrate();
  absl::Status CheckKey();
  absl::Status CheckCounters();
  absl::Status PrepareStatements();
  absl::Status LoadLife();
  absl::Status LoadCallers();
  absl::Status OpenIndexes();
  absl::Status CheckIndexes();

  absl::Status ConnectToRead();
  absl::Status UseKey();
  absl::Status UseEnvironment();
  absl::Status LookForOlderKeys();

  enum Statement : int {
    kStart,
    kCommit,
    kRollback,
    kOpen,
    kPerson,
    kSending,
    kOld,
    kInsert,
    kUpdateProgress,
    kUpdateWhole,
    kUpdateLatest,
    kAddCount,
    kAddress,
    kNewEmail,
    kNewCaller,
    kMoveEmail,
    kMergeRequests,
    kMergeCounts,
    kDropEmail,
    kMovePerson,
    kAppend,
    kForget,
    kAddPurged,
    kTouch,
    kById,
    kTraceEnded,
    kTraceRunning,
    kTraceSlice,
    kFirstFrom,
    kLog,
    kLogHolds,
    kReadLog,
    kPruneLog,
    kMark,
  };
  static std::vector<std::string> Sql();  // by Statement
  SqliteUse Use(Statement statement) const { return {connection_, statements_[static_cast<size_t>(statement)]}; }

  // An address as the database has it; `id` is 0 where it has none.
  struct Address {
    int64_t id = 0;
    Counters counters;
  };
  absl::StatusOr<Address> AddressOf(const Digest& email);
  absl::Status MakeAddress(const Digest& email, Counters counters);
  absl::StatusOr<std::optional<int64_t>> CallerId(const std::string& name, bool make);

  absl::Status Find(const Key& key, std::optional<Row>& row);
  absl::Status FindLinked(const Row& own, const Uuid& id, bool own_replaces, std::optional<Row>& into);
  absl::StatusOr<std::vector<Row>> WithIntent(const std::string& intent);
  absl::Status FindIntent(const std::string& caller, const std::string& intent, std::optional<Row>& row);
  absl::Status LoadAddresses(const Lookup& lookup, View& view);
  absl::StatusOr<std::optional<Row>> One(SqliteUse& use) const;
  absl::StatusOr<std::vector<Row>> All(SqliteUse& use) const;

  absl::Status MoveEmail(const Digest& from, const Digest& to);
  absl::Status MovePerson(const Changes::PersonMove& move);
  absl::Status AddCount(const Changes::Count& count);
  // These take the row.
  absl::Status Put(RowChange& change);
  absl::Status Insert(Row& row);
  void Keep(Row& row);  // one that is SENDING
  absl::Status Forget(const Changes::Purge& purge);
  absl::Status Append(const AuditEntry& entry);
  absl::Status Mark(const Conflict& conflict);
  absl::Status Log(const Row& row);
  absl::Status BreakLog();
  // By the number of the row; nothing where it is not asked for, or is gone.
  using Found = absl::flat_hash_map<int64_t, std::optional<LogSlice::Entry>>;
  absl::Status ReadLogSlice(const LogLookup& lookup, int64_t caller, Found& found, int64_t& upto);
  absl::StatusOr<std::optional<Row>> ById(int64_t handle);
  absl::Status TraceSlice(const TraceRequest& request, TraceAnswer& answer);
  absl::StatusOr<int64_t> FirstCreatedSince(absl::Time since);
  void ForgetCopies();
  // `what(index)` for each of the three, until one fails.
  template <class What>
  absl::Status EachIndex(What what);
  absl::Status Sound();
  void Reach(std::string_view point) const {
    if (options_.crash_point != nullptr) options_.crash_point(point);
  }

  const SqliteStoreOptions options_;
  SqliteConnection connection_;
  SqliteWebhooks webhooks_;
  MergedIndex<RequestKey> request_keys_;
  MergedIndex<EmailKey> email_keys_;
  MergedIndex<IntentKey> intent_keys_;
  bool read_tails_ = false;  // a COMMIT has failed: what is kept of the newest keys is read anew before the next one
  std::vector<sqlite3_stmt*> statements_;
  int version_ = 0;  // of the schema
  bool moved_ = false;
  int wal_frames_ = 0;
  std::set<uint64_t> needed_keys_;
  int64_t made_at_ = 0;
  int64_t revision_ = 0;
  int64_t in_file_ = 0;
  int64_t rows_ = 0;
  struct {
    int64_t addresses = 0;
    int64_t succeeded = 0;
  } counted_;                 // at the start, for OpenIndexes
  int64_t first_logged_ = 1;  // the oldest entry of the change log that is kept
  int64_t logged_ = 0;        // the last one
  std::vector<Change> committed_log_;
  // Of the open transaction.
  int changes_before_ = 0;
  int64_t fresh_rows_ = 0;
  std::optional<int64_t> fresh_revision_;
  std::vector<Change> fresh_log_;
  std::optional<int64_t> fresh_logged_;
  std::optional<int64_t> fresh_first_logged_;

  // Names and numbers of callers; few, for ever, and asked for by every operation.
  absl::flat_hash_map<std::string, int64_t> caller_ids_;
  absl::flat_hash_map<int64_t, std::string> caller_names_;
  std::vector<std::string> fresh_callers_;  // of the open transaction
  // Copies of what the database holds, the open transaction's changes included, so that a call's second half need not
  // look for what its first half wrote: the addresses that were asked for, and rows that are SENDING. This connection
  // alone writes. A Rollback forgets them all; so does a map that holds kKept of them.
  absl::flat_hash_map<Digest, Address> addresses_;
  absl::flat_hash_map<Key, Row, KeyHash> running_;
  int64_t old_to_ = 0;  // the row where NextOldRows goes on
};

}  // namespace userintent::ledger
