#include "server/postgres/schema.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace userintent::postgres {
namespace {

struct Migration {
  int version;
  const char* sql;
};

// Times are the gateways' microseconds since 1970; no rule compares them with the database's clock.
//
// request: one row per (caller, request_id); `id` grows, so that the rows of one batch lie together. owner: the epoch
// of the replica whose call is under way, until that one ends it. Wide columns first, so that nothing is lost between
// them. email: attempts of one address; every change of a row of an address raises its `version`, which is what
// replicas compare and set; purged_*: the part whose requests were forgotten. No index on what changes, so its updates
// stay on their page. replica: one row for each start of each process. session: one row for each connection that
// writes; the transaction that begins something locks its own, so whoever closes it knows that nothing follows.
// setting: what all replicas must agree on. No foreign keys: their locks on one hot row cost more than they tell.
//
// change: which request changed; its numbers are told in change_log.h. webhook: claimed_* say which replica works on
// it.
constexpr Migration kMigrations[] = {
    {1, R"sql(
CREATE TABLE migration (
  version int PRIMARY KEY,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE setting (
  name text PRIMARY KEY,
  value text NOT NULL
);
INSERT INTO setting VALUES
  ('ledger_id', (('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 15))::bit(60)::bigint)::text),
  ('made_at', ((extract(epoch FROM clock_timestamp()) * 1000000)::bigint)::text);

CREATE TABLE replica (
  epoch bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  started timestamptz NOT NULL DEFAULT clock_timestamp(),
  seen timestamptz NOT NULL DEFAULT clock_timestamp(),
  beat bigint NOT NULL DEFAULT 0,
  ended timestamptz,
  swept boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);
CREATE INDEX replica_unswept ON replica (epoch) WHERE NOT swept;

CREATE TABLE session (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  epoch bigint NOT NULL,
  open boolean NOT NULL DEFAULT true
);
CREATE INDEX session_open ON session (epoch) WHERE open;

CREATE TABLE caller (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE
);

CREATE TABLE email (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  version bigint NOT NULL DEFAULT 0,
  confirmed int NOT NULL CHECK (confirmed >= 0),
  possible int NOT NULL CHECK (possible >= 0),
  purged_confirmed int NOT NULL DEFAULT 0 CHECK (purged_confirmed >= 0),
  purged_possible int NOT NULL DEFAULT 0 CHECK (purged_possible >= 0),
  digest bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

CREATE TABLE request (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key_id bigint NOT NULL,
  email bigint NOT NULL,
  owner bigint NOT NULL,
  created_at bigint NOT NULL,
  updated_at bigint NOT NULL,
  answered_at bigint,
  read_at bigint,
  status_since bigint,
  caller int NOT NULL,
  reason int NOT NULL,
  verification_type int NOT NULL,
  latest_type int,
  state smallint NOT NULL CHECK (state BETWEEN 1 AND 5),
  sent smallint NOT NULL CHECK (sent BETWEEN 0 AND 2),
  http_status smallint NOT NULL,
  attempts smallint NOT NULL CHECK (attempts >= 1),
  confirmed boolean NOT NULL,
  request_id uuid NOT NULL,
  attempt_id uuid NOT NULL,
  supersedes uuid,
  superseded_by uuid,
  content bytea NOT NULL CHECK (octet_length(content) = 32),
  person bytea NOT NULL CHECK (octet_length(person) = 32),
  user_intent_id text NOT NULL,
  astra_status text NOT NULL,
  astra_request_id text NOT NULL,
  latest_status text,
  latest_user_id text,
  UNIQUE (caller, request_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX request_email ON request (email);
CREATE INDEX request_sending ON request (owner) WHERE state = 1;
CREATE INDEX request_unknown ON request (created_at) WHERE state = 4;
CREATE INDEX request_intent ON request (right(user_intent_id, 8)) WHERE state = 2;
CREATE INDEX request_attempt ON request (attempt_id) WHERE state >= 3;

CREATE TABLE change (
  revision bigint PRIMARY KEY,
  request bigint NOT NULL,
  caller int NOT NULL
);

CREATE TABLE audit (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at bigint NOT NULL,
  actor text NOT NULL CHECK (octet_length(actor) BETWEEN 1 AND 128),
  action text NOT NULL,
  caller text NOT NULL,
  request_id uuid NOT NULL,
  from_state smallint NOT NULL CHECK (from_state BETWEEN 1 AND 5),
  to_state smallint NOT NULL CHECK (to_state BETWEEN 1 AND 5),
  evidence text NOT NULL CHECK (octet_length(evidence) BETWEEN 1 AND 1024)
);
CREATE INDEX audit_request ON audit (request_id);

CREATE TABLE conflict (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at bigint NOT NULL,
  caller text NOT NULL,
  request_id uuid NOT NULL,
  attempt_id uuid NOT NULL,
  recorded_state smallint NOT NULL CHECK (recorded_state BETWEEN 1 AND 5),
  recorded_intent text NOT NULL,
  claimed_state smallint NOT NULL CHECK (claimed_state BETWEEN 1 AND 5),
  claimed_intent text NOT NULL,
  action text NOT NULL CHECK (octet_length(action) BETWEEN 1 AND 128),
  evidence text NOT NULL CHECK (octet_length(evidence) BETWEEN 1 AND 1024),
  UNIQUE (request_id, caller, claimed_state, claimed_intent)
);

CREATE FUNCTION is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the table % is append-only', TG_TABLE_NAME USING ERRCODE = 'UI009';
END $$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
  FOR EACH STATEMENT EXECUTE FUNCTION is_append_only();
CREATE TRIGGER conflict_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON conflict
  FOR EACH STATEMENT EXECUTE FUNCTION is_append_only();

CREATE TABLE webhook (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  webhook_id text NOT NULL UNIQUE CHECK (octet_length(webhook_id) BETWEEN 1 AND 128),
  type text NOT NULL CHECK (octet_length(type) <= 128),
  resource_id text NOT NULL CHECK (octet_length(resource_id) <= 256),
  attempt_id uuid,
  received_at bigint NOT NULL,
  due_at bigint,
  tries int NOT NULL,
  result text NOT NULL,
  claimed_by bigint,
  claimed_until bigint
);
CREATE INDEX webhook_due ON webhook (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_waiting ON webhook (resource_id) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_received ON webhook (received_at);
CREATE INDEX webhook_attempt ON webhook (attempt_id) WHERE attempt_id IS NOT NULL;
CREATE INDEX webhook_nameless ON webhook (received_at) WHERE attempt_id IS NULL;

CREATE TABLE receiver_period (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  began bigint NOT NULL,
  until bigint NOT NULL
);

CREATE TABLE ledger_key (
  key_id bigint PRIMARY KEY,
  since bigint NOT NULL,
  retired_at bigint
);

CREATE TABLE restored (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  backup_of bigint NOT NULL,
  served_until bigint NOT NULL,
  acknowledged_at bigint NOT NULL
);

-- First of all in a transaction that begins something: whoever closes the session waits for its end.
CREATE FUNCTION fence(mine bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM userintent.session WHERE id = mine AND open FOR NO KEY UPDATE;
  IF NOT FOUND THEN RAISE EXCEPTION 'fenced' USING ERRCODE = 'UI001'; END IF;
END $$;

-- A statement touched as many rows as it was sent for; otherwise another transaction was first, and nothing holds.
CREATE FUNCTION expect(touched bigint, wanted bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  IF touched <> wanted THEN RAISE EXCEPTION 'lost' USING ERRCODE = 'UI002'; END IF;
  RETURN 0;
END $$;
)sql"},
};

// Of everybody who migrates this database.
constexpr char kLock[] = "SELECT pg_advisory_xact_lock(7308604759763838565); ";

}  // namespace

int SchemaVersion() { return kMigrations[std::size(kMigrations) - 1].version; }

absl::StatusOr<int> VersionOf(Connection& connection) {
  const absl::StatusOr<Rows> there =
      connection.Query("SELECT to_regclass('userintent.migration') IS NOT NULL", std::initializer_list<Value>{});
  if (!there.ok()) return there.status();
  if (!there->Bool(0, 0)) return 0;
  const absl::StatusOr<Rows> version =
      connection.Query("SELECT coalesce(max(version), 0) FROM userintent.migration", std::initializer_list<Value>{});
  if (!version.ok()) return version.status();
  return version->Int(0, 0);
}

absl::Status Migrate(Connection& connection) {
  for (const Migration& migration : kMigrations) {
    const absl::StatusOr<int> version = VersionOf(connection);
    if (!version.ok()) return version.status();
    if (*version >= migration.version) continue;
    // Looked at again under the lock: somebody else may have been quicker. A second application fails on what is there,
    // and is told apart by the version that is found afterwards.
    const std::string sql =
        absl::StrCat("BEGIN; ", kLock, "CREATE SCHEMA IF NOT EXISTS userintent; SET LOCAL search_path TO userintent; ",
                     migration.sql, "INSERT INTO migration (version) VALUES (", migration.version, "); COMMIT;");
    const absl::Status done = connection.Execute(sql);
    if (done.ok()) continue;
    if (connection.IsBroken()) return done;
    if (absl::Status s = connection.Execute("ROLLBACK"); !s.ok()) return s;
    const absl::StatusOr<int> now = VersionOf(connection);
    if (!now.ok()) return now.status();
    if (*now < migration.version) return done;
  }
  return absl::OkStatus();
}

}  // namespace userintent::postgres
