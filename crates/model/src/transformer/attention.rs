//! Attention, in one place: the backend's fused kernel where no gradient is wanted, the plain formula elsewhere.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Int, Tensor, module};
use dualenc_kernels::{Sequences, attention, has_kernel, linear3};

use crate::dual_encoder::lora::VisitLinear;
use crate::layers::linear::{Dropout, Linear};
use crate::params::builder::{Init, ParamBuilder};
use crate::transformer::deberta_attention::Disentangled;
use crate::transformer::encoder::EncoderConfig;
use crate::transformer::rotary::Rotary;
use crate::transformer::sequence_layout::SequenceLayout;
use crate::transformer::windows::Windows;

/// How the tokens of a sequence stand to each other in one block, made once a pass by the tower.
#[derive(Debug, Clone, Default)]
pub(crate) struct Relations {
    /// Which row of the relative position table belongs to query and key, `[seq * seq]`.
    pub relative: Option<Tensor<1, Int>>,
    /// The vectors of relative positions, `[relative positions, width]`; the encoder puts them in.
    pub embeddings: Option<Tensor<2>>,
    /// The map from the relative position table to the one that `relative` counts in, `[rows, table rows]`: for sequences
    /// of another shape than the table was learned for.
    pub resampled: Option<Tensor<2>>,
    /// What queries and keys are turned by.
    pub rotary: Option<Rotary>,
    /// True where a query must not see a key, `[1, 1, seq, seq]` or one a sequence: causal and local attention.
    pub hidden: Option<Tensor<4, Bool>>,
    /// Whether `hidden` is just that: a query sees its own key and those before it.
    pub causal: bool,
    /// What the sequences are cut into; the other relations are then those of tokens in one window.
    pub windows: Option<Windows>,
}

/// A learned number for each head and relative position, added to the scores (T5's and BEiT's relative position bias).
#[derive(Module, Debug)]
pub(crate) struct RelativeBias {
    /// `[relative positions, heads]`.
    table: Param<Tensor<2>>,
}

impl RelativeBias {
    pub fn new(at: &ParamBuilder<'_>, rows: usize, heads: usize, init_std: f64) -> Self {
        Self { table: at.param("table", [rows, heads], Init::Normal(init_std)) }
    }

    /// `[1, heads, seq, seq]`, where the relations know relative positions.
    pub fn forward(&self, relations: &Relations) -> Option<Tensor<4>> {
        let relative = relations.relative.clone()?;
        let [_, heads] = self.table.dims();
        let [pairs] = relative.dims();
        let seq = pairs.isqrt();
        let table = match &relations.resampled {
            Some(map) => map.clone().cast(self.table.val().dtype()).matmul(self.table.val()),
            None => self.table.val(),
        };
        Some(table.select(0, relative).swap_dims(0, 1).reshape([1, heads, seq, seq]))
    }
}

/// Multi-head self-attention (Vaswani et al., 2017, sec. 3.2).
#[derive(Module, Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    disentangled: Option<Disentangled>,
    heads: usize,
    dropout: f64,
}

impl Attention {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: &EncoderConfig) -> Self {
        let linear = |name, bias| Linear::new(&at.at(name), config.width, config.width, bias, config.init_std);
        Self {
            query: linear("query", config.query_bias),
            key: linear("key", config.key_bias),
            value: linear("value", config.value_bias),
            output: linear("output", config.output_bias),
            disentangled: config.disentangled.as_ref().map(|it| Disentangled::new(&at.at("disentangled"), it, config)),
            heads: config.heads,
            dropout: config.attention_dropout,
        }
    }

    /// `[rows, width]` to the same; rows attend within their own sequence. `bias` is `[1, heads, seq, seq]`.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        layout: &SequenceLayout,
        relations: &Relations,
        bias: Option<Tensor<4>>,
        dropout: &Dropout,
    ) -> Tensor<2> {
        if let Some(x) = self.attend_rows(&x, layout, relations, bias.is_some(), dropout) {
            return self.output.forward(x);
        }
        let (x, layout) = match &relations.windows {
            Some(windows) => (windows.cut.apply(x), &windows.layout),
            None => (x, layout),
        };
        let heads = |linear: &Linear| layout.to_heads(linear.forward(x.clone()), self.heads);
        let (query, key, value) = (heads(&self.query), heads(&self.key), heads(&self.value));
        let (query, key) = match &relations.rotary {
            Some(rotary) => (rotary.turn(query), rotary.turn(key)),
            None => (query, key),
        };
        let (query, bias) = match &self.disentangled {
            Some(disentangled) => disentangled.forward(query, &key, [&self.query, &self.key], relations, dropout),
            None => (query, bias),
        };
        let mask = hidden_keys(layout, relations, self.heads);
        let x = self.output.forward(layout.to_rows(self.attend(query, key, value, mask, bias, dropout)));
        match &relations.windows {
            Some(windows) => windows.join.apply(x),
            None => x,
        }
    }

    /// Its linears, by path.
    pub(crate) fn linears(&mut self, path: &str, visit: &mut VisitLinear<'_>) {
        let Self { query, key, value, output, .. } = self;
        for (name, linear) in [("query", query), ("key", key), ("value", value), ("output", output)] {
            visit(&format!("{path}.{name}"), linear);
        }
    }

    /// Plain attention by the kernel over packed rows, `[rows, width]` to the same; `None` where there is more to it than
    /// softmax over the sequence, or no kernel for the device.
    fn attend_rows(
        &self,
        x: &Tensor<2>,
        layout: &SequenceLayout,
        relations: &Relations,
        biased: bool,
        dropout: &Dropout,
    ) -> Option<Tensor<2>> {
        let Relations { relative: _, embeddings: _, resampled: _, rotary, hidden, causal, windows } = relations;
        let plain = rotary.is_none() && windows.is_none() && (hidden.is_none() || *causal);
        if !plain || biased || self.disentangled.is_some() || !has_kernel(x) {
            return None;
        }
        let (weights, biases): (Vec<_>, Vec<_>) =
            [&self.query, &self.key, &self.value].into_iter().map(Linear::weights).unzip();
        let qkv = linear3(x.clone(), weights.try_into().ok()?, biases.try_into().ok()?);
        let dropout = dropout.mask(&qkv, self.dropout);
        attention(&qkv, &Sequences { lengths: layout.lengths(), heads: self.heads, causal: *causal, dropout })
    }

    /// What one `probe` `[1, width]` sees of each sequence: `[rows, width]` to `[batch, width]`.
    pub(crate) fn pool(&self, probe: Tensor<2>, x: Tensor<2>, layout: &SequenceLayout) -> Tensor<2> {
        let [_, width] = probe.dims();
        let (batch, heads, dim) = (layout.batch, self.heads, width / self.heads);
        let query = self.query.forward(probe).reshape([1, heads, 1, dim]).expand([batch, heads, 1, dim]);
        let key = layout.to_heads(self.key.forward(x.clone()), heads);
        let value = layout.to_heads(self.value.forward(x), heads);
        let seen = self.attend(query, key, value, None, None, &Dropout::off());
        self.output.forward(seen.reshape([batch, width]))
    }

    /// `softmax(q k^T / sqrt(dim) + bias) v` over `[batch, heads, seq, dim]`; `mask` `[batch, heads, seq, seq]` is true
    /// where a query does not see a key.
    fn attend(
        &self,
        query: Tensor<4>,
        key: Tensor<4>,
        value: Tensor<4>,
        mask: Option<Tensor<4, Bool>>,
        bias: Option<Tensor<4>>,
        dropout: &Dropout,
    ) -> Tensor<4> {
        let [batch, heads, seq, dim] = query.dims();
        if !query.is_autodiff() {
            let bias = bias.map(|bias| bias.expand([batch, heads, seq, seq]));
            return module::attention(query, key, value, mask, bias, AttentionModuleOptions::default());
        }
        let scores = (query * (dim as f64).powf(-0.5)).matmul(key.swap_dims(2, 3));
        let scores = match bias {
            Some(bias) => scores + bias,
            None => scores,
        };
        let scores = match mask {
            // Not minus infinity: a slot of padding may see nothing at all, and softmax would make NaN of its row.
            Some(mask) => scores.mask_fill(mask, f32::MIN),
            None => scores,
        };
        // Sums of many exponentials need more digits than half precision has.
        let precision = scores.dtype();
        let weights = softmax(scores.cast(DType::F32), 3).cast(precision);
        dropout.apply(weights, self.dropout).matmul(value)
    }
}

/// `[batch, heads, seq, seq]`, true where a query does not see a key; `None` where all see all.
fn hidden_keys(layout: &SequenceLayout, relations: &Relations, heads: usize) -> Option<Tensor<4, Bool>> {
    let [batch, seq] = [layout.batch, layout.longest];
    let expand = |mask: Tensor<4, Bool>, heads| mask.expand([batch, heads, seq, seq]);
    let mask = match (layout.padding(), relations.hidden.clone()) {
        // Joined before there is one a head.
        (Some(padding), Some(hidden)) => Some(expand(padding, 1).bool_or(expand(hidden, 1))),
        (padding, hidden) => padding.or(hidden),
    };
    mask.map(|mask| expand(mask, heads))
}
