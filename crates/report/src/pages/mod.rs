//! The pages.

pub(crate) mod comparison;
pub(crate) mod report;
pub(crate) mod results;
