#!/usr/bin/env bash
# Runs the tests of the kernels' unsafe code (crates/kernels/src/cpu: gemm.rs, uninit.rs) under Miri, which finds
# undefined behaviour: reads of memory that is not written, accesses out of bounds, aliased references, data races.
#
# Miri cannot run the `gemm` crate, which asks the processor by inline assembly. In its place is a crate that makes the
# same reads and writes one by one. The files are tested as they are, outside of Burn, which is too large for Miri.
#
# Needs a nightly toolchain: rustup toolchain install nightly --component miri,rust-src
set -euo pipefail

cpu=$(cd "$(dirname "$0")/../crates/kernels/src/cpu" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/src" "$work/gemm/src"

cat > "$work/Cargo.toml" <<'END'
[package]
name = "kernels-under-miri"
version = "0.0.0"
edition = "2024"

[features]
default = ["flex"]
flex = []

[dependencies]
gemm = { path = "gemm" }
rayon = "1.12"

[workspace]
END
cat > "$work/src/lib.rs" <<END
#![allow(dead_code, unused_imports, unfulfilled_lint_expectations, reason = "only a part of the crate")]
mod cpu {
    #[path = "$cpu/chunks.rs"]
    pub mod chunks;
    #[path = "$cpu/gemm.rs"]
    pub mod gemm;
    #[path = "$cpu/uninit.rs"]
    pub mod uninit;
}
END
cat > "$work/gemm/Cargo.toml" <<'END'
[package]
name = "gemm"
version = "0.0.0"
edition = "2024"
END
cat > "$work/gemm/src/lib.rs" <<'END'
pub enum Parallelism {
    None,
}

#[allow(clippy::missing_safety_doc, clippy::too_many_arguments, reason = "the signature of the real crate")]
pub unsafe fn gemm(
    m: usize, n: usize, k: usize,
    dst: *mut f32, dst_cs: isize, dst_rs: isize, read_dst: bool,
    lhs: *const f32, lhs_cs: isize, lhs_rs: isize,
    rhs: *const f32, rhs_cs: isize, rhs_rs: isize,
    alpha: f32, beta: f32, _: bool, _: bool, _: bool, _: Parallelism,
) {
    for i in 0..m as isize {
        for j in 0..n as isize {
            unsafe {
                let out = dst.offset(i * dst_rs + j * dst_cs);
                let terms = (0..k as isize)
                    .map(|p| *lhs.offset(i * lhs_rs + p * lhs_cs) * *rhs.offset(p * rhs_rs + j * rhs_cs));
                let sum = beta * terms.sum::<f32>();
                out.write(if read_dst { alpha * *out + sum } else { sum });
            }
        }
    }
}
END

cd "$work"
# rayon's queues cast integers to pointers, and its threads outlive the tests.
export MIRIFLAGS="${MIRIFLAGS:--Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-ignore-leaks}"
export CARGO_TARGET_DIR="$work/target" RAYON_NUM_THREADS="${RAYON_NUM_THREADS:-2}"
cargo +nightly miri test --quiet -- --test-threads 1 "$@"
