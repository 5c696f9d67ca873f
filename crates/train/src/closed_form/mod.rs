//! Heads in closed form: the linear maps of two locked towers into one space that canonical correlation analysis (CCA)
//! or ridge regression gives, without a training step. This room decides neither when heads are fitted (`model.init`
//! and `dualenc fit` do) nor where they are saved.
//!
//! - `start`: the entry: fits the heads of a run before its first step.
//! - `paired_features`: the features of all pairs, block by block.
//! - `read_ahead`: reads on a thread of its own while the caller works.
//! - `moments`: means and covariances of the pairs, in one pass.
//! - `span`: fewer values for the features of few pairs.
//! - `canonical`: from covariances to linear maps.
//! - `eigen`: eigenvectors of a symmetric matrix.
//! - `head_map`: from linear maps to the weight and bias of a head.
//! - `split`: which images are held out, to choose by.
//! - `held_out`: recall on the pairs that are held out.
//! - `temperature`: `logit_scale` and `logit_bias` in closed form.
//! - `timing`: how long a fit takes.
//! - `fit_report`: what was chosen, and the figures behind it.

pub(crate) mod canonical;
pub(crate) mod eigen;
pub(crate) mod fit_report;
pub(crate) mod head_map;
pub(crate) mod held_out;
pub(crate) mod moments;
pub(crate) mod paired_features;
mod read_ahead;
pub(crate) mod span;
pub(crate) mod split;
pub(crate) mod start;
pub(crate) mod temperature;
pub(crate) mod timing;
