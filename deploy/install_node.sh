#!/bin/sh
# Puts arb_ray into $HOME/arb_ray/venv on this node. `ray up` runs it there (setup_commands);
# run by hand with --dependencies it makes everything but arb_ray itself, for a machine image.
# Repeating it is cheap: dependencies are installed only when their list has changed.
set -eu
base="$HOME/arb_ray"
venv="$base/venv"
python="${PYTHON:-python3}"

if ! "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'; then
  echo "$(hostname): Python 3.11 with its venv module is needed." \
    "On Debian 12: apt-get install python3 python3-venv rsync" >&2
  exit 3
fi

wanted="$(sha256sum <"$base/requirements.txt")"
if [ "$(cat "$venv/.requirements" 2>/dev/null || true)" != "$wanted" ]; then
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --requirement "$base/requirements.txt"
  echo "$wanted" >"$venv/.requirements"
fi

# The first lines of .bashrc, before Debian's own, which end the file for a shell without a
# terminal: `ssh node ray status` and every command of `ray up` meet the same environment.
line='. "$HOME/arb_ray/node.env"'
touch "$HOME/.bashrc"
if ! grep -qxF "$line" "$HOME/.bashrc"; then
  { echo "$line"; cat "$HOME/.bashrc"; } >"$HOME/.bashrc.new"
  mv "$HOME/.bashrc.new" "$HOME/.bashrc"
fi

if [ "${1:-}" = --dependencies ]; then exit 0; fi

# rsync keeps times and removes nothing, so the newest wheel is the one that was just sent.
wheel="$(ls -t "$base"/dist/arb_ray-*.whl 2>/dev/null | head -n 1)"
if [ -z "$wheel" ]; then
  echo "$(hostname): no wheel in $base/dist. Run make wheel before ray up" >&2
  exit 3
fi
# Always, because a wheel built again may bear the version of the one before it.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
  --no-deps --no-index --force-reinstall "$wheel"
"$venv/bin/python" -c 'import arb_ray; print("arb_ray", arb_ray.__version__, "is installed")'
