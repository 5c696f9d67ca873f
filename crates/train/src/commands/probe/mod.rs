//! `dualenc probe`: which towers, layers and poolings fit together, before anything is trained. Each tower runs once
//! over a sample of pairs, and every combination is measured on the features.
//!
//! - `request`: what to compare.
//! - `sample`: the pairs that are drawn.
//! - `towers`: features of towers.
//! - `feature_set`: features, prepared for comparisons.
//! - `shrinkage`: covariances of few samples.
//! - `compare`: figures of two feature sets.
//! - `report`: the result.

mod compare;
mod feature_set;
pub(crate) mod report;
pub(crate) mod request;
pub(crate) mod run;
mod sample;
mod shrinkage;
mod towers;
