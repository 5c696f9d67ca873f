#!/usr/bin/env bash
# Checks the backends that are not in the default build. Type-checks `cuda`; tests the kernels for GPUs on a software
# Vulkan device; trains there with both losses, every optimiser, in parts, with adapters, in stages, in half precision
# and resumed, and compares with the CPU; counts launches, copies and reads of a training step; fills the device's
# memory; builds `ndarray`, `wgpu` and `vulkan`; trains the small reference run on `ndarray` and, through wgpu, on the
# software device.
#
#   scripts/check_backends.sh            everything
#   scripts/check_backends.sh device     what runs on the software device alone, without the builds of other backends
#
# Needs Rust, Python 3 and Mesa's lavapipe (Debian: mesa-vulkan-drivers libvulkan1). The first run compiles for about 40
# minutes on two cores, so this is not part of .ci/run.
#
# `DOCS_RS=1` stops the build script of the `cuda` feature from fetching LLVM. That suffices for types, not for linking.
# The runs use `wgpu-untuned`, because kernel tuning crashes the shader compiler of Mesa 22.3.
#
# Last results, two cores, Mesa 22.3.6 (llvmpipe). 20 losses against the CPU's, largest relative difference: losses
# 3.4e-7, optimisers 3.8e-7, parts of batches 4.3e-7, adapters 2.2e-7, a locked tower in f16 2.6e-4 (the device lacks
# bf16); resumed runs have the same bits. A step of 256 pairs: 398 launches, 1 read, 174 KB. An earlier version: ndarray
# 1.6e-6, wgpu 1.6e-6; vulkan compiled, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/backends"
# Optimise for compile time: the runs below are tiny.
quick=(--config 'profile.dev.opt-level=0' --config 'profile.dev.package."*".opt-level=0' --config 'profile.dev.debug=false')

# Lavapipe is a CPU device, which no backend selects by default.
export CUBECL_WGPU_DEFAULT_DEVICE=Cpu
echo "kernels for GPUs: testing"
cargo test --quiet --package dualenc-kernels "${quick[@]}" --features wgpu,fusion --lib cube
echo "training on a device: testing"
cargo test --quiet --package dualenc-train "${quick[@]}" --features wgpu-untuned --lib device_tests \
  -- --nocapture --test-threads=1
[ "${1:-}" = device ] && exit
echo "cuda: checking types"
DOCS_RS=1 cargo check --quiet --package dualenc --features cuda
echo "ndarray, wgpu, vulkan: building"
cargo build --quiet --package dualenc "${quick[@]}" --features ndarray,wgpu,vulkan
echo "ndarray, wgpu-untuned: building"
cargo build --quiet --package dualenc "${quick[@]}" --features ndarray,wgpu-untuned

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
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
epochs = 4
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
# The tolerance covers 12 updates with f32 sums in a different order.
sys.exit(worst > 1e-3)
PY
done
