// How a Row lies in the table `request`: one table of columns, in one order, by which rows are read, bound and
// selected. Single-threaded, like the statements.
#pragma once

#include <string>

#include "server/ledger/sqlite_connection.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

// "SELECT ... FROM request r JOIN email e ..." and what is given. Of each row it selects everything that ReadRow reads.
std::string SelectRows(const std::string& where);
// The columns after those of the row itself.
extern const int kCallerColumn;  // the number of the caller
extern const int kHandleColumn;  // Row::handle

// Statements that write one row. BindRow binds ?1 and so on, and returns the number after the last one.
std::string InsertRowSql();                      // then ?: the caller, ?: the address, by their numbers
std::string UpdateRowSql(RowChange::Part part);  // then ?: the handle; of kWhole before it the address
int BindRow(SqliteUse& use, const Row& row, RowChange::Part part);

// Everything but the caller's name. False: the row does not make sense.
bool ReadRow(const SqliteUse& use, Row& row);

// Records that operators and copies read. Each column list goes with its reader; false: it does not make sense.
extern const char kAuditColumns[];
bool ReadAuditEntry(const SqliteUse& use, AuditEntry& entry);
extern const char kConflictColumns[];
bool ReadConflict(const SqliteUse& use, Conflict& conflict);

// As it would be read: times are kept in microseconds.
void RoundTimes(Record& record);

}  // namespace userintent::ledger
