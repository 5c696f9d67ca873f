//! One rank: nothing is exchanged.

use std::sync::Arc;

use crate::error::TrainError;
use crate::ranks::exchange::{Exchange, Patience};

/// The only rank.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alone;

impl Exchange for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn ranks(&self) -> usize {
        1
    }

    fn gather_bytes(&self, bytes: Vec<u8>, _: Patience) -> Result<Vec<Arc<Vec<u8>>>, TrainError> {
        Ok(vec![Arc::new(bytes)])
    }

    fn gather_values(&self, values: Vec<f32>) -> Result<Vec<Arc<Vec<f32>>>, TrainError> {
        Ok(vec![Arc::new(values)])
    }

    fn sum(&self, values: Vec<f32>) -> Result<Vec<f32>, TrainError> {
        Ok(values)
    }
}
