#!/usr/bin/env bash
# Measures dualenc on a GPU, and PyTorch on the same GPU, and prints a table. Needs no network and no Rust: a binary
# built with `--features cuda` (docs/GPU.md), a GPU with its driver, and Python 3.10 or newer with torch, transformers,
# tokenizers, numpy and pillow.
#
#   scripts/gpu_bench.sh --dualenc target/release/dualenc                    all rows; about ten minutes on one H100
#   scripts/gpu_bench.sh --dualenc before=OLD --dualenc after=NEW lu+towers   two binaries, selected rows
#   scripts/gpu_bench.sh --dualenc target/release/dualenc --device cpu --quick   check the script without a GPU
#
# Rows:
#   parity   losses of the small reference run against those on the CPU
#   lu       training with a locked image tower and cached image features, pairs/s
#   uu       training both towers from JPEG files, pairs/s
#   towers   forward pass of locked ViT-S/16 and ViT-B/16, images/s
#   profile  time and launches by kernel of a training step and of a forward pass
#   start    start of a second process, which finds the kernels that `lu` compiled, to its first step
#
# Rows joined by + share a warm-up: all of their runs compile and tune kernels at the same time, which takes minutes on
# one core each; then each run is measured alone. They must fit the GPU's memory together.
#
# --out DIR (default runs/gpu_bench) gets table.md, results.json, logs and profiles; --work DIR (default OUT/work) gets
# models, data and runs. `--help` of gpu_bench.py lists the other options.
#
# PYTHON is the Python to use, default python3.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case " $* " in *" -h "* | *" --help "*) sed -n '2,29s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
exec "${PYTHON:-python3}" "$root/scripts/gpu_bench.py" "$@"
