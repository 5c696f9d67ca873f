#!/usr/bin/env bash
# Runs the fault tests of docs/RELIABILITY.md with the counts of a soak, in optimised code, and prints a table with the
# time and the figures of each section.
#
#   scripts/soak.sh                  every section
#   scripts/soak.sh kill disk        these sections: go on after an interruption, or repeat one
#   scripts/soak.sh --list           the sections and their counts
#
# Needs Rust; `disk` mounts small file systems in memory: run it as root, or as `unshare --map-root-user --mount
# scripts/soak.sh disk`, or leave these tests out with DUALENC_NO_MOUNT=1. Logs go to runs/soak/.
#
#   DUALENC_SEED=N    other moments, places and mutations (default 1)
#   SOAK_PROFILE=dev  without optimisation, for a quick look (default release)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Section, multiplier of the counts on each push, Cargo target, filters of the tests.
sections=(
  "kill       5  program  kill::random kill::crashes kill::killed resume:: selection::best_survives"
  "signals    9  program  kill::signals"
  "disk       2  program  disk::"
  "corruption 4  program  corruption:: faults::"
  "mutations  3  train    run_dir::checkpoint:: run_dir::atomic_file:: run_dir::metrics_log::"
  "retention 17  train    run_dir::best::"
  "resume     2  program  resume_matrix:: resume_inputs::"
  "races     10  program  races::"
  "numbers    4  program  not_finite:: guards:: locks::"
  "cache      4  program  cache::"
  "config     2  train    config::tests"
  "input     10  data     fuzz:: hostile_tar:: faults:: rows:: limits::"
  "weights   20  model    weights::tests pretrained::tests"
  "commands   1  program  signals:: exit_codes::"
  "load      50  program  load::"
)

list() {
  printf '%-12s %-10s %s\n' section multiplier tests
  for entry in "${sections[@]}"; do
    read -r name factor target filters <<<"$entry"
    printf '%-12s %-10s %s: %s\n' "$name" "$factor" "$target" "$filters"
  done
}

wanted=()
for argument in "$@"; do
  case "$argument" in
    -h | --help) sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --list) list; exit 0 ;;
    *)
      if ! list | grep -q "^$argument "; then
        echo "error: unknown section \`$argument\`; \`scripts/soak.sh --list\` shows them" >&2
        exit 2
      fi
      wanted+=("$argument")
      ;;
  esac
done

profile=()
if [ "${SOAK_PROFILE:-release}" = release ]; then profile=(--release); fi
declare -A targets=(
  [program]="--package dualenc --test integration"
  [train]="--package dualenc-train --lib"
  [data]="--package dualenc-data --test data"
  [model]="--package dualenc-model --lib"
)
logs=runs/soak
mkdir -p "$logs"

is_wanted() {
  [ ${#wanted[@]} -eq 0 ] || [[ " ${wanted[*]} " == *" $1 "* ]]
}

# Before the clock starts.
needed=$(for entry in "${sections[@]}"; do
  read -r name factor target filters <<<"$entry"
  if is_wanted "$name"; then echo "$target"; fi
done | sort -u)
for target in $needed; do
  # shellcheck disable=SC2086 # each is a list of arguments
  cargo test --quiet "${profile[@]}" ${targets[$target]} --no-run || exit 1
done

failed=0
began=$(date +%s)
summary=$logs/summary.txt
{
  echo "$(date -u +%F), commit $(git rev-parse --short HEAD), seed ${DUALENC_SEED:-1}, ${SOAK_PROFILE:-release}," \
    "$(nproc) cores"
} | tee "$summary"
for entry in "${sections[@]}"; do
  read -r name factor target filters <<<"$entry"
  if ! is_wanted "$name"; then continue; fi
  log=$logs/$name.log
  started=$(date +%s)
  # One test at a time: the others would disturb its moments.
  # shellcheck disable=SC2086
  DUALENC_SOAK=$factor cargo test --quiet "${profile[@]}" ${targets[$target]} -- $filters \
    --test-threads 1 --nocapture >"$log" 2>&1
  status=$?
  took=$(($(date +%s) - started))
  passed=$(sed -n 's/^test result: .* \([0-9][0-9]*\) passed; \([0-9][0-9]*\) failed.*/\1 passed, \2 failed/p' "$log")
  if [ "$status" -eq 0 ] && [[ "$passed" != 0* ]]; then result=ok; else result=FAILED failed=1; fi
  {
    printf '%-12s %-7s %5d s  %s\n' "$name" "$result" "$took" "${passed:-did not run: see $log}"
    sed -n -e 's/^.*figure: /    /p' -e 's/^.*\(^\|\.\.\. \)\([^ ].* inputs from seed .*\)/    \2/p' "$log"
  } | tee -a "$summary"
done
printf 'all %s s; %s\n' "$(($(date +%s) - began))" "$([ $failed -eq 0 ] && echo 'no failure' || echo 'FAILED')" | tee -a "$summary"
exit $failed
