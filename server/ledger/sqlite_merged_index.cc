#include "server/ledger/sqlite_merged_index.h"

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"

namespace userintent::ledger {
namespace {

// So often the table is asked although the filter has said "surely not".
constexpr uint64_t kProve = 1000;

// ---- what each of the indexes is of ----

template <class Key>
struct Of;

template <>
struct Of<RequestKey> {
  static constexpr bool kUnique = true;
  static constexpr const char* kTable = "request_key";
  static constexpr const char* kColumns = "caller, request_id";
  static constexpr const char* kSelect = kColumns;
  static constexpr const char* kKey = "caller = ?1 AND request_id = ?2";
  static constexpr const char* kRows = "request";
  static constexpr const char* kOfRows = "true";
  static constexpr const char* kSame = "k.caller = r.caller AND k.request_id = r.request_id";
  static constexpr int kWidth = 2;
  static constexpr const char* kTwice = "two requests of a caller have one id";
  static void Bind(SqliteUse& use, const RequestKey& key) { use.Bind(1, key.caller).Bind(2, key.request_id); }
  static bool Read(const SqliteUse& use, RequestKey& key) {
    key.caller = use.Number(0);
    return use.Bytes(1, key.request_id);
  }
  static size_t Hash(const RequestKey& key) { return absl::HashOf(key.caller, key.request_id); }
};

template <>
struct Of<EmailKey> {
  static constexpr bool kUnique = true;
  static constexpr const char* kTable = "email_key";
  static constexpr const char* kColumns = "digest";
  static constexpr const char* kSelect = kColumns;
  static constexpr const char* kKey = "digest = ?1";
  static constexpr const char* kRows = "email";
  static constexpr const char* kOfRows = "true";
  static constexpr const char* kSame = "k.digest = r.digest";
  static constexpr int kWidth = 1;
  static constexpr const char* kTwice = "an address is known twice";
  static void Bind(SqliteUse& use, const EmailKey& key) { use.Bind(1, key.digest); }
  static bool Read(const SqliteUse& use, EmailKey& key) { return use.Bytes(0, key.digest); }
  static size_t Hash(const EmailKey& key) { return absl::HashOf(key.digest); }
};

template <>
struct Of<IntentKey> {
  static constexpr bool kUnique = false;
  static constexpr const char* kTable = "intent_key";
  static constexpr const char* kColumns = "ending";
  static constexpr const char* kSelect = "intent_ending(r.user_intent_id)";
  static constexpr const char* kKey = "ending = ?1";
  static constexpr const char* kRows = "request";
  static constexpr const char* kOfRows = "r.state = 2";
  static constexpr const char* kSame = "k.ending = intent_ending(r.user_intent_id)";
  static constexpr int kWidth = 1;
  static constexpr const char* kTwice = "";
  static void Bind(SqliteUse& use, const IntentKey& key) { use.Bind(1, key.ending); }
  static bool Read(const SqliteUse& use, IntentKey& key) { return use.Bytes(0, key.ending); }
  static size_t Hash(const IntentKey& key) { return absl::HashOf(key.ending); }
};

absl::Status DoesNotFit(const SqliteConnection& connection, const char* table) {
  return connection.Damaged(absl::StrCat("the index ", table, " does not fit its rows"));
}

std::string Parameters(int count) {
  std::string all;
  for (int i = 1; i <= count; ++i) absl::StrAppend(&all, i == 1 ? "?" : ", ?", i);
  return all;
}

}  // namespace

template <class Key>
MergedIndex<Key>::~MergedIndex() {
  for (sqlite3_stmt* statement : statements_) sqlite3_finalize(statement);
}

// ---- at the start ----

template <class Key>
absl::Status MergedIndex<Key>::Prepare() {
  using It = Of<Key>;
  const int row = It::kWidth + 1;
  const std::array<std::string, kStatements> sql = {
      absl::StrCat("SELECT row FROM ", It::kTable, " WHERE ", It::kKey),
      absl::StrCat("INSERT INTO ", It::kTable, " (", It::kColumns, ", row) VALUES (", Parameters(row),
                   ") ON CONFLICT DO NOTHING"),
      absl::StrCat("DELETE FROM ", It::kTable, " WHERE ", It::kKey, " AND row = ?", row),
      "UPDATE merged_to SET row = ?2 WHERE name = ?1",
  };
  for (size_t i = 0; i < kStatements; ++i) {
    if (sqlite3_prepare_v3(connection_.db(), sql[i].c_str(), -1, SQLITE_PREPARE_PERSISTENT, &statements_[i], nullptr) !=
        SQLITE_OK) {
      return connection_.Error("prepare a statement");
    }
  }
  return absl::OkStatus();
}

template <class Key>
absl::Status MergedIndex<Key>::Open(int64_t rows) {
  if (absl::Status s = Prepare(); !s.ok()) return s;
  if (absl::Status s = ReadMark(); !s.ok()) return s;
  int64_t below = 0;
  std::vector<Entry> above;
  if (absl::Status s = ReadTable(rows, below, above); !s.ok()) return s;
  if (absl::Status s = ReadTail(); !s.ok()) return s;
  // Each row up to the mark has one entry. Beyond it there are only those of a merge that was cut off.
  const bool fits = below == rows - static_cast<int64_t>(tail_.size()) &&
                    std::includes(tail_.begin(), tail_.end(), above.begin(), above.end());
  return fits ? absl::OkStatus() : DoesNotFit(connection_, Of<Key>::kTable);
}

// How many entries are of rows up to the mark, and the others, in order.
template <class Key>
absl::Status MergedIndex<Key>::ReadTable(int64_t rows, int64_t& below, std::vector<Entry>& above) {
  using It = Of<Key>;
  const auto keys = static_cast<size_t>(rows);
  // Where several rows may have a key, nobody asks for what is not there.
  if (It::kUnique) filter_.Reset(keys + keys / 8 + options_.begin_at);
  SqliteUse all(connection_,
                absl::StrCat("SELECT ", It::kColumns, ", row FROM ", It::kTable, " ORDER BY ", It::kColumns, ", row"));
  for (;;) {
    const absl::StatusOr<bool> more = all.Step();
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    Entry entry;
    if (!It::Read(all, entry.key)) return connection_.Damaged("a key does not make sense");
    if (It::kUnique) filter_.Add(It::Hash(entry.key));
    entry.row = all.Number(It::kWidth);
    if (entry.row <= mark_) {
      ++below;
    } else {
      above.push_back(std::move(entry));
    }
  }
}

template <class Key>
absl::Status MergedIndex<Key>::ReadMark() {
  SqliteUse use(connection_, absl::StrCat("SELECT row FROM merged_to WHERE name = '", Of<Key>::kTable, "'"));
  const absl::StatusOr<bool> found = use.Step();
  if (!found.ok()) return found.status();
  if (!*found) return connection_.Damaged("a mark is missing");
  mark_ = use.Number(0);
  return absl::OkStatus();
}

template <class Key>
absl::Status MergedIndex<Key>::ReadTail() {
  using It = Of<Key>;
  tail_.clear();
  steps_.clear();
  moved_.clear();
  ends_ = false;
  target_ = newest_ = 0;
  merged_.reset();
  if (absl::Status s = ReadMark(); !s.ok()) return s;
  SqliteUse rows(connection_, absl::StrCat("SELECT ", It::kSelect, ", r.id FROM ", It::kRows, " r WHERE r.id > ?1 AND ",
                                           It::kOfRows, " ORDER BY r.id"));
  rows.Bind(1, mark_);
  for (;;) {
    const absl::StatusOr<bool> more = rows.Step();
    if (!more.ok()) return more.status();
    if (!*more) break;
    Entry entry;
    if (!It::Read(rows, entry.key)) return connection_.Damaged("a key does not make sense");
    entry.row = rows.Number(It::kWidth);
    if (It::kUnique) {
      // A merge that was cut off has left some of the tail's in the table.
      const absl::StatusOr<std::optional<int64_t>> other = Find(entry.key);
      if (!other.ok()) return other.status();
      if (*other && **other != entry.row) return connection_.Damaged(It::kTwice);
      filter_.Add(It::Hash(entry.key));
    }
    newest_ = std::max(newest_, entry.row);
    tail_.insert(tail_.end(), std::move(entry));
  }
  Committed();
  return absl::OkStatus();
}

template <class Key>
absl::Status MergedIndex<Key>::Check(const SqliteConnection& connection) {
  using It = Of<Key>;
  // Of each entry the row, and of each row up to the mark the entry.
  const std::string strays = absl::StrCat("SELECT count(*) FROM ", It::kTable, " k WHERE NOT EXISTS (SELECT 1 FROM ",
                                          It::kRows, " r WHERE r.id = k.row AND ", It::kSame, ")");
  const std::string missing = absl::StrCat("SELECT count(*) FROM ", It::kRows,
                                           " r WHERE r.id <= (SELECT m.row FROM merged_to m WHERE m.name = '",
                                           It::kTable, "') AND ", It::kOfRows, " AND NOT EXISTS (SELECT 1 FROM ",
                                           It::kTable, " k WHERE ", It::kSame, " AND k.row = r.id)");
  for (const std::string& sql : {strays, missing}) {
    SqliteUse use(connection, sql);
    const absl::StatusOr<bool> said = use.Step();
    if (!said.ok()) return said.status();
    if (use.Number(0) != 0) return DoesNotFit(connection, It::kTable);
  }
  return absl::OkStatus();
}

// ---- what is asked ----

template <class Key>
absl::StatusOr<std::vector<int64_t>> MergedIndex<Key>::InTable(const Key& key) {
  SqliteUse use = Use(kFind);
  Of<Key>::Bind(use, key);
  std::vector<int64_t> rows;
  for (;;) {
    const absl::StatusOr<bool> more = use.Step();
    if (!more.ok()) return more.status();
    if (!*more) return rows;
    rows.push_back(use.Number(0));
  }
}

template <class Key>
absl::StatusOr<std::vector<int64_t>> MergedIndex<Key>::FindAll(const Key& key) {
  absl::StatusOr<std::vector<int64_t>> rows = InTable(key);
  if (!rows.ok()) return rows;
  for (auto at = tail_.lower_bound({key, std::numeric_limits<int64_t>::min()}); at != tail_.end() && at->key == key;
       ++at) {
    if (std::find(rows->begin(), rows->end(), at->row) == rows->end()) rows->push_back(at->row);
  }
  return rows;
}

template <class Key>
absl::StatusOr<std::optional<int64_t>> MergedIndex<Key>::Find(const Key& key) {
  const bool surely_not = !filter_.MayHold(Of<Key>::Hash(key));
  if (surely_not && ++surely_not_ % kProve != 0) return std::nullopt;
  std::optional<int64_t> row;
  if (const auto at = tail_.lower_bound({key, std::numeric_limits<int64_t>::min()});
      at != tail_.end() && at->key == key) {
    row = at->row;
  } else {
    const absl::StatusOr<std::vector<int64_t>> rows = InTable(key);
    if (!rows.ok()) return rows.status();
    if (!rows->empty()) row = rows->front();
  }
  if (row && surely_not) return Break("a key was forgotten");
  return row;
}

template <class Key>
absl::Status MergedIndex<Key>::Break(const char* what) {
  broken_ = absl::StrCat(what, " (", Of<Key>::kTable, ")");
  return connection_.Damaged(broken_);
}

// ---- what is written ----

template <class Key>
absl::Status MergedIndex<Key>::Add(const Key& key, int64_t row) {
  using It = Of<Key>;
  {
    SqliteUse use = Use(kAdd);
    It::Bind(use, key);
    if (absl::Status s = use.Bind(It::kWidth + 1, row).Run(); !s.ok()) return s;
  }
  if (!It::kUnique || sqlite3_changes(connection_.db()) == 1) return absl::OkStatus();
  // There already: a merge that was cut off has come that far.
  const absl::StatusOr<std::vector<int64_t>> rows = InTable(key);
  if (!rows.ok()) return rows.status();
  return rows->front() == row ? absl::OkStatus() : Break(It::kTwice);
}

template <class Key>
absl::Status MergedIndex<Key>::Insert(const Key& key, int64_t row) {
  if (Of<Key>::kUnique) filter_.Add(Of<Key>::Hash(key));
  if (row <= std::max(mark_, target_)) return Add(key, row);
  Entry entry{key, row};
  if (!tail_.insert(entry).second) return absl::OkStatus();
  steps_.push_back({true, std::move(entry)});
  return absl::OkStatus();
}

template <class Key>
absl::Status MergedIndex<Key>::Remove(const Key& key, int64_t row) {
  Entry entry{key, row};
  if (tail_.erase(entry) != 0) steps_.push_back({false, std::move(entry)});
  // Or in the table, or in both after a merge that was cut off.
  SqliteUse use = Use(kRemove);
  Of<Key>::Bind(use, key);
  return use.Bind(Of<Key>::kWidth + 1, row).Run();
}

// Entries for rows above the mark to come stay where they are: they are not of this merge.
template <class Key>
absl::Status MergedIndex<Key>::MergeSome() {
  if (!merging()) return absl::OkStatus();
  const size_t at_once = std::max(options_.at_once, options_.faster * steps_.size());
  auto at = merged_ ? tail_.upper_bound(*merged_) : tail_.begin();
  for (; at != tail_.end() && moved_.size() < at_once; ++at) {
    if (at->row > target_) continue;
    if (absl::Status s = Add(at->key, at->row); !s.ok()) return s;
    moved_.push_back(*at);
  }
  if (at != tail_.end()) return absl::OkStatus();
  ends_ = true;
  SqliteUse use = Use(kMark);
  const std::string name(Of<Key>::kTable);
  use.Bind(1, name).Bind(2, target_);
  return use.Run();
}

template <class Key>
void MergedIndex<Key>::Committed() {
  for (const Step& step : steps_) {
    if (step.added) newest_ = std::max(newest_, step.entry.row);
  }
  steps_.clear();
  if (!moved_.empty()) merged_ = moved_.back();
  for (const Entry& entry : moved_) tail_.erase(entry);
  moved_.clear();
  if (std::exchange(ends_, false)) {
    mark_ = std::exchange(target_, 0);
    merged_.reset();
  }
  if (!merging() && tail_.size() >= std::max<size_t>(options_.begin_at, 1)) target_ = newest_;
}

template <class Key>
void MergedIndex<Key>::RolledBack() {
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    if (step->added) {
      tail_.erase(step->entry);
    } else {
      tail_.insert(step->entry);
    }
  }
  steps_.clear();
  moved_.clear();
  ends_ = false;
}

template class MergedIndex<RequestKey>;
template class MergedIndex<EmailKey>;
template class MergedIndex<IntentKey>;

absl::Status AddIntentEnding(const SqliteConnection& connection) {
  const auto ending = [](sqlite3_context* context, int, sqlite3_value** values) {
    const void* const bytes = sqlite3_value_blob(values[0]);
    const auto size = static_cast<size_t>(sqlite3_value_bytes(values[0]));
    const IntentKey key =
        IntentKeyOf(bytes == nullptr ? std::string() : std::string(static_cast<const char*>(bytes), size));
    sqlite3_result_blob(context, key.ending.data(), static_cast<int>(key.ending.size()), SQLITE_TRANSIENT);
  };
  constexpr int kFlags = SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY;
  return sqlite3_create_function_v2(connection.db(), "intent_ending", 1, kFlags, nullptr, ending, nullptr, nullptr,
                                    nullptr) == SQLITE_OK
             ? absl::OkStatus()
             : connection.Error("add a function");
}

IntentKey IntentKeyOf(const std::string& intent) {
  IntentKey key;
  const size_t size = std::min(intent.size(), key.ending.size());
  std::copy(intent.end() - static_cast<std::ptrdiff_t>(size), intent.end(), key.ending.begin());
  return key;
}

}  // namespace userintent::ledger
