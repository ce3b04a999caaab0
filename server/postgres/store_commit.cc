// How a Store's transaction gets to the database: everything in one flight, each change with what it expects to find.
//
// In this order, in which every transaction takes its locks: its own session; addresses that are known, which are taken
// only if they are free (SKIP LOCKED), so that none waits there; addresses and requests that are new, each in order.
#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/postgres/store.h"

namespace userintent::postgres {
namespace {

using ledger::Digest;
using ledger::Key;
using ledger::Row;
using ledger::State;

constexpr char kFence[] = "SELECT fence($1)";
constexpr char kTouch[] = "UPDATE session SET open = open WHERE id = $1";

constexpr char kNewCallers[] =
    "INSERT INTO caller (name) SELECT name FROM unnest($1::text[]) AS n (name) ORDER BY name ON CONFLICT DO NOTHING";

// $1 ids, $2 versions, $3 new digests, $4 how many.
constexpr char kRename[] =
    "WITH done AS (UPDATE email e SET digest = t.digest FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) "
    "AS t (id, version, digest) WHERE e.id = t.id AND e.version = t.version RETURNING 1) "
    "SELECT expect((SELECT count(*) FROM done), $4)";

// $1 the address that goes, $2 where its rows go; then $1 the address, $2 its version.
constexpr char kMoveRows[] = "UPDATE request SET email = $2 WHERE email = $1";
constexpr char kDrop[] =
    "WITH done AS (DELETE FROM email WHERE id = $1 AND version = $2 RETURNING 1) "
    "SELECT expect((SELECT count(*) FROM done), 1)";

// $1 ids, $2 versions, $3 confirmed, $4 possible, $5 and $6 more of the purged ones, $7 how many.
constexpr char kAddresses[] =
    "WITH want AS (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], "
    "$6::bigint[]) AS t (id, version, confirmed, possible, purged_confirmed, purged_possible)), "
    "free AS (SELECT e.id FROM email e JOIN want w ON w.id = e.id WHERE e.version = w.version ORDER BY e.id "
    "FOR NO KEY UPDATE OF e SKIP LOCKED), "
    "done AS (UPDATE email e SET version = e.version + 1, confirmed = w.confirmed, possible = w.possible, "
    "purged_confirmed = e.purged_confirmed + w.purged_confirmed, purged_possible = e.purged_possible + "
    "w.purged_possible "
    "FROM want w, free f WHERE e.id = w.id AND e.id = f.id AND e.version = w.version RETURNING 1) "
    "SELECT expect((SELECT count(*) FROM done), $7)";

// $1 digests, $2 confirmed, $3 possible, $4 and $5 purged, $6 how many. Answers their numbers.
constexpr char kNewAddresses[] =
    "WITH done AS (INSERT INTO email (digest, confirmed, possible, purged_confirmed, purged_possible) "
    "SELECT digest, confirmed, possible, pc, pp FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], "
    "$5::bigint[]) AS t (digest, confirmed, possible, pc, pp) ORDER BY digest ON CONFLICT DO NOTHING "
    "RETURNING id, digest) "
    "SELECT id, digest FROM done UNION ALL SELECT expect((SELECT count(*) FROM done), $6), NULL";

constexpr char kPersonMove[] =
    "UPDATE request r SET person = $3 FROM email e WHERE e.digest = $1 AND r.email = e.id AND r.person = $2 "
    "AND r.state = 2";

constexpr char kProgressTypes[] =
    "$2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[], "
    "$10::bigint[], $11::uuid[], $12::bigint[], $13::uuid[], $14::uuid[], $15::bigint[], $16::bigint[]";
constexpr char kProgressNames[] =
    "state, sent, reason, http_status, confirmed, user_intent_id, astra_status, astra_request_id, answered_at, "
    "attempt_id, attempts, supersedes, superseded_by, updated_at, owner";
constexpr char kProgressSet[] =
    "state = t.state, sent = t.sent, reason = t.reason, http_status = t.http_status, confirmed = t.confirmed <> 0, "
    "user_intent_id = t.user_intent_id, astra_status = t.astra_status, astra_request_id = t.astra_request_id, "
    "answered_at = t.answered_at, attempt_id = t.attempt_id, attempts = t.attempts, supersedes = t.supersedes, "
    "superseded_by = t.superseded_by, updated_at = t.updated_at, owner = t.owner";
constexpr char kBindingTypes[] = "$17::bigint[], $18::bytea[], $19::bytea[], $20::bytea[], $21::bigint[]";
constexpr char kBindingNames[] = "key_id, content, person, email_digest, verification_type";

// New rows. $1 callers, then the columns, $22 ids, $23 created, $24 how many. Answers their numbers.
const std::string& InsertSql() {
  static const auto* const kSql = new std::string(absl::StrCat(
      "WITH done AS (INSERT INTO request (caller, request_id, created_at, email, key_id, content, person, "
      "verification_type, ",
      kProgressNames,
      ") SELECT c.id, t.request_id, t.created_at, e.id, t.key_id, t.content, t.person, t.verification_type, t.state, "
      "t.sent, t.reason, t.http_status, t.confirmed <> 0, t.user_intent_id, t.astra_status, t.astra_request_id, "
      "t.answered_at, t.attempt_id, t.attempts, t.supersedes, t.superseded_by, t.updated_at, t.owner "
      "FROM unnest($1::text[], ",
      kProgressTypes, ", ", kBindingTypes, ", $22::uuid[], $23::bigint[]) AS t (caller_name, ", kProgressNames, ", ",
      kBindingNames,
      ", request_id, created_at) JOIN caller c ON c.name = t.caller_name JOIN email e ON e.digest = t.email_digest "
      "ORDER BY c.id, t.request_id ON CONFLICT DO NOTHING RETURNING id, request_id, caller) "
      "SELECT d.id, d.request_id, k.name FROM done d JOIN caller k ON k.id = d.caller "
      "UNION ALL SELECT expect((SELECT count(*) FROM done), $24), NULL, NULL"));
  return *kSql;
}

// Of rows that are there. $1 their numbers, then the columns, and behind them what each was: attempt and state, and how
// many. The version of the address guards them already; this would show a fault of the code.
std::string UpdateSql(bool whole) {
  const int at = whole ? 22 : 17;
  return absl::StrCat(
      "WITH done AS (UPDATE request r SET ", kProgressSet,
      whole ? ", key_id = t.key_id, content = t.content, person = t.person, verification_type = t.verification_type, "
              "email = (SELECT e.id FROM email e WHERE e.digest = t.email_digest)"
            : "",
      " FROM unnest($1::bigint[], ", kProgressTypes, whole ? ", " : "", whole ? kBindingTypes : "", ", $", at,
      "::uuid[], $", at + 1, "::bigint[]) AS t (id, ", kProgressNames, whole ? ", " : "", whole ? kBindingNames : "",
      ", was_attempt, was_state) WHERE r.id = t.id AND r.attempt_id = t.was_attempt AND r.state = t.was_state "
      "RETURNING 1) SELECT expect((SELECT count(*) FROM done), $",
      at + 2, ")");
}

const std::string& ProgressSql() {
  static const auto* const kSql = new std::string(UpdateSql(false));
  return *kSql;
}
const std::string& WholeSql() {
  static const auto* const kSql = new std::string(UpdateSql(true));
  return *kSql;
}

// A reading that is newer, or was begun when what is there was. No decision looks at it, so no version guards it.
constexpr char kLatest[] =
    "UPDATE request r SET read_at = t.read_at, latest_status = t.status, latest_user_id = t.user_id, "
    "latest_type = t.type, status_since = t.since FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], "
    "$5::bigint[], $6::bigint[], $7::bigint[]) AS t (id, read_at, status, user_id, type, since, after) "
    "WHERE r.id = t.id AND r.state = 2 AND (coalesce(r.read_at, t.read_at) <= t.read_at OR r.read_at = t.after)";

constexpr char kPurge[] =
    "WITH done AS (DELETE FROM request WHERE id = ANY ($1) RETURNING 1) "
    "SELECT expect((SELECT count(*) FROM done), $2)";

constexpr char kAudit[] =
    "INSERT INTO audit (at, actor, action, caller, request_id, from_state, to_state, evidence) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
constexpr char kConflict[] =
    "INSERT INTO conflict (at, caller, request_id, attempt_id, recorded_state, recorded_intent, claimed_state, "
    "claimed_intent, action, evidence) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING";

// See change_log.h for what a revision is. $1 the callers, $2 the requests.
const std::string& LogSql() {
  static const auto* const kSql = new std::string(
      absl::StrCat("INSERT INTO change (revision, request, caller) SELECT (pg_current_xact_id()::text::bigint << 20) + "
                   "k.n, r.id, r.caller FROM ",
                   kRequestByKey));
  return *kSql;
}

bool ByKey(const Row* a, const Row* b) { return a->record.key < b->record.key; }

std::vector<std::string> CallersOf(const std::vector<const Row*>& rows) {
  std::vector<std::string> names;
  for (const Row* row : rows) names.push_back(row->record.key.caller);
  return names;
}

std::vector<int64_t> HandlesOf(const std::vector<const Row*>& rows) {
  std::vector<int64_t> handles;
  for (const Row* row : rows) handles.push_back(row->handle);
  return handles;
}

void Append(std::vector<Value>& to, std::vector<Value> more) {
  to.insert(to.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

Statement InsertOf(std::vector<const Row*>& rows) {
  std::sort(rows.begin(), rows.end(), ByKey);
  std::vector<Value> values = {CallersOf(rows)};
  Append(values, ProgressArrays(rows));
  Append(values, BindingArrays(rows));
  std::vector<Uuid> ids;
  std::vector<int64_t> created;
  for (const Row* row : rows) {
    ids.push_back(row->record.key.request_id);
    created.push_back(absl::ToUnixMicros(row->record.created));
  }
  Append(values, {ids, created, rows.size()});
  return {InsertSql(), std::move(values)};
}

// `was`: what the rows were when they were fetched.
Statement UpdateOf(std::vector<const Row*> rows, const std::map<const Row*, const Row*>& was, bool whole) {
  std::sort(rows.begin(), rows.end(), [](const Row* a, const Row* b) { return a->handle < b->handle; });
  std::vector<Value> values = {HandlesOf(rows)};
  Append(values, ProgressArrays(rows));
  if (whole) Append(values, BindingArrays(rows));
  std::vector<Uuid> attempts;
  std::vector<int64_t> states;
  for (const Row* row : rows) {
    attempts.push_back(was.at(row)->record.attempt_id);
    states.push_back(static_cast<int64_t>(was.at(row)->record.state));
  }
  Append(values, {attempts, states, rows.size()});
  return {whole ? WholeSql() : ProgressSql(), std::move(values)};
}

}  // namespace

void Store::AddAddresses(std::vector<Statement>& out, Made& made) const {
  std::vector<int64_t> rename_ids, rename_versions;
  std::vector<Digest> rename_to;
  for (const Move& move : moves_) {
    if (move.into != 0) continue;
    rename_ids.push_back(move.id);
    rename_versions.push_back(move.version);
    rename_to.push_back(move.to);
  }
  if (!rename_ids.empty()) {
    const size_t count = rename_ids.size();
    out.push_back({kRename, {rename_ids, rename_versions, rename_to, count}});
  }
  std::vector<int64_t> ids, versions, confirmed, possible, purged_confirmed, purged_possible;
  std::map<Digest, const HeldAddress*> fresh;
  for (const auto& [digest, held] : addresses_) {
    if (!held.touched) continue;
    if (held.stored.id == 0) {
      fresh.emplace(digest, &held);
      continue;
    }
    ids.push_back(held.stored.id);
    versions.push_back(held.stored.version);
    confirmed.push_back(held.counters.confirmed);
    possible.push_back(held.counters.possible);
    purged_confirmed.push_back(held.purged.confirmed);
    purged_possible.push_back(held.purged.possible);
  }
  const size_t known = ids.size();
  if (known > 0) {
    out.push_back({kAddresses, {ids, versions, confirmed, possible, purged_confirmed, purged_possible, known}});
  }
  for (const Move& move : moves_) {
    if (move.into == 0) continue;
    out.push_back({kMoveRows, {move.id, move.into}});
    out.push_back({kDrop, {move.id, move.version}});
  }
  if (fresh.empty()) return;
  std::vector<Digest> digests;
  std::vector<int64_t> new_confirmed, new_possible, new_pc, new_pp;
  for (const auto& [digest, held] : fresh) {
    digests.push_back(digest);
    new_confirmed.push_back(held->counters.confirmed);
    new_possible.push_back(held->counters.possible);
    new_pc.push_back(held->purged.confirmed);
    new_pp.push_back(held->purged.possible);
  }
  made.addresses_at = out.size();
  out.push_back({kNewAddresses, {digests, new_confirmed, new_possible, new_pc, new_pp, digests.size()}});
}

void Store::AddRows(std::vector<Statement>& out, Made& made) const {
  std::vector<const Row*> inserts, progress, whole, latest;
  std::vector<int64_t> purged;
  std::map<const Row*, const Row*> was;
  for (const auto& [key, held] : rows_) {
    if (!held.now) {
      if (held.stored) purged.push_back(held.stored->handle);
      continue;
    }
    if (held.stored) was[&*held.now] = &*held.stored;
    if (held.progress && !held.stored) inserts.push_back(&*held.now);
    if (held.progress && held.stored) (held.whole ? whole : progress).push_back(&*held.now);
    if (held.latest) latest.push_back(&*held.now);
  }
  for (const ledger::Changes::PersonMove& move : person_moves_) {
    out.push_back({kPersonMove, {move.email, move.from, move.to}});
  }
  if (!inserts.empty()) {
    made.rows_at = out.size();
    out.push_back(InsertOf(inserts));
  }
  if (!progress.empty()) out.push_back(UpdateOf(std::move(progress), was, false));
  if (!whole.empty()) out.push_back(UpdateOf(std::move(whole), was, true));
  if (!latest.empty()) {
    std::vector<Value> values = {HandlesOf(latest)};
    Append(values, LatestArrays(latest));
    out.push_back({kLatest, std::move(values)});
  }
  if (!purged.empty()) out.push_back({kPurge, {purged, purged.size()}});
}

void Store::AddRecords(std::vector<Statement>& out) const {
  for (const ledger::AuditEntry& entry : audit_) {
    out.push_back({kAudit,
                   {absl::ToUnixMicros(entry.at), entry.actor, entry.action, entry.key.caller, entry.key.request_id,
                    static_cast<int>(entry.from), static_cast<int>(entry.to), entry.evidence}});
  }
  for (const ledger::Conflict& conflict : conflicts_) {
    out.push_back({kConflict,
                   {absl::ToUnixMicros(conflict.at), conflict.key.caller, conflict.key.request_id, conflict.attempt_id,
                    static_cast<int>(conflict.recorded), conflict.recorded_intent, static_cast<int>(conflict.claimed),
                    conflict.claimed_intent, conflict.action, conflict.evidence}});
  }
  if (log_.empty()) return;
  std::vector<std::string> callers;
  std::vector<Uuid> ids;
  for (const Key& key : log_) {
    callers.push_back(key.caller);
    ids.push_back(key.request_id);
  }
  out.push_back({LogSql(), {callers, ids}});
}

absl::Status Store::Commit() {
  std::vector<Statement> statements;
  std::vector<std::string> new_callers;
  bool begins = false;
  for (const auto& [key, held] : rows_) {
    if (!held.now || !held.progress) continue;
    begins = begins || held.now->record.state == State::kSending;
    if (!held.stored && !callers_.contains(key.caller)) new_callers.push_back(key.caller);
  }
  if (begins && session_ == 0) return absl::PermissionDeniedError("this replica is not registered");
  if (begins) {
    statements.push_back({kFence, {session_}});
  } else if (touch_ && session_ != 0) {
    statements.push_back({kTouch, {session_}});
  }
  if (!new_callers.empty()) statements.push_back({kNewCallers, {new_callers}});
  Made made;
  AddAddresses(statements, made);
  AddRows(statements, made);
  AddRecords(statements);
  for (Statement& statement : webhooks_.Writes()) statements.push_back(std::move(statement));
  if (statements.empty()) {
    Clear();
    return absl::OkStatus();
  }
  ++round_trips_;
  const Waiting waiting(waiting_since_);
  const absl::StatusOr<std::vector<Rows>> answers = connection_->Transact(statements);
  if (!answers.ok()) {
    if (connection_->in_doubt()) Doubt();
    Lost();
    return answers.status();
  }
  Settled(*answers, made);
  webhooks_.Committed();
  Clear();
  return absl::OkStatus();
}

// What was known of these rows and addresses may be out of date: it is fetched the next time.
void Store::Lost() {
  for (const auto& [key, held] : rows_) running_.erase(key);
  for (const auto& [email, held] : addresses_) kept_.erase(email);
}

// The numbers that the database has given to new rows and addresses.
void Store::TakeNumbers(const std::vector<Rows>& answers, const Made& made) {
  if (made.rows_at != SIZE_MAX) {
    const Rows& rows = answers[made.rows_at];
    for (int at = 0; at < rows.size(); ++at) {
      if (rows.IsNull(at, 1)) continue;
      const auto held = rows_.find(Key{rows.Text(at, 2), rows.Id(at, 1)});
      if (held != rows_.end() && held->second.now) held->second.now->handle = rows.Number(at, 0);
    }
  }
  if (made.addresses_at == SIZE_MAX) return;
  const Rows& addresses = answers[made.addresses_at];
  for (int at = 0; at < addresses.size(); ++at) {
    if (addresses.IsNull(at, 1)) continue;
    const auto held = addresses_.find(addresses.DigestAt(at, 1));
    if (held == addresses_.end()) continue;
    // A new address has version 0, without the step that a change of an old one makes.
    held->second.stored.id = addresses.Number(at, 0);
    held->second.stored.version = -1;
  }
}

// Committed: the rows that run here are kept, with their addresses.
void Store::Settled(const std::vector<Rows>& answers, const Made& made) {
  TakeNumbers(answers, made);
  for (auto& [key, held] : rows_) {
    if (!held.now) {
      running_.erase(key);
      continue;
    }
    callers_.insert(key.caller);
    const Row& row = *held.now;
    const bool mine = row.record.state == State::kSending && row.owner != 0 && row.owner == session_epoch_;
    if (!mine) {
      if (running_.erase(key) > 0) kept_.erase(row.email);
      if (held.progress) Remember(row);
      continue;
    }
    if (!held.progress) continue;
    const HeldAddress& address = addresses_[row.email];
    // Moved to another digest meanwhile: the next look is a fetch.
    if (address.stored.id == 0 || row.handle == 0) {
      running_.erase(key);
      continue;
    }
    running_[key] = row;
    kept_[row.email] = {address.stored.id, address.stored.version + (address.touched ? 1 : 0), address.counters};
  }
  for (const auto& [email, held] : addresses_) {
    if (held.touched && kept_.contains(email)) kept_[email] = {held.stored.id, held.stored.version + 1, held.counters};
  }
}

}  // namespace userintent::postgres
