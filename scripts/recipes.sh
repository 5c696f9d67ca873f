#!/usr/bin/env bash
# Trains the three recipes of docs/TRAINING.md on the quickstart's data: projections only (LL), projections and text
# tower (LU), and the first followed by the second (LL-LU). Needs Rust and the data of scripts/quickstart.sh
# --data-only. Takes five minutes on two cores after the build.
#
#   scripts/recipes.sh
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
# The whitened image projection has a low rate, to stay near its start. The rest learns at four times the text tower's
# rate.
projections=(--set model.lock=LL --set train.learning_rate=2e-3 --set train.projection_learning_rate=
  --set 'train.group=[{match="image_projection.*", learning_rate=5e-5}]')
run LL "${projections[@]}"
run LU
run LL-LU "${projections[@]}" --set 'train.stage=[{from_epoch=8, lock="LU", learning_rate=5e-4, warmup_steps=30}]'
