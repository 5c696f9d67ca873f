//! Rows in another order. No row is read twice, so that the gradient is a gather as well.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::portable::graph::with_gradient;
use crate::portable::transfers::upload;

/// A reordering of rows that may leave rows out and insert rows without a source.
#[derive(Debug, Clone)]
pub struct RowGather {
    forward: Rows,
    backward: Rows,
}

/// One direction of a gather, outside of the graph.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    /// `[outputs]`: the source of each output row, 0 where there is none.
    sources: Tensor<1, Int>,
    /// `[outputs, 1]`: 1, or 0 where there is no source; `None` if every output row has one.
    has_source: Option<Tensor<2>>,
}

impl Rows {
    /// `sources`: the source of each output row. `device` is without autodiff.
    pub fn new(sources: &[Option<usize>], device: &Device) -> Self {
        let count = sources.len();
        let indices: Vec<i32> = sources.iter().map(|source| source.unwrap_or(0) as i32).collect();
        let has_source = sources.contains(&None).then(|| {
            let factors = sources.iter().map(|source| f32::from(source.is_some())).collect::<Vec<_>>();
            upload(TensorData::new(factors, [count, 1]), device)
        });
        Self { sources: upload(TensorData::new(indices, [count]), device), has_source }
    }

    /// Output rows without a source hold those of row 0.
    fn gather(&self, x: Tensor<2>) -> Tensor<2> {
        x.select(0, self.sources.clone())
    }

    /// Output rows without a source are 0.
    pub fn gather_or_zero(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.has_source {
            Some(factors) => {
                let factors = factors.clone().cast(x.dtype());
                self.gather(x) * factors
            }
            None => self.gather(x),
        }
    }
}

impl RowGather {
    /// `sources`: the row that each output row is read from, among `count`; `None` for none. The gather's own tensors
    /// are placed on `device`, without autodiff.
    ///
    /// # Panics
    ///
    /// If a row is not below `count`, or is read twice.
    pub fn new(sources: &[Option<usize>], count: usize, device: &Device) -> Self {
        let mut outputs = vec![None; count];
        for (output, source) in sources.iter().enumerate() {
            if let Some(source) = *source {
                assert!(outputs[source].replace(output).is_none(), "row {source} is read twice");
            }
        }
        let device = &device.clone().without_autodiff();
        Self { forward: Rows::new(sources, device), backward: Rows::new(&outputs, device) }
    }

    /// The gather that puts each row back to where it was read from.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self { forward: self.backward.clone(), backward: self.forward.clone() }
    }

    /// Maps `[count, width]` to `[outputs, width]`. Rows without a source are 0.
    pub fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        let backward = self.backward.clone();
        with_gradient(x, |x| self.forward.gather_or_zero(x), move |gradient| backward.gather_or_zero(gradient))
    }

    /// As [`RowGather::apply`], but rows without a source hold any values. Their gradient is ignored.
    pub fn apply_unfilled(&self, x: Tensor<2>) -> Tensor<2> {
        let backward = self.backward.clone();
        with_gradient(x, |x| self.forward.gather(x), move |gradient| backward.gather_or_zero(gradient))
    }
}
