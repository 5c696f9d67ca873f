//! TODO

pub(crate) mod image_index;
pub(crate) mod images;
pub(crate) mod key;
pub(crate) mod locked_towers;
pub(crate) mod parallel_forward;
pub(crate) mod store;
pub(crate) mod store_index;
pub(crate) mod texts;
