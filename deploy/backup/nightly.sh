#!/bin/sh
# Backs the database up, looks at what was written, and retires old snapshots: for cron or a timer.
#
#   17 3 * * *  arb  BACKUP_DIR=/backups ARB_ENV=prod /opt/arb_ray/deploy/backup/nightly.sh
#
# It runs where arb-ray is installed, with the owner's login (docs/DEPLOYMENT_GUIDE.md), and reads
# BACKUP_DIR, ARB_ENV, BACKUP_KEEP_COUNT and ARCHIVE_DIR (old snapshots; empty: they are dropped
# unarchived). DSN names a database instead of the settings' own. docker-compose.prod.yml has a
# service of its own for this: backup.sh. Exit codes: those of arb-ray; cron mails what is said.
set -eu
umask 077

: "${BACKUP_DIR:?names the folder of backups}" "${ARB_ENV:=prod}" "${BACKUP_KEEP_COUNT:=28}"
: "${ARCHIVE_DIR:=}" "${DSN:=}"

# One at a time: a night that took too long must not meet the next.
mkdir -p "$BACKUP_DIR"
exec 9> "$BACKUP_DIR/.lock"
if ! flock --nonblock 9; then
  echo "nightly: another one is under way in $BACKUP_DIR" >&2
  exit 3
fi

set -- --env "$ARB_ENV"
[ -z "$DSN" ] || set -- "$@" --dsn "$DSN"
said="$(arb-ray db backup "$@" --to "$BACKUP_DIR" --keep "$BACKUP_KEEP_COUNT")"
printf '%s\n' "$said"
# Its first line names it: another database's may lie beside it and sort behind it.
arb-ray db verify --from "$(printf '%s\n' "$said" | sed -n '1s/: [0-9,]* rows, [0-9,]* bytes$//p')"
if [ -n "$ARCHIVE_DIR" ]; then
  exec arb-ray db retention "$@" --archive "$ARCHIVE_DIR"
fi
exec arb-ray db retention "$@"
