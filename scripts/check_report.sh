#!/usr/bin/env bash
# Renders the fixtures of the report pages and loads each in headless Chromium: light, dark, on a phone, in print.
# Fails on console errors, network requests, overflow, low contrast, or bad structure.
#
#     scripts/check_report.sh [OUT_DIR]
#
# Pages, screenshots and PDFs are left in OUT_DIR (default: a new temporary directory). Needs Node 18 or newer and
# Chromium or Chrome: `apt install chromium nodejs`, or set CHROMIUM to its path.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-$(mktemp -d)}
mkdir -p "$out"
for fixture in crates/report/tests/fixtures/*.json; do
    cargo run --quiet -p dualenc-report --example render -- "$fixture" "$out/$(basename "$fixture" .json).html"
done
node scripts/check_report.mjs "$out"
