//! Sources in JSON: one object per line, lists, COCO captions, Karpathy splits and others.
//!
//! - `json_source`: `[data.train.json]`, any form
//! - `form`: which form a file has
//! - `shape`: the outline of a JSON value, without its content
//! - `items`: streams the elements of a list
//! - `objects`: objects that become pairs
//! - `coco_file`: COCO's annotation files

pub(crate) mod coco_file;
pub(crate) mod form;
mod items;
pub(crate) mod json_source;
pub(crate) mod objects;
pub(crate) mod shape;
