//! A token head with one learned query (Set Transformer's pooling by attention, Lee et al., 2019, arXiv:1810.00825).

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Tensor};
use dualenc_kernels::layer_norm;

use crate::dual_encoder::heads::linear_head::{NORM_EPSILON, PROJECTION_STD};
use crate::dual_encoder::token_heads::form::TokenForm;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::Linear;
use crate::params::builder::{Init, ParamBuilder};
use crate::vision::token_layout::TokenLayout;

/// `[CLS, O A]` with `A = softmax(Wq p (Wk LN(H))^T / sqrt(head width)) Wv LN(H)` for a learned `p`, where `H` are the
/// tokens of an image. Towers without a class token have the mean of the patch tokens in its place.
#[derive(Module, Debug)]
pub struct QueryHead {
    /// `p`, `[1, width]`.
    pub probe: Param<Tensor<2>>,
    /// Normalises each token.
    pub norm: LayerNorm,
    /// `Wq`, `[width, width]`.
    pub query: Linear,
    /// `Wk`, `[token width, width]`. A bias would cancel in the softmax.
    pub key: Linear,
    /// `Wv`, `[token width, width]`.
    pub value: Linear,
    /// `O`, `[width, width]`.
    pub output: Linear,
    pub(crate) heads: usize,
    #[module(skip)]
    pub(crate) layout: TokenLayout,
}

impl QueryHead {
    pub(crate) fn new(at: &ParamBuilder<'_>, form: TokenForm, layout: TokenLayout) -> Self {
        let TokenForm { width, heads, .. } = form;
        let linear = |name, input, bias| Linear::xavier(&at.at(name), input, width, bias);
        Self {
            probe: at.param("probe", [1, width], Init::Normal(PROJECTION_STD)),
            norm: LayerNorm::new(&at.at("norm"), layout.width, true, NORM_EPSILON),
            query: linear("query", width, true),
            key: linear("key", layout.width, false),
            value: linear("value", layout.width, true),
            output: linear("output", width, true),
            heads,
            layout,
        }
    }

    /// Maps `[batch, tokens * token width]` to `[batch, token width + width]`.
    ///
    /// There is one query, so keys and values of tokens are never computed: the query is mapped to the space of the
    /// tokens, and the values are those of the weighted means. The weight of the norm is applied to the query and to
    /// the means, its bias to the means alone: it adds the same to all scores of a head. What is left to compute for
    /// each token has no parameters, and no gradient where the tower is locked.
    pub fn forward(&self, tokens: Tensor<2>) -> Tensor<2> {
        let TokenLayout { width: token_width, .. } = self.layout;
        let ([batch, _], count, precision) = (tokens.dims(), self.layout.count(&tokens), tokens.dtype());
        let rows = tokens.clone().reshape([batch * count, token_width]);
        let ones = Tensor::<1>::ones([token_width], &tokens.device().without_autodiff()).cast(precision);
        let rows = layer_norm(rows, ones, None, NORM_EPSILON);
        let scores = rows.clone().matmul(self.query_over_tokens().cast(precision));
        let scores = scores.reshape([batch, count, self.heads]).swap_dims(1, 2);
        // In f32, because half precision is too coarse to sum many exponentials.
        let weights = softmax(scores.cast(DType::F32), 2).cast(precision);
        let means = weights.matmul(rows.reshape([batch, count, token_width]));
        let found = self.output.forward(self.values_of(means));
        Tensor::cat(vec![self.layout.summary(tokens), found], 1)
    }

    /// The query of each attention head as a vector that is multiplied with normalised tokens: `[token width, heads]`.
    fn query_over_tokens(&self) -> Tensor<2> {
        let (token_width, heads) = (self.layout.width, self.heads);
        let query = self.query.forward(self.probe.val());
        let head_width = query.dims()[1] / heads;
        let (key, _) = self.key.weights();
        let products = (key * query).reshape([token_width, heads, head_width]);
        let query = products.sum_dim(2).reshape([token_width, heads]) * (head_width as f64).powf(-0.5);
        query * self.norm.weight.val().reshape([token_width, 1])
    }

    /// The values of weighted means of normalised tokens, `[batch, heads, token width]` to `[batch, width]`.
    fn values_of(&self, means: Tensor<3>) -> Tensor<2> {
        let [batch, heads, token_width] = means.dims();
        let means = means * self.norm.weight.val().reshape([1, 1, token_width]);
        let means = match &self.norm.bias {
            Some(bias) => means + bias.val().reshape([1, 1, token_width]),
            None => means,
        };
        let (weight, bias) = self.value.weights();
        let [_, width] = weight.dims();
        let weight = weight.reshape([token_width, heads, width / heads]).swap_dims(0, 1);
        let values = means.swap_dims(0, 1).matmul(weight).swap_dims(0, 1).reshape([batch, width]);
        match bias {
            Some(bias) => values + bias.unsqueeze(),
            None => values,
        }
    }
}
