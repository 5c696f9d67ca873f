#!/usr/bin/env bash
# Measures dualenc beside PyTorch and prints the table that docs/PERFORMANCE.md keeps. Needs Rust and Python 3.10 or newer
# (pip, venv); the rows on the quickstart's data need scripts/quickstart.sh --data-only first.
#
#   scripts/bench.sh                                    every row; ten minutes on two cores with --rounds 7
#   scripts/bench.sh bert infonce --rounds 21           some
#   scripts/bench.sh --quick                            whether all of it runs
#   scripts/bench.sh --write docs/PERFORMANCE.md        keeps the figures
#
# DUALENC_PYTHON names a Python that has the packages below; otherwise they are installed into runs/bench/.venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case " $* " in *" -h "* | *" --help "*) sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac

packages="torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 pillow==13.0.0 numpy==2.4.6"
python=${DUALENC_PYTHON:-}
if [ -z "$python" ]; then
  venv=runs/bench/.venv
  python=$venv/bin/python
  # The stamp is written last: a half-made environment is made anew.
  if [ "$(cat "$venv/packages.txt" 2>/dev/null || true)" != "$packages" ]; then
    echo "$venv: installing $packages" >&2
    mkdir -p runs/bench
    "${PYTHON:-python3}" -m venv --clear "$venv"
    # shellcheck disable=SC2086
    "$python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: $packages
    echo "$packages" > "$venv/packages.txt"
  fi
fi

cargo build --release
export DUALENC=$(cargo build --release --message-format=json 2>/dev/null | sed -n 's/.*"executable":"\([^"]*\/dualenc\)".*/\1/p' | tail -1)
export DUALENC_SPEED=$(cargo bench -p dualenc-train --bench speed --no-run --message-format=json \
  | sed -n 's/.*"executable":"\([^"]*\/speed-[^"]*\)".*/\1/p' | tail -1)
exec "$python" scripts/bench.py "$@"
