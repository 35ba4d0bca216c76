#!/bin/sh
# Makes the secrets that docker-compose.prod.yml wants, each as a file of one line.
#
#   deploy/containers/make-secrets.sh secrets
#
# What is there already stays as it is, so it may run again. The folder is closed to everyone but
# you (0700); the files in it can be read by all (0444), because each container reads them as a
# user of its own, and nobody else on this machine can enter the folder.
set -eu

if [ "$#" -ne 1 ] || [ "${1#-}" != "$1" ]; then
  echo "usage: $0 FOLDER   e.g. $0 secrets" >&2
  exit 2
fi
folder="$1"
umask 077
mkdir -p "$folder"
chmod 700 "$folder"

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

put() {
  if [ -s "$folder/$1" ]; then
    echo "kept  $folder/$1"
  else
    printf '%s\n' "$2" > "$folder/.$1.new"
    chmod 444 "$folder/.$1.new"
    mv "$folder/.$1.new" "$folder/$1"
    echo "made  $folder/$1"
  fi
}

put arb_postgres__password "$(random)"
put postgres_writer_password "$(random)"
put arb_redis__password "$(random)"
put arb_gateway__token "$(random)"
put ray_auth_token "$(random)"
put grafana_admin_password "$(random)"
# Nobody is told of an alert until the real address stands here.
put arb_alert_webhook_url "http://127.0.0.1:9/no-webhook-is-set"
