//! Multi-head self-attention: the backend's fused kernel if no gradient is needed, the plain formula otherwise.

use burn::module::Module;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Tensor, module};
use dualenc_kernels::{
    PackedLinear, Sequences, attends_packed, attention, has_kernel, linear3, masked_softmax, packed_attention,
    packed_linear, padded_attention, untracked_attention,
};

use crate::layers::dropout::Dropout;
use crate::layers::linear::{Linear, LinearVisitor};
use crate::layers::norm::{Norm, NormKind};
use crate::params::builder::ParamBuilder;
use crate::transformer::config::EncoderConfig;
use crate::transformer::deberta_attention::Disentangled;
use crate::transformer::relations::Relations;
use crate::transformer::sequence_layout::SequenceLayout;

/// Multi-head self-attention (Vaswani et al., 2017, sec. 3.2).
#[derive(Module, Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    query_norm: Option<Norm>,
    key_norm: Option<Norm>,
    disentangled: Option<Disentangled>,
    heads: usize,
    key_heads: usize,
    /// Factor of the queries before the usual `1 / sqrt(head width)`, if their product is another scale.
    query_factor: Option<f64>,
    dropout: f64,
}

impl Attention {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: &EncoderConfig) -> Self {
        let EncoderConfig { width, heads, init_std, query_key_norm, .. } = *config;
        let (head_width, key_heads) = (config.head_width(), config.key_heads());
        let linear = |name, input, output, bias| Linear::new(&at.at(name), input, output, bias, init_std);
        // Every family with such norms divides by the root mean square.
        let kind = if config.norm_kind == NormKind::Layer { NormKind::Rms } else { config.norm_kind };
        let norm = |name| query_key_norm.then(|| Norm::new(&at.at(name), head_width, kind, false, config.norm_epsilon));
        Self {
            query: linear("query", width, heads * head_width, config.query_bias),
            key: linear("key", width, key_heads * head_width, config.key_bias),
            value: linear("value", width, key_heads * head_width, config.value_bias),
            output: linear("output", heads * head_width, width, config.output_bias),
            query_norm: norm("query_norm"),
            key_norm: norm("key_norm"),
            disentangled: config.disentangled.as_ref().map(|it| Disentangled::new(&at.at("disentangled"), it, config)),
            heads,
            key_heads,
            query_factor: config.attention_scale.map(|scale| scale * (head_width as f64).sqrt()),
            dropout: config.attention_dropout,
        }
    }

    /// Maps `[rows, width]` to the same shape; rows attend within their own sequence. `bias` is `[1, heads, seq, seq]`.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        layout: &SequenceLayout,
        relations: &Relations,
        bias: Option<Tensor<4>>,
        dropout: &Dropout,
    ) -> Tensor<2> {
        if let Some(x) = self.attend_packed(&x, layout, relations, bias.is_some(), dropout) {
            return self.output.forward(x);
        }
        let (x, layout) = match &relations.windows {
            Some(windows) => (windows.partition.apply(x), &windows.layout),
            None => (x, layout),
        };
        let heads = |linear: &Linear, norm: &Option<Norm>, count| {
            layout.to_heads(norm_heads(linear.forward(x.clone()), norm.as_ref(), count), count)
        };
        let query = heads(&self.query, &self.query_norm, self.heads);
        let key = heads(&self.key, &self.key_norm, self.key_heads);
        let value = heads(&self.value, &None, self.key_heads);
        let query = match self.query_factor {
            Some(factor) => query * factor,
            None => query,
        };
        let (query, key) = match &relations.rotary {
            Some(rotary) => (rotary.rotate(query), rotary.rotate(key)),
            None => (query, key),
        };
        let (key, value) = (self.for_each_query(key), self.for_each_query(value));
        let (query, bias) = match &self.disentangled {
            Some(disentangled) => disentangled.forward(query, &key, [&self.query, &self.key], relations, dropout),
            None => (query, bias),
        };
        let mask = attention_mask(layout, relations, self.heads);
        let x = self.output.forward(layout.to_rows(self.attend(query, key, value, mask, bias, dropout)));
        match &relations.windows {
            Some(windows) => windows.merge.apply(x),
            None => x,
        }
    }

    /// Keys or values `[batch, key heads, seq, dim]`, each as often as queries share it: `[batch, heads, seq, dim]`.
    fn for_each_query(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, key_heads, seq, dim] = x.dims();
        if key_heads == self.heads {
            return x;
        }
        let shared = self.heads / key_heads;
        let x = x.reshape([batch, key_heads, 1, seq, dim]).expand([batch, key_heads, shared, seq, dim]);
        x.reshape([batch, self.heads, seq, dim])
    }

    /// Calls `visit` for each projection; `path` is the attention's own.
    pub(crate) fn visit_linears(&mut self, path: &str, visit: &mut LinearVisitor<'_>) {
        let Self { query, key, value, output, .. } = self;
        for (name, linear) in [("query", query), ("key", key), ("value", value), ("output", output)] {
            visit(&format!("{path}.{name}"), linear);
        }
    }

    /// How the kernel for packed rows divides `x`. `None` if the device has no kernel, or if this is more than (causal)
    /// softmax attention over whole sequences.
    fn packed_sequences(
        &self,
        x: &Tensor<2>,
        layout: &SequenceLayout,
        relations: &Relations,
        biased: bool,
    ) -> Option<Sequences> {
        let Relations { table_rows: _, embeddings: _, table_resize: _, rotary, mask, causal, windows } = relations;
        let plain = rotary.is_none() && windows.is_none() && (mask.is_none() || *causal);
        let plain = plain && self.query_norm.is_none() && self.query_factor.is_none() && self.key_heads == self.heads;
        let sequences = Sequences { lengths: layout.lengths(), heads: self.heads, causal: *causal, dropout: None };
        let dim = self.query.weight.dims()[1] / self.heads;
        let tracked = x.is_autodiff() || [&self.query, &self.key, &self.value].iter().any(|it| it.is_autodiff());
        let takes = plain && !biased && self.disentangled.is_none() && attends_packed(x, tracked, &sequences, dim);
        takes.then_some(sequences)
    }

    /// The layers that [`packed_block`](dualenc_kernels::packed_block) computes `x` with: query, key and value, and the
    /// output; and how it divides `x`. `None` where [`Attention::forward`] does not compute with packed layers alone.
    pub(crate) fn packed(
        &self,
        x: &Tensor<2>,
        layout: &SequenceLayout,
        relations: &Relations,
    ) -> Option<([&PackedLinear; 3], &PackedLinear, Sequences)> {
        let projections = [self.query.packed.as_ref()?, self.key.packed.as_ref()?, self.value.packed.as_ref()?];
        let output = self.output.packed.as_ref()?;
        let is_constant = has_kernel(x) && !x.is_autodiff();
        let sequences = is_constant.then(|| self.packed_sequences(x, layout, relations, false))??;
        Some((projections, output, sequences))
    }

    /// Attention by the kernel for packed rows, `[rows, width]` to the same shape. `None` if the device has no kernel,
    /// or if this is more than (causal) softmax attention over whole sequences.
    fn attend_packed(
        &self,
        x: &Tensor<2>,
        layout: &SequenceLayout,
        relations: &Relations,
        biased: bool,
        dropout: &Dropout,
    ) -> Option<Tensor<2>> {
        let linears = [&self.query, &self.key, &self.value];
        let sequences = self.packed_sequences(x, layout, relations, biased)?;
        let qkv = match linears.map(|linear| linear.packed.as_ref()) {
            [Some(query), Some(key), Some(value)] => {
                return packed_attention(&packed_linear(x.clone(), [query, key, value]), &sequences);
            }
            _ => {
                let (weights, biases): (Vec<_>, Vec<_>) = linears.into_iter().map(Linear::weights).unzip();
                linear3(x.clone(), weights.try_into().ok()?, biases.try_into().ok()?)
            }
        };
        let dropout = dropout.mask(&qkv, self.dropout);
        attention(&qkv, &Sequences { dropout, ..sequences })
    }

    /// The output for a single query, `probe` `[1, width]`, over each sequence of `x` `[rows, width]`:
    /// `[batch, width]`.
    pub(crate) fn pool(&self, probe: Tensor<2>, x: Tensor<2>, layout: &SequenceLayout) -> Tensor<2> {
        let [_, width] = probe.dims();
        let (batch, heads, dim) = (layout.batch, self.heads, width / self.heads);
        let query = self.query.forward(probe).reshape([1, heads, 1, dim]).expand([batch, heads, 1, dim]);
        let key = layout.to_heads(self.key.forward(x.clone()), heads);
        let value = layout.to_heads(self.value.forward(x), heads);
        let output = self.attend(query, key, value, None, None, &Dropout::off());
        self.output.forward(output.reshape([batch, width]))
    }

    /// `softmax(q k^T / sqrt(dim) + bias) v` for queries, keys and values `[batch, heads, seq, dim]`; `bias` and `mask`
    /// are `[batch, heads, seq, seq]`, and `mask` is true where a query must not attend to a key.
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
            if mask.is_none()
                && bias.is_none()
                && let Some(output) = untracked_attention(&query, &key, &value)
            {
                return output;
            }
            let bias = bias.map(|bias| bias.expand([batch, heads, seq, seq]));
            return module::attention(query, key, value, mask, bias, AttentionModuleOptions::default());
        }
        let dropout = dropout.mask(&query, self.dropout);
        if bias.is_none()
            && let Some(output) = padded_attention([&query, &key, &value], mask.as_ref(), dropout)
        {
            return output;
        }
        let scores = (query * (dim as f64).powf(-0.5)).matmul(key.swap_dims(2, 3));
        let scores = match bias {
            Some(bias) => scores + bias,
            None => scores,
        };
        // In f32, because half precision is too coarse to sum many exponentials.
        let precision = scores.dtype();
        let weights = masked_softmax(scores.cast(DType::F32), mask).cast(precision);
        let weights = match dropout {
            Some(dropout) => dropout.apply(weights),
            None => weights,
        };
        weights.matmul(value)
    }
}

/// Normalises each of `heads` parts of the rows of `[rows, heads * dim]`, if there is a norm.
fn norm_heads(x: Tensor<2>, norm: Option<&Norm>, heads: usize) -> Tensor<2> {
    let Some(norm) = norm else { return x };
    let [rows, width] = x.dims();
    norm.forward(x.reshape([rows * heads, width / heads])).reshape([rows, width])
}

/// Padding and mask combined, `[batch, heads, seq, seq]`; `None` if no key is masked.
fn attention_mask(layout: &SequenceLayout, relations: &Relations, heads: usize) -> Option<Tensor<4, Bool>> {
    let [batch, seq] = [layout.batch, layout.longest];
    let expand = |mask: Tensor<4, Bool>, heads| mask.expand([batch, heads, seq, seq]);
    let mask = match (layout.padding(), relations.mask.clone()) {
        // Combined before the expansion to heads, at a fraction of the cost.
        (Some(padding), Some(mask)) => Some(expand(padding, 1).bool_or(expand(mask, 1))),
        (padding, mask) => padding.or(mask),
    };
    mask.map(|mask| expand(mask, heads))
}
