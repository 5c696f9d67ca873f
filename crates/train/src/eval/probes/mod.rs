//! Probes of image features: a k-NN and a linear classifier, fitted to some labelled images and tested on others.
//! Unlike zero-shot classification they need no text tower, so they tell whether the image tower or the alignment
//! limits a model.
//!
//! - `probe_data`: labelled images on a train and a test side.
//! - `measure`: from features to metrics.
//! - `knn`: the votes of the nearest train images.
//! - `ridge`: the linear classifier, in closed form.
//! - `matrix`: dense matrices in f64.

pub(crate) mod knn;
pub(crate) mod matrix;
pub(crate) mod measure;
pub(crate) mod probe_data;
pub(crate) mod ridge;
