// ledger::SqliteStore: a Store in one SQLite file, over one connection that nobody shares.
//
// Single-threaded like every Store; it may move to another thread between two operations. A transaction is durable when
// Commit returns: WAL with synchronous=FULL. locking_mode=EXCLUSIVE keeps other processes out, needs no shared memory
// file, and avoids a WAL bug of SQLite before 3.51.3 that takes two connections.
//
// Rows hold an internal number for their e-mail address, so that a key rotation moves an address with all its rows by
// changing one digest.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
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
#include "server/ledger/store.h"

struct sqlite3;
struct sqlite3_stmt;

namespace userintent::ledger {

struct SqliteStoreOptions {
  std::string path;
  // Fingerprints::key_id of the ledger's key, and of the keys before it. A ledger that was last used with any other key
  // is refused: it would know nobody, and the promise would be void. So is one with rows under a key that is not given.
  uint64_t key_id = 0;
  std::vector<uint64_t> previous_key_ids;
  // For an operator's tool: the ledger must be there already, and its key is not asked for, because nothing is looked
  // up by a hash.
  bool for_operator = false;
  // With that, for a copy to be made of it: it is neither brought up to date nor made ready for calls.
  bool as_it_is = false;
  // With for_operator, for a file that only this process reads: every page and every index is checked, and nothing is
  // written, not even beside it. `cancelled` is asked while that lasts.
  bool inspect = false;
  std::function<bool()> cancelled = nullptr;
  absl::Time (*now)() = absl::Now;
  void (*crash_point)(std::string_view name) = nullptr;
  // The write-ahead log is copied into the database when it holds this many pages of 4 KiB. Calls wait meanwhile, so
  // rather often than long; a longer log costs no less, because random pages repeat little.
  int long_log_pages = 1000;
  // For tests only: another SQLite VFS; and NORMAL, to show that a power cut then breaks the promise.
  const char* vfs = nullptr;
  bool synchronous_normal = false;
};

// The file as SQLite reads it without a lock and without a look for its log. https://www.sqlite.org/uri.html
std::string ImmutableUri(const std::string& path);

// A key that is, or was, in use; `id` is Fingerprints::key_id.
struct LedgerKey {
  uint64_t id = 0;
  absl::Time since = absl::InfinitePast();
  std::optional<absl::Time> until;  // nothing: the current one
};

// What an operator may read of a key's id: the first 8 of its 16 hexadecimal digits.
std::string KeyName(uint64_t key_id);

// What is in a ledger, taken in slices. See SqliteStore::Add.
struct Totals {
  std::map<uint64_t, int64_t> requests_by_key;
  std::array<int64_t, 6> requests{};  // by the number of their state
  int64_t addresses = 0;
  int64_t addresses_at_limit = 0;  // with as many attempts surely used
  bool done = false;
  int64_t last_request = 0;  // where the next slice begins
  int64_t last_address = 0;
};

// That this ledger stands for a newer one that is lost: an operator said so at a start. Unix microseconds.
struct Restored {
  int64_t backup_of = 0;     // as of when it is, by the operator's word
  int64_t served_until = 0;  // the lost one's last known revision
  int64_t acknowledged_at = 0;
};

class SqliteStore : public Store {
 public:
  // Opens or makes the database and checks it: readable by us, not newer than us, undamaged, our key, counters equal to
  // the sum over the rows. Does not recover; that is Book's.
  static absl::StatusOr<std::unique_ptr<SqliteStore>> Open(const SqliteStoreOptions& options);
  ~SqliteStore() override;
  SqliteStore(const SqliteStore&) = delete;
  SqliteStore& operator=(const SqliteStore&) = delete;

  absl::Status Start() override;
  absl::Status Commit() override;
  void Rollback() override;

  absl::StatusOr<std::optional<Row>> Find(const Key& key) override;
  absl::StatusOr<std::optional<Row>> FindIntent(const std::string& caller, const std::string& intent) override;
  absl::StatusOr<std::vector<Row>> Open(const Digest& email) override;
  absl::StatusOr<std::optional<Row>> Succeeded(const Digest& email, const Digest& person,
                                               const std::string& caller) override;
  absl::StatusOr<Counters> Count(const Digest& email) override;
  absl::StatusOr<std::vector<Row>> Sending(size_t limit) override;
  absl::Status Put(const Row& row) override;
  absl::Status SetLatest(const Key& key, const Reading& latest) override;
  absl::Status AddCount(const Digest& email, Counters delta) override;
  absl::Status MoveEmail(const Digest& from, const Digest& to) override;
  absl::Status MovePerson(const Digest& email, const Digest& from, const Digest& to) override;
  absl::Status Append(const AuditEntry& entry) override;
  absl::StatusOr<std::vector<Row>> Old(absl::Time created_before, size_t limit) override;
  absl::Status Purge(const Row& row, Counters counted) override;
  absl::Status Touch() override;

  // What an operator looks at (sqlite_queries.cc), in a transaction like everything else. Each touches as many rows as
  // it answers, or a slice.
  //
  // The rows with this id, of every caller.
  absl::StatusOr<std::vector<Row>> WithId(const Uuid& request_id);
  // The rows that are SENDING, or UNKNOWN, and were created before that time; the oldest first.
  absl::StatusOr<std::vector<Row>> Oldest(State state, absl::Time created_before, bool not_superseded, size_t limit);
  // The last entries, of one request or of all; the newest first.
  absl::StatusOr<std::vector<AuditEntry>> Audit(const std::optional<Uuid>& request_id, size_t limit);
  // Of the rows with these addresses, the ones among the `slice` rows after `last`, in the order of arrival; sets
  // `last` to where the next slice begins. Call it until it returns false.
  absl::StatusOr<bool> AddOfAddresses(const std::vector<Digest>& emails, int64_t slice, int64_t& last,
                                      std::vector<Row>& rows);
  absl::StatusOr<bool> HasRowsUnder(uint64_t key_id);
  // Adds the next `slice` rows and addresses. Call it until `done`; what changes meanwhile may be missed.
  absl::Status Add(int attempt_limit, int64_t slice, Totals& totals);
  absl::StatusOr<int64_t> AuditEntries();
  // The keys that rows may be under, the current one first, then the last one first.
  absl::StatusOr<std::vector<LedgerKey>> Keys();
  // Those of the previous keys given that something may still be found under, as of Open.
  const std::set<uint64_t>& needed_keys() const { return needed_keys_; }
  int64_t callers() const { return static_cast<int64_t>(caller_ids_.size()); }
  static int SchemaVersion();
  // What SQLite writes into the head of the file, to tell a ledger from other databases.
  static int64_t ApplicationId();
  int version() const { return version_; }  // of the schema, as found
  // When a request changed last. Reads them all.
  absl::StatusOr<absl::Time> LastChange();

  // The ledger's life. `made_at`, in Unix microseconds, also tells one ledger from another. `revision` grows with every
  // Touch, and is the time of that Touch in Unix microseconds unless the clock went back: of two copies of a ledger the
  // one with the larger revision is the newer. 0: never touched since revisions exist.
  int64_t made_at() const { return made_at_; }
  int64_t revision() const { return revision_; }
  // As Touch, with a revision that is larger than `beyond`, too.
  absl::Status Advance(int64_t beyond);
  // What the database file holds for sure without its write-ahead log, by the copying of this process; 0: not known.
  int64_t in_file() const { return in_file_; }
  void set_in_file(int64_t revision) { in_file_ = revision; }
  int64_t rows() const { return rows_; }  // requests
  // How many rows of any table this connection has written; only good for telling whether some work wrote.
  int changes() const;

  // In sqlite_queries.cc. NewestChange: the revision, or where there is none the newest change of a request, which
  // takes a pass over all. CheckWhole: every page and every index.
  absl::StatusOr<int64_t> NewestChange();
  absl::Status CheckWhole();
  absl::StatusOr<bool> HasKey(uint64_t key_id);
  absl::Status AddRestored(const Restored& restored);
  absl::StatusOr<std::optional<Restored>> LastRestored();

  // Copies the write-ahead log into the database once it is long. Between transactions; when it fails nothing is lost,
  // the log only grows. Kept out of Commit, so that no answer waits for it.
  absl::Status CheckpointIfLong();
  absl::Status Checkpoint();

 private:
  class Use;
  friend class SqliteCopy;  // backup.cc
  explicit SqliteStore(const SqliteStoreOptions& options) : options_(options) {}

  absl::Status Connect();
  absl::Status ConnectToRead();
  absl::Status CheckOurs();
  absl::Status CheckUndamaged();
  absl::Status Migrate();
  absl::Status CheckKey();
  absl::Status UseKey();
  absl::Status LookForOlderKeys();
  absl::Status CheckCounters();
  absl::Status Prepare();
  absl::Status LoadLife();
  absl::Status LoadCallers();

  absl::Status Execute(const char* sql);
  absl::StatusOr<std::optional<Row>> One(Use& use) const;
  absl::StatusOr<std::vector<Row>> All(Use& use) const;
  // The first column of the first row, or the first two; 0 where there is none.
  absl::StatusOr<int64_t> Number(const char* sql, std::optional<int64_t> bound = std::nullopt);
  absl::StatusOr<std::pair<int64_t, int64_t>> Numbers(const char* sql, std::optional<int64_t> bound = std::nullopt);
  absl::Status Error(const char* doing) const;
  absl::StatusOr<Row> Decode(sqlite3_stmt* statement) const;
  absl::StatusOr<std::optional<int64_t>> CallerId(const std::string& name, bool make);

  // An address as the database has it; `id` is 0 where it has none.
  struct Address {
    int64_t id = 0;
    Counters counters;
  };
  absl::StatusOr<Address> AddressOf(const Digest& email);
  absl::Status MakeAddress(const Digest& email, Counters counters);
  static void BindProgress(Use& use, const Record& record);
  absl::Status InsertOrReplace(const Row& row);
  void ForgetCopies();
  void Reach(std::string_view point) const {
    if (options_.crash_point != nullptr) options_.crash_point(point);
  }

  const SqliteStoreOptions options_;
  sqlite3* db_ = nullptr;
  int version_ = 0;  // of the schema, as found
  int wal_frames_ = 0;
  std::set<uint64_t> needed_keys_;
  int64_t made_at_ = 0;
  int64_t revision_ = 0;
  int64_t in_file_ = 0;
  int64_t rows_ = 0;
  // Of the open transaction.
  int64_t fresh_rows_ = 0;
  std::optional<int64_t> fresh_revision_;

  // Names and numbers of callers; few, for ever, and asked for by every operation.
  absl::flat_hash_map<std::string, int64_t> caller_ids_;
  absl::flat_hash_map<int64_t, std::string> caller_names_;
  std::vector<std::string> fresh_callers_;  // of the open transaction
  // Copies of what the database holds, the open transaction's changes included, so that a call's second half need not
  // look for what its first half wrote: the addresses that were asked for, and rows that are SENDING. Nobody else
  // writes; a Rollback forgets them all, and so does reaching kKept.
  struct Running {
    int64_t id = 0;
    Row row;
  };
  absl::flat_hash_map<Digest, Address> addresses_;
  absl::flat_hash_map<Key, Running, KeyHash> running_;
  int64_t old_to_ = 0;  // the row where Old goes on

  enum StatementName : int;
  std::vector<sqlite3_stmt*> statements_;
};

}  // namespace userintent::ledger
