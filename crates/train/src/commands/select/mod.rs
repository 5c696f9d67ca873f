//! `dualenc select`: which training images are worth training on, as lists for `only`.
//!
//! This file has nothing else. The others:
//! - `request`: what is asked for, and what was found
//! - `run`: [`run::select`], stage by stage
//! - `images`: features and scores of the images
//! - `selection`: what is still taken, and what each stage left out
//! - `near`: images that look like another one, or like one of an evaluation
//! - `classes`: images of classes, the same number of each
//! - `clusters`: spherical k-means, and a limit to the images of a cluster
//! - `lists`: the files that are written

mod classes;
mod clusters;
mod images;
mod lists;
mod near;
pub(crate) mod request;
pub(crate) mod run;
mod selection;
