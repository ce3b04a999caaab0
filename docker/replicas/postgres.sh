#!/bin/sh
# PostgreSQL for docker-compose.replicas.yml, as one of two machines: the primary, or the standby that follows it.
#   postgres.sh serve     until SIGTERM. NAME: this machine. PEER: the other. FIRST=yes: makes the database where there is none
#   postgres.sh promote   the standby becomes the primary
#   postgres.sh healthy   whether it serves; a primary only counts with its standby in sync, because it confirms nothing before
#   postgres.sh sql TEXT  one statement on this machine
# It shows a failover and is no manager of one: that the primary is dead, a person says. What must hold whoever says it:
# synchronous_standby_names is never empty, so a primary that was cut off confirms nothing.
set -eu
bin=$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/data
secrets=/secrets/postgres
export PGPASSFILE=$secrets/passfile PGSSLMODE=verify-full PGSSLROOTCERT=$secrets/ca.crt PGCONNECT_TIMEOUT=2 PGUSER=replicator

say() { echo "postgres.sh: $*"; }
own_timeline() { LC_ALL=C "$bin/pg_controldata" "$data" | sed -n "s/^Latest checkpoint's TimeLineID: *//p"; }
sql() { env -u PGSSLMODE "$bin/psql" -XAtq -h /tmp -U postgres -d postgres -c "$1"; }
# primary TIMELINE, standby, or nothing where it does not answer
peer() {
  "$bin/psql" -XAtq -h "$PEER" -d postgres \
    -c "SELECT CASE WHEN pg_is_in_recovery() THEN 'standby'
      ELSE 'primary ' || ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint END" 2>/dev/null || true
}
# Whether the other one was promoted after what is here: it has a later timeline.
outdated() {
  timeline=$(peer | sed -n 's/^primary //p')
  [ -n "$timeline" ] && [ "$timeline" -gt "$(own_timeline)" ]
}

# In single-user mode nothing listens, so that no one meets a database that is half made.
create() {
  say "a new database"
  "$bin/initdb" -D "$data" -U postgres --auth-local=trust --auth-host=reject --data-checksums --locale=C.UTF-8 >/dev/null
  cat >"$data/pg_hba.conf" <<RULES
local all postgres trust
hostssl userintent userintent all scram-sha-256
hostssl replication,postgres replicator all scram-sha-256
RULES
  # pg_read_all_stats: the gateways watch whether the standby is in sync.
  "$bin/postgres" --single -D "$data" postgres >/dev/null <<SQL
CREATE ROLE replicator LOGIN REPLICATION PASSWORD '$(cat $secrets/replicator_password)'
CREATE ROLE userintent LOGIN PASSWORD '$(cat $secrets/userintent_password)'
GRANT pg_read_all_stats TO userintent
CREATE DATABASE userintent OWNER userintent
SQL
}

clone() {
  say "a copy of $PEER, to follow it"
  rm -rf "$data"
  "$bin/pg_basebackup" -h "$PEER" -D "$data" -R -X stream -c fast
}

prepare() {
  if [ -s "$data/PG_VERSION" ]; then
    # Of a server that was killed: the process that has its number now is another. No other container has this volume.
    rm -f "$data/postmaster.pid"
    ! outdated || clone
    return
  fi
  while :; do
    case $(peer) in
      'primary '*) clone && return ;;
      standby) say "$PEER is a standby, whose primary was here; promote it" ;;
      *) [ "${FIRST:-}" != yes ] || { create && return; } ;;
    esac
    sleep 1
  done
}

# The settings stand here and not in the data, because a copy takes the other one's data.
begin() {
  "$bin/postgres" -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp -c "cluster_name=$NAME" \
    -c "synchronous_standby_names=ANY 1 (\"$PEER\")" -c synchronous_commit=on \
    -c ssl=on -c "ssl_cert_file=$secrets/$NAME.crt" -c "ssl_key_file=$secrets/$NAME.key" -c ssl_min_protocol_version=TLSv1.3 \
    -c wal_receiver_timeout=10s -c wal_sender_timeout=10s -c wal_retrieve_retry_interval=200ms -c client_connection_check_interval=2s \
    -c checkpoint_timeout=15min -c max_wal_size=4GB -c log_checkpoints=off -c autovacuum_vacuum_scale_factor=0.02 &
  server=$!
}
end() {
  kill -"$1" "$server" 2>/dev/null || true
  wait "$server" || true
}

serve() {
  trap 'end INT; exit 0' TERM INT
  prepare
  begin
  # A primary that comes back after the other was promoted gives way.
  while kill -0 "$server" 2>/dev/null; do
    sleep 1 & wait $! || true
    if [ ! -e "$data/standby.signal" ] && outdated; then
      say "$PEER was promoted: this one follows it"
      end QUIT
      clone
      begin
    fi
  done
  wait "$server"
}

case ${1:-serve} in
  serve) serve ;;
  promote) "$bin/pg_ctl" -D "$data" -w promote ;;
  healthy)
    [ "$(sql "SELECT pg_is_in_recovery() OR EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))")" = t ]
    ;;
  sql) sql "$2" ;;
  *) sed -n 's/^# \{0,1\}//p' "$0" | sed -n 2,5p; exit 2 ;;
esac
