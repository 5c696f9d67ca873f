#!/usr/bin/env bash
# Three recipes on the quickstart's data, for docs/TRAINING.md: projections alone (LL), the text tower too (LU), and first the
# one, then the other (LL, LU). Needs scripts/quickstart.sh --data-only and a build; five minutes on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

run() {
  local name=$1
  shift
  rm -rf "runs/recipes/$name"
  echo "== $name"
  local begun=$SECONDS
  cargo run --quiet --release -- train --config configs/quickstart.toml --log plain \
    --set "run.dir=../runs/recipes/$name" --set cache.dir=../runs/recipes/cache "$@" 2>"runs/recipes/$name.log"
  echo "$((SECONDS - begun)) s"
}

mkdir -p runs/recipes
cargo run --quiet --release -- cache --config configs/quickstart.toml --set run.dir=../runs/recipes/filled --set cache.dir=../runs/recipes/cache
# A projection that starts white stays near its start; what else is new learns at four times the text tower's rate.
projections=(--set model.lock=LL --set train.learning_rate=2e-3 --set train.projection_learning_rate=
  --set 'train.group=[{match="image_projection.*", learning_rate=5e-5}]')
run LL "${projections[@]}"
run LU
run LL-LU "${projections[@]}" --set 'train.stage=[{from_epoch=8, lock="LU", learning_rate=5e-4, warmup_steps=30}]'
