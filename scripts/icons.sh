#!/usr/bin/env bash
# The yardstick of docs/ALIGNMENT.md: fetches icon sets, writes 100,000 drawings with their names, trains on 20,000 of
# them with the image tower locked, and evaluates on the drawings of other designers. Needs Rust, Python 3.10 or newer
# with pip and venv, npm, and network access. Towers are those of the quickstart. Data go to icons/ (about 700 MB), the
# run to runs/icons. If interrupted, run it again to continue.
#
#   scripts/icons.sh               fetch, train and evaluate
#   scripts/icons.sh --data-only   fetch towers and data only
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

data_only=false
for argument in "$@"; do
  case "$argument" in
    --data-only) data_only=true ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "error: unknown argument \`$argument\`; expected --data-only or --help" >&2; exit 2 ;;
  esac
done
if ! $data_only && ! command -v cargo >/dev/null; then
  echo "error: \`cargo\` is not on the PATH; install Rust (https://rustup.rs) and try again" >&2
  exit 2
fi

# Also creates the environment with the packages of scripts/requirements.txt.
scripts/quickstart.sh --data-only
quickstart/.venv/bin/python scripts/icons_data.py
if $data_only; then exit 0; fi

cargo run --release -- train --config configs/icons.toml --resume
cargo run --release -- eval --config configs/icons.toml
