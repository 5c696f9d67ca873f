//! What all pages are made of: the frame, numbers as text, names of metrics, pictures.

pub(crate) mod format;
pub(crate) mod frame;
pub(crate) mod metric_names;
pub(crate) mod pictures;
pub(crate) mod prose;
pub(crate) mod tables;
