#include "server/ledger/sqlite_schema.h"

namespace userintent::ledger {

// Applied in order, all that are due in one transaction, never changed once released.
//
// email: attempts of one address; kept for ever. request: one row per (caller, request_id), in the order of arrival, so
// that the rows of one batch lie together: request ids are random, and a table in their order would touch a page of its
// own for each row, twice. Two indexes are partial: of all rows only the few open ones are looked for by address, and
// only the successful ones by person (version 3).
//
// Version 2. audit: what operators did, for ever. email.purged_*: the part of its attempts whose requests were
// forgotten. request_unknown: for the list of unresolved requests; it costs nothing while a request takes its normal
// way.
//
// Version 3. request_person: within the address, whose numbers grow with time, so that the entries of one batch lie
// together. A person's digest alone is random, and took a page of its own for each call.
//
// Version 4. probe.revision: see SqliteStore::revision. restored: that this ledger is a copy which an operator put in
// place of a newer one, and knows it (docs/decisions/0008); for ever.
//
// Version 5. What a call reads of an intent that was created. The last five columns are NULL until Astra was asked
// about it again: the answer to the creation is the latest reading, and is kept once. request_intent: the end of an id
// tells enough of them apart, and a third of the bytes are fewer pages a call; the whole id is compared in the row.
//
// Version 6. change: which request changed, in order (see change_feed.h); append only, so that it costs no random page,
// and its oldest entries are forgotten. conflict: proofs that contradicted what is recorded, for ever. request_attempt:
// which row a webhook speaks of; without those that are SENDING or SUCCEEDED, so that it costs nothing while a request
// takes its normal way. Not as IN (3, 4, 5): for a list of three SQLite makes a table of its own each time it looks.
//
// Version 7. webhook: what Astra sent, in the order of arrival; due_at is NULL once it is done. The indexes hold those
// that wait, by when they are due and by when they came; all by when they came, for the 30 days that they are kept; and
// those that name an attempt or none, for what an operator is shown of an unresolved request. receiver_period: when
// webhooks could be received.
//
// Version 8. environment: which of Astra's environments the attempts, persons and intents are of; empty until a start
// could tell.
//
// Version 9. What rows are found by, in tables of its own that sqlite_merged_index.h writes: request and email lose the
// indexes that made sure of each request id and each address being there once, and request_intent goes. Their rows keep
// their numbers, which `change` and the rows name. merged_to: up to which row a table has every key.
const std::vector<Migration>& Migrations() {
  static const auto* const kAll = new std::vector<Migration>{
      {1, R"sql(
CREATE TABLE migration (
  version INTEGER PRIMARY KEY,
  applied_at INTEGER NOT NULL
) STRICT;

CREATE TABLE probe (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  written INTEGER NOT NULL
) STRICT;
INSERT INTO probe VALUES (1, 0);

CREATE TABLE ledger_key (
  key_id INTEGER PRIMARY KEY,
  since INTEGER NOT NULL,
  retired_at INTEGER
) STRICT;

CREATE TABLE caller (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE email (
  id INTEGER PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
  confirmed INTEGER NOT NULL CHECK (confirmed >= 0),
  possible INTEGER NOT NULL CHECK (possible >= 0)
) STRICT;

CREATE TABLE request (
  id INTEGER PRIMARY KEY,
  caller INTEGER NOT NULL,
  request_id BLOB NOT NULL CHECK (length(request_id) = 16),
  state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 5),
  sent INTEGER NOT NULL CHECK (sent BETWEEN 0 AND 2),
  reason INTEGER NOT NULL,
  http_status INTEGER NOT NULL,
  confirmed INTEGER NOT NULL CHECK (confirmed IN (0, 1)),
  user_intent_id TEXT NOT NULL,
  astra_status TEXT NOT NULL,
  astra_request_id TEXT NOT NULL,
  answered_at INTEGER,
  attempt_id BLOB NOT NULL CHECK (length(attempt_id) = 16),
  attempts INTEGER NOT NULL CHECK (attempts >= 1),
  supersedes BLOB CHECK (length(supersedes) = 16),
  superseded_by BLOB CHECK (length(superseded_by) = 16),
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  key_id INTEGER NOT NULL,
  content BLOB NOT NULL CHECK (length(content) = 32),
  person BLOB NOT NULL CHECK (length(person) = 32),
  email INTEGER NOT NULL,
  UNIQUE (caller, request_id)
) STRICT;
CREATE INDEX request_open ON request (email) WHERE state IN (1, 4);
CREATE INDEX request_person ON request (person) WHERE state = 2;
)sql"},
      {2, R"sql(
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL CHECK (length(actor) BETWEEN 1 AND 128),
  action TEXT NOT NULL,
  caller TEXT NOT NULL,
  request_id BLOB NOT NULL CHECK (length(request_id) = 16),
  from_state INTEGER NOT NULL CHECK (from_state BETWEEN 1 AND 5),
  to_state INTEGER NOT NULL CHECK (to_state BETWEEN 1 AND 5),
  evidence TEXT NOT NULL CHECK (length(evidence) BETWEEN 1 AND 1024)
) STRICT;
CREATE INDEX audit_request ON audit (request_id);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit table is append-only'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit table is append-only'); END;
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq)
BEGIN SELECT RAISE(ABORT, 'the audit table is append-only'); END;

ALTER TABLE email ADD COLUMN purged_confirmed INTEGER NOT NULL DEFAULT 0 CHECK (purged_confirmed >= 0);
ALTER TABLE email ADD COLUMN purged_possible INTEGER NOT NULL DEFAULT 0 CHECK (purged_possible >= 0);

CREATE INDEX request_unknown ON request (created_at) WHERE state = 4;
)sql"},
      {3, R"sql(
DROP INDEX request_person;
CREATE INDEX request_person ON request (email, person) WHERE state = 2;
)sql"},
      {4, R"sql(
ALTER TABLE probe ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
CREATE TABLE restored (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  backup_of INTEGER NOT NULL,
  served_until INTEGER NOT NULL,
  acknowledged_at INTEGER NOT NULL
) STRICT;
)sql"},
      {5, R"sql(
ALTER TABLE request ADD COLUMN verification_type INTEGER NOT NULL DEFAULT 0;
ALTER TABLE request ADD COLUMN read_at INTEGER;
ALTER TABLE request ADD COLUMN latest_status TEXT;
ALTER TABLE request ADD COLUMN latest_user_id TEXT;
ALTER TABLE request ADD COLUMN latest_type INTEGER;
ALTER TABLE request ADD COLUMN status_since INTEGER;
CREATE INDEX request_intent ON request (substr(user_intent_id, -8)) WHERE state = 2;
)sql"},
      {6, R"sql(
CREATE TABLE change (
  revision INTEGER PRIMARY KEY,
  request INTEGER NOT NULL,
  caller INTEGER NOT NULL
) STRICT;

CREATE TABLE conflict (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  caller TEXT NOT NULL,
  request_id BLOB NOT NULL CHECK (length(request_id) = 16),
  attempt_id BLOB NOT NULL CHECK (length(attempt_id) = 16),
  recorded_state INTEGER NOT NULL CHECK (recorded_state BETWEEN 1 AND 5),
  recorded_intent TEXT NOT NULL,
  claimed_state INTEGER NOT NULL CHECK (claimed_state BETWEEN 1 AND 5),
  claimed_intent TEXT NOT NULL,
  action TEXT NOT NULL CHECK (length(action) BETWEEN 1 AND 128),
  evidence TEXT NOT NULL CHECK (length(evidence) BETWEEN 1 AND 1024),
  UNIQUE (request_id, caller, claimed_state, claimed_intent)
) STRICT;
CREATE TRIGGER conflict_is_not_changed BEFORE UPDATE ON conflict
BEGIN SELECT RAISE(ABORT, 'the conflict table is append-only'); END;
CREATE TRIGGER conflict_is_not_deleted BEFORE DELETE ON conflict
BEGIN SELECT RAISE(ABORT, 'the conflict table is append-only'); END;
CREATE TRIGGER conflict_is_not_replaced BEFORE INSERT ON conflict
WHEN EXISTS (SELECT 1 FROM conflict WHERE seq = NEW.seq)
BEGIN SELECT RAISE(ABORT, 'the conflict table is append-only'); END;
CREATE TRIGGER conflict_is_kept_once BEFORE INSERT ON conflict
WHEN EXISTS (SELECT 1 FROM conflict WHERE request_id = NEW.request_id AND caller = NEW.caller
             AND claimed_state = NEW.claimed_state AND claimed_intent = NEW.claimed_intent)
BEGIN SELECT RAISE(IGNORE); END;

CREATE INDEX request_attempt ON request (attempt_id) WHERE state >= 3;
)sql"},
      {7, R"sql(
CREATE TABLE webhook (
  id INTEGER PRIMARY KEY,
  webhook_id TEXT NOT NULL UNIQUE CHECK (length(webhook_id) BETWEEN 1 AND 128),
  type TEXT NOT NULL CHECK (length(type) <= 128),
  resource_id TEXT NOT NULL CHECK (length(resource_id) <= 256),
  attempt_id BLOB CHECK (length(attempt_id) = 16),
  received_at INTEGER NOT NULL,
  due_at INTEGER,
  tries INTEGER NOT NULL,
  result TEXT NOT NULL
) STRICT;
CREATE INDEX webhook_due ON webhook (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_waiting ON webhook (received_at) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_received ON webhook (received_at);
CREATE INDEX webhook_attempt ON webhook (attempt_id) WHERE attempt_id IS NOT NULL;
CREATE INDEX webhook_nameless ON webhook (received_at) WHERE attempt_id IS NULL;

CREATE TABLE receiver_period (
  id INTEGER PRIMARY KEY,
  began INTEGER NOT NULL,
  until INTEGER NOT NULL
) STRICT;
)sql"},
      {8, R"sql(
CREATE TABLE environment (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
  since INTEGER NOT NULL
) STRICT;
)sql"},
      {9, R"sql(
CREATE TABLE fresh_email (
  id INTEGER PRIMARY KEY,
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  confirmed INTEGER NOT NULL CHECK (confirmed >= 0),
  possible INTEGER NOT NULL CHECK (possible >= 0),
  purged_confirmed INTEGER NOT NULL DEFAULT 0 CHECK (purged_confirmed >= 0),
  purged_possible INTEGER NOT NULL DEFAULT 0 CHECK (purged_possible >= 0)
) STRICT;
INSERT INTO fresh_email SELECT id, digest, confirmed, possible, purged_confirmed, purged_possible FROM email;
DROP TABLE email;
ALTER TABLE fresh_email RENAME TO email;

CREATE TABLE fresh_request (
  id INTEGER PRIMARY KEY,
  caller INTEGER NOT NULL,
  request_id BLOB NOT NULL CHECK (length(request_id) = 16),
  state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 5),
  sent INTEGER NOT NULL CHECK (sent BETWEEN 0 AND 2),
  reason INTEGER NOT NULL,
  http_status INTEGER NOT NULL,
  confirmed INTEGER NOT NULL CHECK (confirmed IN (0, 1)),
  user_intent_id TEXT NOT NULL,
  astra_status TEXT NOT NULL,
  astra_request_id TEXT NOT NULL,
  answered_at INTEGER,
  attempt_id BLOB NOT NULL CHECK (length(attempt_id) = 16),
  attempts INTEGER NOT NULL CHECK (attempts >= 1),
  supersedes BLOB CHECK (length(supersedes) = 16),
  superseded_by BLOB CHECK (length(superseded_by) = 16),
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  key_id INTEGER NOT NULL,
  content BLOB NOT NULL CHECK (length(content) = 32),
  person BLOB NOT NULL CHECK (length(person) = 32),
  email INTEGER NOT NULL,
  verification_type INTEGER NOT NULL DEFAULT 0,
  read_at INTEGER,
  latest_status TEXT,
  latest_user_id TEXT,
  latest_type INTEGER,
  status_since INTEGER
) STRICT;
INSERT INTO fresh_request SELECT id, caller, request_id, state, sent, reason, http_status, confirmed, user_intent_id,
  astra_status, astra_request_id, answered_at, attempt_id, attempts, supersedes, superseded_by, created_at, updated_at,
  key_id, content, person, email, verification_type, read_at, latest_status, latest_user_id, latest_type, status_since
  FROM request;
DROP TABLE request;
ALTER TABLE fresh_request RENAME TO request;
CREATE INDEX request_open ON request (email) WHERE state IN (1, 4);
CREATE INDEX request_person ON request (email, person) WHERE state = 2;
CREATE INDEX request_unknown ON request (created_at) WHERE state = 4;
CREATE INDEX request_attempt ON request (attempt_id) WHERE state >= 3;

CREATE TABLE request_key (
  caller INTEGER NOT NULL,
  request_id BLOB NOT NULL CHECK (length(request_id) = 16),
  row INTEGER NOT NULL,
  PRIMARY KEY (caller, request_id)
) STRICT, WITHOUT ROWID;
INSERT INTO request_key SELECT caller, request_id, id FROM request ORDER BY caller, request_id;
CREATE TABLE email_key (
  digest BLOB NOT NULL CHECK (length(digest) = 32) PRIMARY KEY,
  row INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO email_key SELECT digest, id FROM email ORDER BY digest;
CREATE TABLE intent_key (
  ending BLOB NOT NULL CHECK (length(ending) = 8),
  row INTEGER NOT NULL,
  PRIMARY KEY (ending, row)
) STRICT, WITHOUT ROWID;
INSERT INTO intent_key SELECT intent_ending(user_intent_id) AS ending, id FROM request WHERE state = 2 ORDER BY ending, id;
CREATE TABLE merged_to (
  name TEXT NOT NULL PRIMARY KEY,
  row INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO merged_to VALUES ('request_key', (SELECT coalesce(max(id), 0) FROM request)),
  ('email_key', (SELECT coalesce(max(id), 0) FROM email)), ('intent_key', (SELECT coalesce(max(id), 0) FROM request));
)sql"},
  };
  return *kAll;
}

std::string OfAnotherEnvironment(const std::string& name) {
  return "is of Astra's " + name + ": what it knows of attempts and persons is not true elsewhere; give another path";
}

int SchemaVersion() { return Migrations().back().version; }

}  // namespace userintent::ledger
