// What a replica checks before it joins the others. Each refusal is one line that says what to change.
#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/ledger/inspector.h"
#include "server/postgres/change_log.h"
#include "server/postgres/member.h"
#include "server/postgres/schema.h"

namespace userintent::postgres {
namespace {

absl::Status Refuse(std::string why) { return absl::FailedPreconditionError(why); }

constexpr char kServer[] =
    "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), "
    "current_setting('transaction_read_only') = 'on', current_setting('fsync') = 'on', "
    "current_setting('full_page_writes') = 'on', current_setting('synchronous_commit'), "
    "current_setting('synchronous_standby_names') <> '', pg_backend_pid(), "
    "(SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')), "
    "pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')";

// Which database this is: a restored dump, an upgraded or another cluster has another identifier, and a database that
// was made anew another number. And on which timeline it is: a promotion begins a new one, and so does a restore to a
// point in time.
constexpr char kPlace[] =
    "SELECT system_identifier::text || '/' || (SELECT oid::text FROM pg_database WHERE datname = current_database()), "
    "('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint FROM pg_control_system()";
constexpr char kInsufficientPrivilege[] = "42501";

constexpr char kSet[] = "INSERT INTO setting VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2";

const std::initializer_list<Value> kNothing = {};

}  // namespace

absl::StatusOr<std::unique_ptr<Member>> Member::Join(MemberOptions options) {
  auto member = std::unique_ptr<Member>(new Member(std::move(options)));
  if (absl::Status s = member->Connect(); !s.ok()) return s;
  if (absl::Status s = member->CheckServer(); !s.ok()) return s;
  if (absl::Status s = member->CheckSchema(); !s.ok()) return s;
  if (absl::Status s = member->Register(true); !s.ok()) return s;
  if (absl::Status s = member->ReadLife(); !s.ok()) return s;
  return member;
}

absl::Status Member::Connect() {
  absl::StatusOr<std::unique_ptr<Connection>> opened = Connection::Open(options_.connection);
  if (!opened.ok()) return opened.status();
  absl::StatusOr<Place> place = ReadPlace(**opened);
  if (!place.ok() && (*opened)->IsBroken()) return place.status();
  // Anything else is for CheckServer to say: a standby, most of all, has no place to write to.
  place_ = place.ok() ? *std::move(place) : Place{};
  connection_ = *std::move(opened);
  return absl::OkStatus();
}

absl::Status Member::CheckServer() {
  const absl::StatusOr<Rows> rows = connection_->Query(kServer, kNothing);
  if (!rows.ok()) {
    if (connection_->sqlstate() == "26000" || connection_->sqlstate() == "42P05") {
      return Refuse(
          "a pooling proxy stands before the database, which loses the session's settings; connect to the server");
    }
    return rows.status();
  }
  if (rows->Int(0, 7) != connection_->backend_pid()) {
    return Refuse(
        "a pooling proxy stands before the database, which loses the session's settings; connect to the server");
  }
  if (rows->Int(0, 0) < 140000) return Refuse("the server is older than PostgreSQL 14");
  if (rows->Bool(0, 1) || rows->Bool(0, 2)) {
    return Refuse("the server is read-only, a standby perhaps; name the primary, or all hosts");
  }
  if (!rows->Bool(0, 3)) return Refuse("the server runs with fsync = off and may forget what it said");
  if (!rows->Bool(0, 4)) return Refuse("the server runs with full_page_writes = off and may forget what it said");
  const std::string commit = rows->Text(0, 5);
  if (commit != "on" && commit != "remote_apply") {
    return Refuse(absl::StrCat("synchronous_commit is ", commit,
                               ", though this session asked for on: what is said to be "
                               "committed may be lost"));
  }
  if (options_.single_node) return absl::OkStatus();
  if (!rows->Bool(0, 6)) {
    return Refuse(
        "synchronous_standby_names is empty, so a failover forgets what was committed and requests would be sent "
        "twice; set up a synchronous standby, or accept that with --ledger_single_node");
  }
  if (!rows->Bool(0, 9)) {
    return Refuse("the role may not see the standbys; run GRANT pg_read_all_stats TO it");
  }
  if (rows->Number(0, 8) == 0)
    return Refuse("no standby is in sync, so no commit would be confirmed; start the standby");
  return absl::OkStatus();
}

absl::Status Member::CheckSchema() {
  absl::StatusOr<int> version = VersionOf(*connection_);
  if (version.ok() && *version < SchemaVersion() && options_.migrate) {
    if (absl::Status s = Migrate(*connection_); !s.ok()) return s;
    version = VersionOf(*connection_);
  }
  if (!version.ok()) return version.status();
  if (*version == 0) {
    return Refuse(
        "the database holds no ledger; make one with userintent-ledger migrate, or start with --ledger_migrate");
  }
  if (*version < SchemaVersion()) {
    return Refuse(absl::StrCat("the schema is version ", *version, ", this program needs ", SchemaVersion(),
                               "; run userintent-ledger migrate, or start with --ledger_migrate"));
  }
  // A newer one leaves room for this version, by the rule of schema.h; more than one step ahead it may not.
  if (*version > SchemaVersion() + 1) {
    return Refuse(absl::StrCat("the schema is version ", *version, ", this program knows up to ", SchemaVersion(),
                               "; start a newer version of it"));
  }
  return absl::OkStatus();
}

// The key and the constants are compared, and the epoch is given, while nobody else does so.
absl::Status Member::Register(bool first) {
  const auto give_up = [this](absl::Status why) {
    connection_->Execute("ROLLBACK").IgnoreError();
    return why;
  };
  const BootNanos before = BootNow();
  if (absl::Status s = connection_->Execute("BEGIN"); !s.ok()) return s;
  if (absl::StatusOr<Rows> lock = connection_->Query(kJoinLock, kNothing); !lock.ok()) return give_up(lock.status());
  const absl::StatusOr<Rows> others = connection_->Query("SELECT count(*) FROM replica WHERE ended IS NULL", kNothing);
  if (!others.ok()) return give_up(others.status());
  const bool alone = first && others->Number(0, 0) == 0;
  if (absl::Status s = UseKey(alone); !s.ok()) return give_up(s);
  if (absl::Status s = UseConstants(alone); !s.ok()) return give_up(s);
  if (absl::Status s = UseEnvironment(); !s.ok()) return give_up(s);
  if (absl::Status s = UsePlace(); !s.ok()) return give_up(s);
  const absl::StatusOr<Rows> epoch =
      connection_->Query("INSERT INTO replica (name) VALUES ($1) RETURNING epoch", {options_.name});
  if (!epoch.ok()) return give_up(epoch.status());
  // What becomes of a lost answer does not matter: an epoch that nobody uses is fenced and swept like any other.
  if (absl::Status s = connection_->Commit(); !s.ok()) return s;
  const MutexLock lock(mutex_);
  epoch_ = epoch->Number(0, 0);
  lease_ = std::make_shared<Lease>();
  lease_->Extend(before + absl::ToInt64Nanoseconds(options_.constants.lease));
  return absl::OkStatus();
}

// Replicas with two keys would not know each other's addresses, and send twice. So the key changes only while none
// runs.
absl::Status Member::UseKey(bool alone) {
  const int64_t key = std::bit_cast<int64_t>(options_.key_id);
  const absl::StatusOr<Rows> rows =
      connection_->Query("SELECT key_id FROM ledger_key WHERE retired_at IS NULL", kNothing);
  if (!rows.ok()) return rows.status();
  if (rows->size() > 0 && rows->Number(0, 0) == key) return absl::OkStatus();
  if (rows->size() > 0) {
    const uint64_t stored = std::bit_cast<uint64_t>(rows->Number(0, 0));
    if (std::ranges::find(options_.previous_key_ids, stored) == options_.previous_key_ids.end()) {
      return Refuse(absl::StrCat("was made with another key (", ledger::KeyName(stored),
                                 "); with this one alone it would know nobody"));
    }
    if (!alone) {
      return Refuse(
          "the key can be changed only while no other replica runs, because two keys would not know each "
          "other's requests; stop all of them (one that was killed counts until it is fenced), then start again");
    }
    const absl::StatusOr<Rows> retired = connection_->Query(
        "UPDATE ledger_key SET retired_at = $1 WHERE retired_at IS NULL", {absl::ToUnixMicros(absl::Now())});
    if (!retired.ok()) return retired.status();
  }
  return connection_
      ->Query(
          "INSERT INTO ledger_key (key_id, since) VALUES ($1, $2) ON CONFLICT (key_id) DO UPDATE SET retired_at = NULL",
          {key, absl::ToUnixMicros(absl::Now())})
      .status();
}

absl::Status Member::UseConstants(bool alone) {
  const std::pair<std::string, absl::Duration> all[] = {
      {"ledger_lease", options_.constants.lease},
      {"ledger_fence", options_.constants.fence},
      {"quiet", options_.constants.quiet},
  };
  for (const auto& [name, duration] : all) {
    const std::string value = std::to_string(absl::ToInt64Milliseconds(duration));
    const absl::StatusOr<Rows> stored = connection_->Query("SELECT value FROM setting WHERE name = $1", {name});
    if (!stored.ok()) return stored.status();
    if (stored->size() > 0 && stored->Text(0, 0) == value) continue;
    if (stored->size() > 0 && !alone) {
      return Refuse(absl::StrCat("replicas that run have another ", name, " (", stored->Text(0, 0), " ms, here ", value,
                                 " ms; quiet is --upstream_timeout and 5 s); all must have the same"));
    }
    if (absl::Status s = connection_->Query(kSet, {name, value}).status(); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status Member::UseEnvironment() {
  if (options_.environment.empty()) return absl::OkStatus();
  const absl::StatusOr<Rows> made = connection_->Query(
      "INSERT INTO setting VALUES ('environment', $1) ON CONFLICT DO NOTHING", {options_.environment});
  if (!made.ok()) return made.status();
  const absl::StatusOr<Rows> stored =
      connection_->Query("SELECT value FROM setting WHERE name = 'environment'", kNothing);
  if (!stored.ok()) return stored.status();
  if (stored->size() > 0 && stored->Text(0, 0) == options_.environment) return absl::OkStatus();
  return Refuse(absl::StrCat("is of Astra's ", stored->size() > 0 ? stored->Text(0, 0) : "other environment",
                             ": what it knows of attempts and persons is not true elsewhere; name another database"));
}

// Some services keep it to themselves; then nothing is known of it.
absl::StatusOr<Member::Place> Member::ReadPlace(Connection& connection) {
  const absl::StatusOr<Rows> rows = connection.Query(kPlace, kNothing);
  if (rows.ok()) return Place{rows->Text(0, 0), rows->Number(0, 1)};
  if (connection.sqlstate() == kInsufficientPrivilege) return Place{};
  return rows.status();
}

absl::StatusOr<int64_t> Member::TimelineOf(const ConnectionOptions& options) {
  const absl::StatusOr<std::unique_ptr<Connection>> opened = Connection::Open(options);
  if (!opened.ok()) return opened.status();
  const absl::StatusOr<Place> place = ReadPlace(**opened);
  if (!place.ok()) return place.status();
  return place->timeline;
}

// A ledger in another place than before came there by a dump, a move or an upgrade, and only who did it knows whether
// it is whole. A new timeline most likely comes from a failover, which loses nothing, and nothing in the database tells
// it from a restore.
absl::Status Member::UsePlace() {
  if (place_.database.empty()) return absl::OkStatus();
  const absl::StatusOr<Rows> stored = connection_->Query(
      "SELECT (SELECT value FROM setting WHERE name = 'database'), (SELECT value FROM setting WHERE name = 'timeline')",
      kNothing);
  if (!stored.ok()) return stored.status();
  const std::string database = stored->IsNull(0, 0) ? "" : stored->Text(0, 0);
  const std::string before = stored->IsNull(0, 1) ? "" : stored->Text(0, 1);
  const std::string timeline = std::to_string(place_.timeline);
  if (database == place_.database && before == timeline) return absl::OkStatus();
  if (!database.empty() && database != place_.database) {
    return Refuse(
        "the ledger is in another database than the one that served it last: restored from a dump, moved or upgraded. "
        "Where it may have forgotten requests, they would be sent twice; docs/replicas.md, Backup and restore, says "
        "how "
        "to go on (DELETE FROM userintent.setting WHERE name = 'database' says that nothing is missing)");
  }
  if (database == place_.database && !before.empty()) {
    options_.warn(
        absl::StrCat("ledger: the database is on timeline ", timeline, ", it was on ", before,
                     ": a standby was promoted, which loses nothing where it was synchronous, or it was restored "
                     "to a point in time, which docs/replicas.md says how to deal with"));
  }
  if (absl::Status s = connection_->Query(kSet, {"database", place_.database}).status(); !s.ok()) return s;
  return connection_->Query(kSet, {"timeline", timeline}).status();
}

absl::Status Member::ReadLife() {
  const absl::StatusOr<Rows> rows = connection_->Query(
      "SELECT (SELECT value::bigint FROM setting WHERE name = 'ledger_id'), "
      "(SELECT value::bigint FROM setting WHERE name = 'made_at'), coalesce((SELECT max(acknowledged_at) FROM "
      "restored), 0)",
      kNothing);
  if (!rows.ok()) return rows.status();
  ledger_id_ = std::bit_cast<uint64_t>(rows->Number(0, 0));
  made_at_ = rows->Time(0, 1);
  restored_ = rows->Number(0, 2);
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Member::LastRevision() { return postgres::LastRevision(*connection_); }

}  // namespace userintent::postgres
