//! TODO

pub(crate) mod atomic_file;
pub(crate) mod best;
pub(crate) mod checkpoint;
pub(crate) mod fail_point;
pub(crate) mod layout;
pub(crate) mod metrics_log;
