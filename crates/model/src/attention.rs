//! Attention, in one place: the backend's fused kernel where no gradient is wanted, the plain formula elsewhere.

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Tensor, module};

use crate::encoder::EncoderConfig;
use crate::layers::{Dropout, Linear};
use crate::params::ParamBuilder;
use crate::sequence::SequenceLayout;

/// Multi-head self-attention (Vaswani et al., 2017, sec. 3.2).
#[derive(Module, Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    heads: usize,
    dropout: f64,
}

impl Attention {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: &EncoderConfig) -> Self {
        let linear = |name, bias| Linear::new(&at.at(name), config.width, config.width, bias, config.init_std);
        Self {
            query: linear("query", config.qkv_bias),
            key: linear("key", config.qkv_bias),
            value: linear("value", config.qkv_bias),
            output: linear("output", true),
            heads: config.heads,
            dropout: config.attention_dropout,
        }
    }

    /// `[rows, width]` to the same; rows attend within their own sequence.
    pub(crate) fn forward(&self, x: Tensor<2>, layout: &SequenceLayout, dropout: &Dropout) -> Tensor<2> {
        let heads = |linear: &Linear| layout.to_heads(linear.forward(x.clone()), self.heads);
        let (query, key, value) = (heads(&self.query), heads(&self.key), heads(&self.value));
        let mixed = self.attend(query, key, value, layout.padding(), dropout);
        self.output.forward(layout.to_rows(mixed))
    }

    /// `softmax(q k^T / sqrt(dim)) v` over `[batch, heads, seq, dim]`; `padding` is `[batch, 1, 1, seq]`.
    fn attend(
        &self,
        query: Tensor<4>,
        key: Tensor<4>,
        value: Tensor<4>,
        padding: Option<Tensor<4, Bool>>,
        dropout: &Dropout,
    ) -> Tensor<4> {
        let [batch, heads, seq, dim] = query.dims();
        let padding = padding.map(|mask| mask.expand([batch, heads, seq, seq]));
        if !query.is_autodiff() {
            return module::attention(query, key, value, padding, None, AttentionModuleOptions::default());
        }
        let scores = (query * (dim as f64).powf(-0.5)).matmul(key.swap_dims(2, 3));
        let scores = match padding {
            Some(mask) => scores.mask_fill(mask, f32::NEG_INFINITY),
            None => scores,
        };
        dropout.apply(softmax(scores, 3), self.dropout).matmul(value)
    }
}
