//! Relative position bias (T5, Raffel et al., 2020; BEiT, Bao et al., 2022).

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::params::builder::{Init, ParamBuilder};
use crate::transformer::relations::Relations;

/// A learned bias per head and relative position, added to the attention scores.
#[derive(Module, Debug)]
pub(crate) struct RelativeBias {
    /// `[relative positions, heads]`.
    table: Param<Tensor<2>>,
}

impl RelativeBias {
    pub fn new(at: &ParamBuilder<'_>, rows: usize, heads: usize, init_std: f64) -> Self {
        Self { table: at.param("table", [rows, heads], Init::Normal(init_std)) }
    }

    /// The bias `[1, heads, seq, seq]`; `None` without relative positions.
    pub fn forward(&self, relations: &Relations) -> Option<Tensor<4>> {
        let rows = relations.table_rows.clone()?;
        let [_, heads] = self.table.dims();
        let [pairs] = rows.dims();
        let seq = pairs.isqrt();
        let table = match &relations.table_resize {
            Some(resize) => resize.clone().cast(self.table.val().dtype()).matmul(self.table.val()),
            None => self.table.val(),
        };
        Some(table.select(0, rows).swap_dims(0, 1).reshape([1, heads, seq, seq]))
    }
}
