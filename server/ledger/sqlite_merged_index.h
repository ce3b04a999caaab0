// ledger::MergedIndex: which row a key belongs to, in a table of its own that is written in the order of the keys.
//
// Keys are random: an index that takes each when it comes touches a page of its own for it, and that page is written
// twice; at a million rows this is most of what a call costs. So the newest keys are kept in memory, in order (the
// "tail"): those of the rows with a number above `mark`. When there are many, they are merged into the table, in order
// and few at once, each few in the transaction of a batch that is committed anyway; the last ones move the mark. At a
// start the tail is read from the rows above the mark. So nothing depends on memory: the rows are the truth, the table
// and the tail are found from them.
//
// What may never happen is that a key is forgotten: its request would be begun a second time. So:
// * A row is in the tail or in the table from its transaction on; a Rollback takes back what the tail got and lost.
// * A filter knows every key of the table and of the tail, and is asked only for "surely not"; it is made anew at every
//   start. Every thousandth "surely not" the table is asked all the same. A key that it holds then, or a key that two
//   rows have, makes `broken()` true: the owner must end the process.
// * An entry for a row at or below the mark, or below the mark that a running merge will set, goes into the table
//   directly.
//
// Used in the transactions of its owner, on its thread. https://en.wikipedia.org/wiki/Log-structured_merge-tree
#pragma once

#include <endian.h>

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/uuid.h"
#include "server/ledger/key_filter.h"
#include "server/ledger/ledger.h"
#include "server/ledger/sqlite_connection.h"

namespace userintent::ledger {

// Eight bytes as a number that is in their order: two of them are compared without a call of memcmp(), and random ones
// differ there.
template <size_t N>
uint64_t Head(const std::array<uint8_t, N>& bytes) {
  static_assert(N >= sizeof(uint64_t));
  uint64_t head;
  std::memcpy(&head, bytes.data(), sizeof(head));
  return be64toh(head);
}

// A request of a caller, by the caller's number.
struct RequestKey {
  int64_t caller = 0;
  Uuid request_id{};
  friend bool operator==(const RequestKey&, const RequestKey&) = default;
  friend std::strong_ordering operator<=>(const RequestKey& a, const RequestKey& b) {
    if (const auto order = a.caller <=> b.caller; order != 0) return order;
    if (const auto order = Head(a.request_id) <=> Head(b.request_id); order != 0) return order;
    return a.request_id <=> b.request_id;
  }
};
// An e-mail address.
struct EmailKey {
  Digest digest{};
  friend bool operator==(const EmailKey&, const EmailKey&) = default;
  friend std::strong_ordering operator<=>(const EmailKey& a, const EmailKey& b) {
    if (const auto order = Head(a.digest) <=> Head(b.digest); order != 0) return order;
    return a.digest <=> b.digest;
  }
};
// The end of an intent's id, which tells enough of them apart. Several rows may have one.
struct IntentKey {
  std::array<uint8_t, 8> ending{};
  friend bool operator==(const IntentKey&, const IntentKey&) = default;
  friend std::strong_ordering operator<=>(const IntentKey& a, const IntentKey& b) {
    return Head(a.ending) <=> Head(b.ending);
  }
};
IntentKey IntentKeyOf(const std::string& intent);
// intent_ending(user_intent_id), the same in SQL.
absl::Status AddIntentEnding(const SqliteConnection& connection);

struct MergeOptions {
  // A merge begins when the tail holds so many keys. Larger: fewer bytes written a call, more memory (some 50 bytes a
  // key) and a longer start.
  size_t begin_at = 65'536;
  // So many keys are merged in one transaction, and more where it adds many itself: `faster` times those, so that a
  // merge ends before the tail has grown by a third.
  size_t at_once = 64;
  size_t faster = 3;
};

template <class Key>
class MergedIndex {
 public:
  // `connection` outlives this.
  MergedIndex(const SqliteConnection& connection, MergeOptions options) : connection_(connection), options_(options) {}
  ~MergedIndex();
  MergedIndex(const MergedIndex&) = delete;
  MergedIndex& operator=(const MergedIndex&) = delete;

  // Reads the table and the rows above the mark. `rows`: how many have a key. A key that two rows have, or a table that
  // has more or fewer entries than rows: DataLoss.
  absl::Status Open(int64_t rows);
  // Reads the rows above the mark again: after a COMMIT that failed, whatever became of it.
  absl::Status ReadTail();
  // That every row up to the mark has its entry, and every entry its row. Reads them all.
  static absl::Status Check(const SqliteConnection& connection);

  // The row with this key; where several have it, the one of which `is_it` says so first.
  absl::StatusOr<std::optional<int64_t>> Find(const Key& key);
  absl::StatusOr<std::vector<int64_t>> FindAll(const Key& key);

  // In the open transaction. An entry that is there already stays.
  absl::Status Insert(const Key& key, int64_t row);
  absl::Status Remove(const Key& key, int64_t row);
  // Merges some, if that is due. Before each COMMIT.
  absl::Status MergeSome();
  // Whether the open transaction does so.
  bool merges() const { return !moved_.empty() || ends_; }
  // What became of the transaction. Merges what is above the mark from now on when it is enough.
  void Committed();
  void RolledBack();

  // Empty: all is well. Else what must not be, for the log; nothing that follows can be trusted.
  const std::string& broken() const { return broken_; }
  size_t tail() const { return tail_.size(); }
  int64_t mark() const { return mark_; }

 private:
  struct Entry {
    Key key;
    int64_t row = 0;
    friend auto operator<=>(const Entry&, const Entry&) = default;
  };
  enum Statement : size_t { kFind, kAdd, kRemove, kMark, kStatements };

  absl::Status Prepare();
  absl::Status ReadTable(int64_t rows, int64_t& below, std::vector<Entry>& above);
  absl::Status ReadMark();
  absl::Status Add(const Key& key, int64_t row);
  absl::StatusOr<std::vector<int64_t>> InTable(const Key& key);
  absl::Status Break(const char* what);
  SqliteUse Use(Statement statement) const { return {connection_, statements_[statement]}; }
  bool merging() const { return target_ != 0; }

  const SqliteConnection& connection_;
  const MergeOptions options_;
  std::array<sqlite3_stmt*, kStatements> statements_{};
  KeyFilter filter_;
  absl::btree_set<Entry> tail_;
  int64_t mark_ = 0;
  int64_t newest_ = 0;           // the largest number in the tail so far
  int64_t target_ = 0;           // the mark that the running merge sets; 0: none runs
  std::optional<Entry> merged_;  // the last entry that the running merge has taken
  uint64_t surely_not_ = 0;
  std::string broken_;

  // Of the open transaction.
  struct Step {
    bool added;  // to the tail; else removed from it
    Entry entry;
  };
  std::vector<Step> steps_;
  std::vector<Entry> moved_;  // by the merge; in the tail, too, until it is committed
  bool ends_ = false;         // the merge ends with it
};

}  // namespace userintent::ledger
