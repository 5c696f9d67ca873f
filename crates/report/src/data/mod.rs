//! What the pages show, as plain data.

pub(crate) mod evaluation;
pub(crate) mod number;
pub(crate) mod pages;
pub(crate) mod picture;
pub(crate) mod run;
