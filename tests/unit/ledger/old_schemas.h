// SQL that brings the closed file of a ledger back to what an older version had made.
#pragma once

#include <string>
#include <vector>

namespace userintent::ledger {

// What the present version of the schema has and an older one does not.
inline constexpr char kBackToSchema8[] =
    "CREATE TABLE old_email (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, confirmed INTEGER NOT NULL,"
    "  possible INTEGER NOT NULL, purged_confirmed INTEGER NOT NULL DEFAULT 0,"
    "  purged_possible INTEGER NOT NULL DEFAULT 0) STRICT;"
    "INSERT INTO old_email SELECT * FROM email; DROP TABLE email; ALTER TABLE old_email RENAME TO email;"
    "CREATE TABLE old_request (id INTEGER PRIMARY KEY, caller INTEGER NOT NULL, request_id BLOB NOT NULL,"
    "  state INTEGER NOT NULL, sent INTEGER NOT NULL, reason INTEGER NOT NULL, http_status INTEGER NOT NULL,"
    "  confirmed INTEGER NOT NULL, user_intent_id TEXT NOT NULL, astra_status TEXT NOT NULL,"
    "  astra_request_id TEXT NOT NULL, answered_at INTEGER, attempt_id BLOB NOT NULL, attempts INTEGER NOT NULL,"
    "  supersedes BLOB, superseded_by BLOB, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,"
    "  key_id INTEGER NOT NULL, content BLOB NOT NULL, person BLOB NOT NULL, email INTEGER NOT NULL,"
    "  verification_type INTEGER NOT NULL DEFAULT 0, read_at INTEGER, latest_status TEXT, latest_user_id TEXT,"
    "  latest_type INTEGER, status_since INTEGER, UNIQUE (caller, request_id)) STRICT;"
    "INSERT INTO old_request SELECT * FROM request; DROP TABLE request; ALTER TABLE old_request RENAME TO request;"
    "CREATE INDEX request_open ON request (email) WHERE state IN (1, 4);"
    "CREATE INDEX request_person ON request (email, person) WHERE state = 2;"
    "CREATE INDEX request_unknown ON request (created_at) WHERE state = 4;"
    "CREATE INDEX request_attempt ON request (attempt_id) WHERE state >= 3;"
    "CREATE INDEX request_intent ON request (substr(user_intent_id, -8)) WHERE state = 2;"
    "DROP TABLE request_key; DROP TABLE email_key; DROP TABLE intent_key; DROP TABLE merged_to;"
    "DELETE FROM migration WHERE version = 9; PRAGMA user_version = 8;";
inline constexpr char kBackToSchema6[] =
    "DROP TABLE environment; DELETE FROM migration WHERE version = 8; "
    "DROP TABLE webhook; DROP TABLE receiver_period; DELETE FROM migration WHERE version = 7; PRAGMA user_version = 6;";
inline constexpr char kBackToSchema5[] =
    "DROP INDEX request_attempt; DROP TABLE change; DROP TABLE conflict; DELETE FROM migration WHERE version = 6;"
    "PRAGMA user_version = 5;";
inline constexpr char kBackToSchema4[] =
    "DROP INDEX request_intent; ALTER TABLE request DROP COLUMN verification_type;"
    "ALTER TABLE request DROP COLUMN read_at; ALTER TABLE request DROP COLUMN latest_status;"
    "ALTER TABLE request DROP COLUMN latest_user_id; ALTER TABLE request DROP COLUMN latest_type;"
    "ALTER TABLE request DROP COLUMN status_since; DELETE FROM migration WHERE version = 5; PRAGMA user_version = 4;";
inline constexpr char kBackToSchema3[] =
    "ALTER TABLE probe DROP COLUMN revision; DROP TABLE restored; DELETE FROM migration WHERE version = 4;"
    "PRAGMA user_version = 3;";
inline constexpr char kBackToSchema2[] =
    "DROP INDEX request_person; CREATE INDEX request_person ON request (person) WHERE state = 2;"
    "DELETE FROM migration WHERE version = 3; PRAGMA user_version = 2;";
inline constexpr char kBackToSchema1[] =
    "DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_deleted; DROP TRIGGER audit_is_not_replaced;"
    "DROP TABLE audit; DROP INDEX request_unknown; ALTER TABLE email DROP COLUMN purged_confirmed;"
    "ALTER TABLE email DROP COLUMN purged_possible; DELETE FROM migration WHERE version = 2; PRAGMA user_version = 1";

// To each older schema: by one step, by two ...
inline std::vector<std::string> WaysBack() {
  std::vector<std::string> ways;
  for (const char* step : {kBackToSchema8, kBackToSchema6, kBackToSchema5, kBackToSchema4, kBackToSchema3,
                           kBackToSchema2, kBackToSchema1}) {
    ways.push_back(ways.empty() ? step : ways.back() + step);
  }
  return ways;
}

}  // namespace userintent::ledger
