//! What the fused operations are built from on the CPU: how work is cut into tasks, matrix products, vectorised
//! functions, outputs that are written once, and the way into Burn's autodiff graph. What a model consists of is put
//! together in `ops` and `packed`.
//!
//! - `chunks`: sizes of tasks, independent of the number of threads.
//! - `attention`: attention of one head over one sequence.
//! - `autograd`: wraps a forward and a backward function over slices as one node of Burn's graph.
//! - `bf16`: matrix products of factors in bf16, on processors with instructions for them.
//! - `gemm`: matrix products over slices behind bounds-checked views.
//! - `product`: products with a factor that is packed once, such as a weight.
//! - `simd`: elementary functions and reductions that the compiler vectorises, and run-time dispatch to AVX-512,
//!   AVX2, NEON.
//! - `uninit`: output buffers that are filled in parallel without being zeroed first.
//! - `malloc`: a setting of glibc's allocator.
//! - `host_values`: reads a tensor without a copy.

#[cfg(feature = "flex")]
pub(crate) mod attention;
#[cfg(feature = "flex")]
pub(crate) mod autograd;
#[cfg(feature = "flex")]
pub(crate) mod bf16;
pub(crate) mod chunks;
#[cfg(feature = "flex")]
pub(crate) mod column_sums;
#[cfg(feature = "flex")]
pub(crate) mod gemm;
pub(crate) mod host_values;
pub(crate) mod malloc;
#[cfg(feature = "flex")]
pub(crate) mod product;
#[cfg(feature = "flex")]
pub(crate) mod simd;
#[cfg(feature = "flex")]
pub(crate) mod uninit;
