#!/usr/bin/env bash
# Compares dualenc with PyTorch, torch.compile, ONNX Runtime and OpenVINO on this machine and prints the tables of
# docs/PERFORMANCE.md. Needs Rust, a C++ compiler (for torch.compile) and Python 3.10 or newer with pip and venv. The rows
# images-png, first-step and lit also need scripts/quickstart.sh --data-only. Peers that cannot be installed, or fail, are
# named as left out.
#
#   scripts/bench.sh                                    all rows but the last line below; see docs/PERFORMANCE.md for times
#   scripts/bench.sh bert infonce --rounds 21           selected rows
#   scripts/bench.sh --quick                            few rounds and epochs, to check that every row runs
#   scripts/bench.sh --write docs/PERFORMANCE.md        update the tables of this kind of processor in the file
#   scripts/bench.sh --write docs/PERFORMANCE.md --busy write even if other processes use more than a tenth of the cores
#
# Rows: vit vit-bf16 vit-b vit-b-bf16 bert bert-bf16 bert-captions bert-captions-bf16 infonce images-jpeg
# images-jpeg-large images-jpeg-fast images-png first-step lit; only by name: ll-1m ll-1m-bf16 fit-1m (write 1.5 GB into runs/bench)
#
# DUALENC_PYTHON is the path of a Python with the packages below. Default: install them into runs/bench/.venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case " $* " in *" -h "* | *" --help "*) sed -n '2,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac

packages="torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 pillow==13.0.0 numpy==2.4.6"
peers="onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 openvino==2026.4.1"
python=${DUALENC_PYTHON:-}
if [ -z "$python" ]; then
  venv=runs/bench/.venv
  python=$venv/bin/python
  # packages.txt is written last, so an incomplete environment is created again.
  if [ "$(cat "$venv/packages.txt" 2>/dev/null || true)" != "$packages $peers" ]; then
    echo "$venv: installing $packages" >&2
    mkdir -p runs/bench
    "${PYTHON:-python3}" -m venv --clear "$venv"
    # shellcheck disable=SC2086
    "$python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: $packages
    for peer in $peers; do
      # Without a wheel for this platform, the rows name the peer as left out.
      "$python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: "$peer" \
        || echo "$peer cannot be installed" >&2
    done
    echo "$packages $peers" > "$venv/packages.txt"
  fi
fi

cargo build --release
export DUALENC=$(cargo build --release --message-format=json 2>/dev/null | sed -n 's/.*"executable":"\([^"]*\/dualenc\)".*/\1/p' | tail -1)
export DUALENC_SPEED=$(cargo bench -p dualenc-train --features internals --bench speed --no-run --message-format=json \
  | sed -n 's/.*"executable":"\([^"]*\/speed-[^"]*\)".*/\1/p' | tail -1)
exec "$python" scripts/bench.py "$@"
