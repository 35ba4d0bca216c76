#!/bin/sh
# Dumps the database, again and again, and keeps the newest dumps. POSIX sh: it runs in whatever
# PostgreSQL image the stack uses, so that pg_dump is as new as the server.
#
#   backup.sh loop       dump now and every BACKUP_INTERVAL_S seconds; the service's command
#   backup.sh once       one dump
#   backup.sh health     exit 1 when the newest dump is older than two intervals
#   backup.sh restore FILE DATABASE
#                        make DATABASE, which must not exist, from a dump
#
# It reads PGHOST, PGUSER, PGDATABASE, PASSWORD_FILE, BACKUP_DIR, BACKUP_INTERVAL_S and
# BACKUP_KEEP_COUNT. Exit codes: 0 done, 1 it failed and says why, 2 asked wrongly.
set -eu
umask 077

: "${BACKUP_DIR:=/backups}" "${BACKUP_INTERVAL_S:=21600}" "${BACKUP_KEEP_COUNT:=28}"
RETRY_S=60

say() { echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) backup: $*"; }

for number in "$BACKUP_INTERVAL_S" "$BACKUP_KEEP_COUNT"; do
  case "$number" in
    '' | *[!0-9]* | 0*)
      say "BACKUP_INTERVAL_S and BACKUP_KEEP_COUNT must be whole numbers of at least 1" >&2
      exit 2
      ;;
  esac
done

login() {
  if [ -n "${PASSWORD_FILE:-}" ]; then
    PGPASSWORD="$(cat "$PASSWORD_FILE")"
    export PGPASSWORD
  fi
}

newest() { find "$BACKUP_DIR" -maxdepth 1 -name '*.dump' | sort | tail -n 1; }

once() {
  login
  name="$PGDATABASE-$(date -u +%Y%m%dT%H%M%SZ).dump"
  part="$BACKUP_DIR/.$name.part"
  find "$BACKUP_DIR" -maxdepth 1 -name '.*.part' -exec rm -f {} +
  # A dump counts only once it is whole: dumped, readable, on the disk, and then named.
  if ! pg_dump --format=custom --compress=6 --no-password --file="$part" "$PGDATABASE" \
    || ! pg_restore --list "$part" > /dev/null; then
    rm -f "$part"
    say "the dump of $PGDATABASE on ${PGHOST:-the local server} failed" >&2
    return 1
  fi
  sync
  mv "$part" "$BACKUP_DIR/$name"
  say "wrote $name, $(wc -c < "$BACKUP_DIR/$name") bytes"
  rotate
}

# Names sort by time. Only what is beyond the number to keep goes, oldest first.
rotate() {
  surplus=$(($(find "$BACKUP_DIR" -maxdepth 1 -name '*.dump' | wc -l) - BACKUP_KEEP_COUNT))
  [ "$surplus" -gt 0 ] || return 0
  find "$BACKUP_DIR" -maxdepth 1 -name '*.dump' | sort | head -n "$surplus" | while read -r old; do
    rm -f "$old"
    say "removed ${old##*/}"
  done
}

loop() {
  # sh ends only between two commands, so sleep is waited for in the background.
  trap 'exit 0' TERM INT
  while :; do
    if once; then pause="$BACKUP_INTERVAL_S"; else pause="$RETRY_S"; fi
    sleep "$pause" &
    wait $!
  done
}

health() {
  last="$(newest)"
  if [ -z "$last" ]; then
    say "there is no dump yet"
    return 1
  fi
  if [ -z "$(find "$last" -mmin "-$((BACKUP_INTERVAL_S / 30 + 2))")" ]; then
    say "${last##*/} is older than two intervals"
    return 1
  fi
  say "newest is ${last##*/}"
}

restore() {
  login
  [ -f "$1" ] || { say "$1 is no file" >&2; return 1; }
  createdb --no-password "$2" || return 1
  # TimescaleDB refuses a restore over its catalogue unless it is told before and after.
  restored=0
  timescale pre "$2"
  # Rights name roles that this server may not have: arb-ray db roles gives them anew.
  pg_restore --no-password --no-owner --no-privileges --exit-on-error --dbname="$2" "$1" || restored=1
  timescale post "$2"
  [ "$restored" = 0 ] || { say "$2 was not restored from $1" >&2; return 1; }
  say "$2 is restored from ${1##*/}"
}

timescale() {
  if [ -n "$(pg_restore --list "$dump" | grep ' EXTENSION - timescaledb' || true)" ]; then
    psql --no-password --quiet --dbname="$2" --command \
      "CREATE EXTENSION IF NOT EXISTS timescaledb; SELECT timescaledb_$1_restore()" > /dev/null
  fi
}

case "${1:-}" in
  loop | once | health) [ "$#" = 1 ] || exit 2; "$1" ;;
  restore)
    [ "$#" = 3 ] || { say "usage: backup.sh restore FILE DATABASE" >&2; exit 2; }
    dump="$2"
    restore "$2" "$3"
    ;;
  *)
    say "usage: backup.sh loop|once|health|restore FILE DATABASE" >&2
    exit 2
    ;;
esac
