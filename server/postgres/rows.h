// Rows of the table `request` as ledger::Row, and back.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/ledger/inspector.h"
#include "server/ledger/store.h"
#include "server/postgres/connection.h"

namespace userintent::postgres {

// "SELECT <columns> FROM request r JOIN caller c ... JOIN email e ... <rest>": the columns of ReadRow.
std::string SelectRows(std::string_view rest);

// Requests `r` and their callers `c` by keys `k`: $1 the callers' names, $2 the ids, k.n the place of each. As a join
// of three tables it would be left to the planner to look by caller and id at once, and while it thinks that the table
// is small it does not: then each key reads every request of its caller.
inline constexpr char kRequestByKey[] =
    "unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS k (name, request_id, n) JOIN caller c ON c.name = k.name "
    "CROSS JOIN LATERAL (SELECT * FROM request q WHERE q.caller = c.id AND q.request_id = k.request_id OFFSET 0) r";

// The rows with such keys.
const std::string& SelectRowsByKey();

// How many columns those are; a statement may have others behind them.
extern const int kRowColumns;

// A row of an answer. A value that cannot be is a damaged ledger: Internal.
absl::StatusOr<ledger::Row> ReadRow(const Rows& rows, int at);

// What the address of that row held, as of the same moment.
struct AddressState {
  int64_t id = 0;  // 0: it was never seen
  int64_t version = 0;
  ledger::Counters counters;
  friend bool operator==(const AddressState&, const AddressState&) = default;
};
AddressState ReadAddress(const Rows& rows, int at);  // of an answer of SelectRows

// The rows of one statement that begins with SelectRows.
absl::StatusOr<std::vector<ledger::Row>> ReadRows(Connection& connection, std::string_view sql,
                                                  absl::Span<const Value> values);
absl::StatusOr<std::vector<ledger::Row>> ReadRows(const Rows& rows);

// Records that operators and copies read. Each column list goes with its reader.
extern const char kAuditColumns[];
ledger::AuditEntry ReadAuditEntry(const Rows& rows, int at);
extern const char kConflictColumns[];
ledger::Conflict ReadConflict(const Rows& rows, int at);
extern const char kKeyColumns[];
ledger::LedgerKey ReadKey(const Rows& rows, int at);

// The columns of many rows as arrays, in this order; see the statements of store_commit.cc.
std::vector<Value> ProgressArrays(absl::Span<const ledger::Row* const> rows);
std::vector<Value> BindingArrays(absl::Span<const ledger::Row* const> rows);
std::vector<Value> LatestArrays(absl::Span<const ledger::Row* const> rows);

}  // namespace userintent::postgres
