//! An image tower that is not there: its outputs come from files.

use burn::module::Module;

/// The width of the outputs; no parameters.
#[derive(Module, Debug)]
pub struct AbsentTower {
    #[module(skip)]
    width: usize,
}

impl AbsentTower {
    pub(crate) fn new(width: usize) -> Self {
        Self { width }
    }

    /// Width of the outputs.
    pub fn width(&self) -> usize {
        self.width
    }
}
