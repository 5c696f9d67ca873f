#!/usr/bin/env bash
# Compares the speed of the loader with that of PIL + torchvision and PyTorch's DataLoader, on the same 2000 JPEG files
# and the same tar shard, with two workers each. Needs Rust, and a Python with torch, torchvision, pillow and numpy.
#
#   scripts/bench_loader.sh                 five rounds; two minutes on two cores
#   scripts/bench_loader.sh --rounds 11     other options: --images N, --workers N, --folder DIR
#
# DUALENC_PYTHON is the path of that Python. Default: the environment that scripts/bench.sh installs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case " $* " in *" -h "* | *" --help "*) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac

python=${DUALENC_PYTHON:-runs/bench/.venv/bin/python}
[ -x "$python" ] || { echo "$python is missing: run scripts/bench.sh once, or set DUALENC_PYTHON" >&2; exit 2; }
LOADER_SPEED=${LOADER_SPEED:-$(cargo build --release -p dualenc-data --example loader_speed --message-format=json \
  | sed -n 's/.*"executable":"\([^"]*\/loader_speed\)".*/\1/p' | tail -1)}
export LOADER_SPEED
exec "$python" scripts/bench_loader.py "$@"
