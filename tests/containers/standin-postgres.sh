#!/bin/sh
# What the real image's entrypoint does, as far as the stack relies on it: begins as root, makes
# the database of POSTGRES_DB, POSTGRES_USER and POSTGRES_PASSWORD_FILE once, becomes postgres.
set -eu
if [ "$(id -u)" = 0 ]; then
  chown postgres:postgres "$PGDATA"
  chmod 0700 "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # shellcheck disable=SC2086  # words of a command line
  initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --encoding=UTF8 \
    --auth-local=trust ${POSTGRES_INITDB_ARGS:-} > /dev/null
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  pg_ctl -w -s -o "-c listen_addresses= -k /tmp" start
  [ "$POSTGRES_DB" = postgres ] || createdb -h /tmp -U "$POSTGRES_USER" "$POSTGRES_DB"
  pg_ctl -w -s -m fast stop
fi
exec "$@" -c "listen_addresses=*" -k /var/run/postgresql
