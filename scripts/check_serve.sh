#!/usr/bin/env bash
# Serves the flags of `data/tiny`, loads the search page in headless Chromium, and searches: by text, by image, with an
# error; light, dark, on a phone. Fails on console errors, requests to elsewhere, overflow, low contrast.
#
#     scripts/check_serve.sh [OUT_DIR]
#
# Screenshots are left in OUT_DIR (default: a new temporary directory). Needs Node 18 or newer and Chromium or Chrome:
# `apt install chromium nodejs`, or set CHROMIUM to its path. DUALENC is the program (default: built by cargo).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-$(mktemp -d)}
mkdir -p "$out"
if [ -z "${DUALENC:-}" ]; then
    cargo build --quiet -p dualenc
    DUALENC=${CARGO_TARGET_DIR:-target}/debug/dualenc
fi
model=tests/goldens/train/init
"$DUALENC" embed --model "$model" --images data/tiny/train --out "$out/flags.safetensors"
"$DUALENC" serve --model "$model" --index "$out/flags.safetensors" --port 0 >"$out/address" 2>"$out/log" &
server=$!
trap 'kill -TERM "$server" 2>/dev/null || true' EXIT
for _ in $(seq 300); do
    [ -s "$out/address" ] && break
    sleep 0.1
done
image=$(find data/tiny/train -name '*.png' | sort | sed -n 20p)
node scripts/check_serve.mjs "$(cat "$out/address")" "$image" "$out"
kill -TERM "$server"
wait "$server"
trap - EXIT
