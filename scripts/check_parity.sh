#!/usr/bin/env bash
# Runs the tests that need Python: transformers loads what dualenc exports, and computes the same.
#
#   scripts/check_parity.sh
#   DUALENC_PYTHON=python scripts/check_parity.sh    # with a Python that has the packages already
#
# Without DUALENC_PYTHON, a virtual environment with the pinned packages is made in target/parity-venv (or in
# DUALENC_PARITY_VENV) and used again.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${DUALENC_PYTHON:-}" ]; then
  venv="${DUALENC_PARITY_VENV:-${CARGO_TARGET_DIR:-target}/parity-venv}"
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --requirement scripts/requirements-parity.txt
  DUALENC_PYTHON="$venv/bin/python"
fi
# A bare name is looked up, a path must not depend on the directory of a test.
DUALENC_PYTHON="$(command -v "$DUALENC_PYTHON")" || { echo "error: no Python at DUALENC_PYTHON" >&2; exit 1; }
case "$DUALENC_PYTHON" in /*) ;; *) DUALENC_PYTHON="$PWD/$DUALENC_PYTHON" ;; esac
export DUALENC_PYTHON
"$DUALENC_PYTHON" -c 'import PIL, safetensors, torch, torchvision, transformers'
# The feature store of 10,000,000 rows needs no Python.
cargo test --workspace -- --ignored --skip ten_million
