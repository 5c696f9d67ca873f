#!/usr/bin/env bash
# Checks the backends that are not in the default build. Type-checks `cuda`; tests the kernels for GPUs on a software
# Vulkan device; compares there, on `ndarray` and on CubeCL's CPU runtime the outputs of towers with transformers'; trains
# on the software device with both losses, every optimiser, in parts, with adapters, in stages, in half precision and
# resumed, and compares with the CPU; counts launches, copies and reads of a training step; fills the device's memory;
# builds `ndarray`, `wgpu` and `vulkan`; trains the small reference run on `ndarray` and, through wgpu, on the software
# device.
#
#   scripts/check_backends.sh              everything
#   scripts/check_backends.sh device       what runs on the software device alone, without the builds of other backends
#   scripts/check_backends.sh cubecl-cpu   what runs on CubeCL's CPU runtime alone, which needs no driver
#
# Needs Rust, Python 3 and Mesa's lavapipe (Debian: mesa-vulkan-drivers libvulkan1). CubeCL's CPU runtime needs LLVM, which
# the build fetches from GitHub or takes from where docs/GPU.md says. The first run compiles for about 40 minutes on two
# cores, so this is not part of .ci/run.
#
# `DOCS_RS=1` stops the build script of the `cuda` feature from fetching LLVM. That suffices for types, not for linking.
# The runs use `wgpu-untuned`, because kernel tuning crashes the shader compiler of Mesa 22.3.
#
# Last results, two cores, Mesa 22.3.6 (llvmpipe). 28 November 2026, all that `device` runs, in one run of 70 minutes
# beside other work: 19 tests of kernels; 18 of outputs on `ndarray` and 18 on lavapipe, within 1e-4; 20 losses on
# lavapipe against the CPU's, largest relative difference: locks and losses 4.3e-7, optimisers 3.8e-7, parts of batches
# 3.1e-7, adapters 4.1e-7, stages and rates by layer 3.2e-7, batches of two pairs 8.7e-7, a locked tower in f16 2.6e-4
# (the device lacks bf16); resumed runs have the same bits. A step of 256 pairs: 397 launches, 1 read, 174 KB. Half
# precision of models was not compared on lavapipe: those tests need bf16.
#
# 28 November 2026, all that `cubecl-cpu` runs, in one run: 16 tests of kernels; outputs of dual encoders, image towers and
# whole models within 1e-4 (7 minutes); 20 losses of 2 pairs, largest relative difference 1.1e-6 (14 minutes). An earlier
# version: 9 steps of 8 pairs 2.2e-7; 12 steps of the program on ndarray and wgpu 1.6e-6; vulkan compiled, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/backends"
only="${1:-}"
# Optimise for compile time: the runs below are tiny.
quick=(--config 'profile.dev.opt-level=0' --config 'profile.dev.package."*".opt-level=0' --config 'profile.dev.debug=false')

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# tests FEATURES ARGS: cargo test of the crates that compute, together, so that they share one build of Burn. Fails if
# no test has the name.
tests() {
  cargo test --quiet --package dualenc-kernels --package dualenc-model --package dualenc-train "${quick[@]}" \
    --features "$1" "${@:2}" | tee "$work/tests.log"
  grep -q '^test result: ok. [1-9]' "$work/tests.log" || { echo "no test was run: ${*:2}" >&2; exit 1; }
}

# goldens FEATURES DEVICE FILTER..: outputs of small towers and dual encoders on a device, against transformers'.
goldens() {
  echo "$2: comparing outputs with transformers'"
  DUALENC_TEST_DEVICE="$2" tests "$1" --test main -- --test-threads=1 "${@:3}"
}

if [ "$only" != cubecl-cpu ]; then
  # Lavapipe is a CPU device, which no backend selects by default.
  export CUBECL_WGPU_DEFAULT_DEVICE=Cpu
  features=dualenc-kernels/wgpu,dualenc-kernels/fusion,dualenc-model/ndarray,dualenc-model/wgpu-untuned
  features+=,dualenc-train/wgpu-untuned
  echo "kernels for GPUs: testing"
  tests "$features" --lib cube::
  goldens "$features" ndarray match
  goldens "$features" wgpu match
  echo "training on a device: testing"
  tests "$features" --lib -- device_tests --nocapture --test-threads=1
fi
[ "$only" = device ] && exit

features=dualenc-kernels/cubecl-cpu,dualenc-kernels/fusion,dualenc-model/cubecl-cpu,dualenc-train/cubecl-cpu
echo "kernels for GPUs on CubeCL's CPU runtime: testing"
tests "$features" --lib cube:: -- --test-threads=1
goldens "$features" cubecl-cpu dual_encoders_match image_towers_match whole_models_match
echo "training on CubeCL's CPU runtime: testing"
tests "$features" --lib -- losses_of_small_batches_agree --nocapture --test-threads=1
[ "$only" = cubecl-cpu ] && exit
echo "cuda: checking types"
DOCS_RS=1 cargo check --quiet --package dualenc --features cuda
echo "ndarray, wgpu, vulkan: building"
cargo build --quiet --package dualenc "${quick[@]}" --features ndarray,wgpu,vulkan
echo "ndarray, wgpu-untuned: building"
cargo build --quiet --package dualenc "${quick[@]}" --features ndarray,wgpu-untuned

cat >"$work/run.toml" <<TOML
[run]
dir = "run"
[model]
init = "$PWD/tests/goldens/train/init"
lock = "LU"
[data]
shuffle = false
[data.train.csv]
path = "$PWD/tests/goldens/train/train.csv"
[train]
steps = 20
batch_size = 8
learning_rate = 1e-3
TOML
for device in cpu ndarray wgpu; do
  "$CARGO_TARGET_DIR/debug/dualenc" train --config "$work/run.toml" \
    --set "run.dir=$work/$device" --device "$device" 2>"$work/$device.log" \
    || { tail -n 5 "$work/$device.log" >&2; echo "$device: FAILED"; exit 1; }
  python3 - "$work" "$device" <<'PY'
import json, sys
work, device = sys.argv[1:]
losses = [[row["loss"] for row in map(json.loads, open(f"{work}/{name}/metrics.jsonl")) if row["kind"] == "train"]
          for name in ("cpu", device)]
worst = max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True))
print(f"{device}: {len(losses[1])} losses, largest relative difference from cpu {worst:.1e}")
# The tolerance covers 20 updates with f32 sums in a different order.
sys.exit(worst > 1e-3)
PY
done
