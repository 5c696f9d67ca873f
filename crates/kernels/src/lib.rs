//! Operations in which Burn's CPU backend (Flex) loses time: fused, vectorised and parallel, with gradients. On every
//! other backend each operation runs as the same formula in Burn's own operations, or on GPUs as kernels of our own.
//!
//! Results do not depend on the number of threads: the size of a task is fixed, and partial sums are added in a fixed
//! order.
//!
//! - `ops`: the operations of a transformer.
//! - `packed`: those of locked towers, with weights in bf16.
//! - `rounded`: linear layers and MLPs of training with products in bf16.
//! - `arguments`: what they take beside tensors.
//! - `contrastive`: the losses of a batch of image-text pairs.
//! - `structure`: how far embeddings keep the neighbourhoods of a batch.
//! - `distillation`: how far the logits of a batch are from a teacher's.
//! - `cpu`: what the fused forms are built from.
//! - `cube`: kernels for Burn's GPU backends, where its own operations lose time.
//! - `portable`: what the forms in Burn's own operations are built from.
//!
//! In shapes, `rows` are the tokens of all sequences of a batch, one after the other.

mod arguments;
mod contrastive;
mod cpu;
#[cfg(feature = "cube")]
mod cube;
mod distillation;
mod ops;
mod packed;
mod portable;
mod rounded;
mod structure;

pub use arguments::adamw_step::AdamWStep;
pub use arguments::device_parameter::DeviceParameter;
pub use arguments::dropout_mask::DropoutMask;
pub use arguments::sequences::Sequences;
pub use arguments::step_limits::StepLimits;
pub use contrastive::objective::{ColumnSums, Logits, LossRows, PairLoss};
pub use contrastive::tiled::tiled_pair_loss;
pub use contrastive::{column_sums, pair_loss, pair_loss_of_rows};
pub use cpu::chunks::CHUNK;
pub use cpu::host_values::{HostValues, host_values};
pub use cpu::malloc::{keep_freed_memory, return_freed_memory};
#[cfg(feature = "flex")]
pub use cpu::product::weighted_rows::{WeightedRows, weighted_sum};
#[cfg(feature = "cuda")]
pub use cube::cublas::products::matrix_library;
#[cfg(feature = "cube")]
pub use cube::support::assume_plane_operations;
pub use distillation::teacher::{TeacherLogits, TeacherLoss};
pub use distillation::tiled::tiled_distillation_loss;
pub use distillation::{distillation_loss, teacher_column_sums};
pub use ops::activation::Activation;
pub use ops::attention::{attends_packed, attention, has_kernel};
pub use ops::embedding::embedding;
pub use ops::gate::gated;
pub use ops::layer_norm::layer_norm;
pub use ops::linear::{linear, linear3};
pub use ops::mlp::{LinearWeights, mlp};
pub use ops::padded_attention::{padded_attention, untracked_attention};
pub use ops::residual::residual;
pub use ops::rms_norm::rms_norm;
pub use ops::softmax::masked_softmax;
pub use ops::update::{adamw_on_host, adamw_steps, first_control, joined, step_control, sums_of_squares};
pub use packed::attention::packed_attention;
pub use packed::block::{PackedBlock, PackedNorm, packed_block};
pub use packed::layers::{PackedLinear, bf16_instructions, bf16_is_faster, packed_linear, packed_mlp};
pub use portable::forms::{is_remote, with_plain_forms};
pub use portable::reads::PendingRead;
pub use portable::row_gather::RowGather;
pub use portable::row_products::MOST_SLICES;
pub use portable::transfers::{Transfers, count_read, upload};
pub use rounded::scope::with_bf16_products;
pub use structure::structure_loss;
pub use structure::tiled::tiled_structure_loss;

#[cfg(test)]
#[cfg(feature = "flex")]
mod tests;
