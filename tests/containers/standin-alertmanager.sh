#!/bin/sh
# Debian 12 has Alertmanager 0.25, which does not know url_file (0.26): the file's line is put
# where the newer one would read it. All else of the real configuration is used as it is.
set -eu
url="$(cat /run/secrets/arb_alert_webhook_url)"
sed "s|url_file: /run/secrets/arb_alert_webhook_url|url: $url|" \
  /etc/alertmanager/alertmanager.yml > /tmp/alertmanager.yml
shift
exec prometheus-alertmanager --config.file=/tmp/alertmanager.yml "$@"
