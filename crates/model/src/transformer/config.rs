//! The hyperparameters of a transformer encoder, whichever family it came from.

use dualenc_kernels::Activation;
use serde_json::json;

use crate::form::{list, option};
use crate::layers::norm::NormKind;

/// Whether a block normalises before or after its branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormOrder {
    /// Before attention and MLP, inside the residual branch (ViT).
    Pre,
    /// After each residual sum (BERT).
    Post,
}

/// The hyperparameters of an encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// Width of the residual stream (`hidden_size`).
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Number of attention heads; divides `width`, unless `head_width` is given.
    pub heads: usize,
    /// Width of an attention head, if it is not `width / heads`.
    pub head_width: Option<usize>,
    /// Number of heads of keys and values, if fewer than `heads`, which it divides: neighbouring queries share one
    /// (grouped-query attention, Ainslie et al., 2023).
    pub key_heads: Option<usize>,
    /// Whether each head's queries and keys are normalised by their root mean square (Henry et al., 2020).
    pub query_key_norm: bool,
    /// Factor of the attention scores, if it is not `1 / sqrt(head width)`.
    pub attention_scale: Option<f64>,
    /// Hidden width of the MLP (`intermediate_size`).
    pub mlp_width: usize,
    /// Nonlinearity of the MLP.
    pub activation: Activation,
    /// Pre- or post-norm.
    pub norm_order: NormOrder,
    /// What norms do.
    pub norm_kind: NormKind,
    /// Whether the output of each branch is normalised as well, before the residual sum (Gemma 2 and 3).
    pub branch_norms: bool,
    /// Epsilon of the norms.
    pub norm_epsilon: f64,
    /// LayerScale (CaiT, Touvron et al., 2021): initial value of a learned factor per channel on each residual branch.
    pub layer_scale: Option<f64>,
    /// Whether the query projection has a bias.
    pub query_bias: bool,
    /// Whether the key projection has a bias.
    pub key_bias: bool,
    /// Whether the value projection has a bias.
    pub value_bias: bool,
    /// Whether the output projection of attention has a bias.
    pub output_bias: bool,
    /// Whether the linears of the MLP have biases.
    pub mlp_bias: bool,
    /// With `mlp_bias`: whether those before its activation have one too, and not only the last (GTE).
    pub mlp_input_bias: bool,
    /// Whether layer norms have biases.
    pub norm_bias: bool,
    /// Whether the MLP multiplies its activated gate by a second projection (GLU variants, Shazeer, 2020).
    pub gated_mlp: bool,
    /// Relative position bias.
    pub relative: RelativeTable,
    /// DeBERTa's attention to relative positions.
    pub disentangled: Option<DisentangledConfig>,
    /// Whether the first block normalises before its attention. Not in ModernBERT, which normalises its embeddings.
    pub first_norm: bool,
    /// The sequence in which blocks run, if it is not once each (ALBERT shares weights between layers).
    pub order: Option<Vec<usize>>,
    /// Dropout probability of embeddings and of the residual branches selected below.
    pub hidden_dropout: f64,
    /// Whether `hidden_dropout` applies to the residual branch of attention.
    pub drops_attention_branch: bool,
    /// Whether `hidden_dropout` applies to the residual branch of the MLP.
    pub drops_mlp_branch: bool,
    /// Dropout probability of attention weights.
    pub attention_dropout: f64,
    /// Probability with which a residual branch is left out for a whole sequence (stochastic depth, Huang et al., 2016,
    /// arXiv:1603.09382).
    pub drop_path: f64,
    /// Whether that probability grows linearly over the blocks, from 0 in the first; else it is that of every block.
    pub drop_path_grows: bool,
    /// Standard deviation of randomly initialised weights (`initializer_range`).
    pub init_std: f64,
}

/// The tables of relative position bias, with the number of relative positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelativeTable {
    /// No relative position bias.
    None,
    /// One table for all blocks.
    Shared(usize),
    /// One table per block.
    EachBlock(usize),
}

impl EncoderConfig {
    /// Number of blocks that run.
    pub(crate) fn num_layers(&self) -> usize {
        self.order.as_ref().map_or(self.depth, Vec::len)
    }

    /// The hyperparameters of the encoder that ends after the first `layers` blocks that run.
    #[must_use]
    pub(crate) fn ending_after(self, layers: usize) -> Self {
        let order = self.order.map(|order| order[..layers].to_vec());
        let depth = order.as_ref().map_or(layers, |order| order.iter().map(|block| block + 1).max().unwrap_or(0));
        Self { depth, order, ..self }
    }

    /// The base that families override: post-norm, exact GELU, biases everywhere, no dropout.
    pub fn plain(width: usize, depth: usize, heads: usize, mlp_width: usize) -> Self {
        Self {
            width,
            depth,
            heads,
            head_width: None,
            key_heads: None,
            query_key_norm: false,
            attention_scale: None,
            mlp_width,
            activation: Activation::Gelu,
            norm_order: NormOrder::Post,
            norm_kind: NormKind::Layer,
            branch_norms: false,
            norm_epsilon: 1e-12,
            layer_scale: None,
            query_bias: true,
            key_bias: true,
            value_bias: true,
            output_bias: true,
            mlp_bias: true,
            mlp_input_bias: true,
            norm_bias: true,
            gated_mlp: false,
            relative: RelativeTable::None,
            disentangled: None,
            first_norm: true,
            order: None,
            hidden_dropout: 0.0,
            drops_attention_branch: true,
            drops_mlp_branch: true,
            attention_dropout: 0.0,
            drop_path: 0.0,
            drop_path_grows: false,
            init_std: 0.02,
        }
    }

    /// The probability with which the block at index `n` leaves out a branch.
    pub(crate) fn drop_path_of(&self, n: usize) -> f64 {
        match self.drop_path_grows {
            true => self.drop_path * n as f64 / self.depth.saturating_sub(1).max(1) as f64,
            false => self.drop_path,
        }
    }

    /// Width of an attention head.
    pub fn head_width(&self) -> usize {
        self.head_width.unwrap_or(self.width / self.heads.max(1))
    }

    /// Number of heads of keys and values.
    pub fn key_heads(&self) -> usize {
        self.key_heads.unwrap_or(self.heads)
    }

    /// The written form, for cache keys (see `form`).
    pub(crate) fn form(&self) -> String {
        let Self {
            width,
            depth,
            heads,
            head_width,
            key_heads,
            query_key_norm,
            attention_scale,
            mlp_width,
            activation,
            norm_order,
            norm_kind,
            branch_norms,
            norm_epsilon,
            layer_scale,
            query_bias,
            key_bias,
            value_bias,
            output_bias,
            mlp_bias,
            mlp_input_bias,
            norm_bias,
            gated_mlp,
            relative,
            disentangled,
            first_norm,
            order,
            hidden_dropout,
            drops_attention_branch,
            drops_mlp_branch,
            attention_dropout,
            drop_path,
            drop_path_grows,
            init_std,
        } = self;
        let activation = json!(activation);
        let norm_order = match norm_order {
            NormOrder::Pre => "pre",
            NormOrder::Post => "post",
        };
        let relative = match relative {
            RelativeTable::None => "none".to_owned(),
            RelativeTable::Shared(rows) => format!("shared {rows}"),
            RelativeTable::EachBlock(rows) => format!("each-block {rows}"),
        };
        let (layer_scale, order) = (option(*layer_scale), option(order.as_ref().map(list)));
        let disentangled = option(disentangled.as_ref().map(DisentangledConfig::form));
        let later = [
            head_width.map(|width| format!(" head={width}")),
            key_heads.map(|heads| format!(" key-heads={heads}")),
            query_key_norm.then(|| " query-key-norm".to_owned()),
            attention_scale.map(|scale| format!(" scale={scale}")),
            match norm_kind {
                NormKind::Layer => None,
                NormKind::Rms => Some(" rms".to_owned()),
                NormKind::RmsFromOne => Some(" rms-from-one".to_owned()),
            },
            branch_norms.then(|| " branch-norms".to_owned()),
            (!mlp_input_bias).then(|| " mlp-input-bias=false".to_owned()),
            (*drop_path > 0.0).then(|| format!(" drop-path={drop_path}")),
            (*drop_path_grows && *drop_path > 0.0).then(|| " drop-path-grows".to_owned()),
        ];
        let later: String = later.into_iter().flatten().collect();
        format!(
            "encoder(width={width} depth={depth} heads={heads} mlp={mlp_width} activation={activation} \
             norm={norm_order} epsilon={norm_epsilon} layer-scale={layer_scale} \
             biases={query_bias},{key_bias},{value_bias},{output_bias},{mlp_bias},{norm_bias} gated={gated_mlp} \
             relative={relative} disentangled={disentangled} first-norm={first_norm} order={order} \
             dropout={hidden_dropout},{drops_attention_branch},{drops_mlp_branch},{attention_dropout} \
             std={init_std}{later})"
        )
    }

    /// Replaces both dropout probabilities, if `dropout` is given.
    #[must_use]
    pub fn with_dropout(self, dropout: Option<f64>) -> Self {
        Self {
            hidden_dropout: dropout.unwrap_or(self.hidden_dropout),
            attention_dropout: dropout.unwrap_or(self.attention_dropout),
            ..self
        }
    }
}

/// The options of disentangled attention (DeBERTa, He et al., 2021).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DisentangledConfig {
    /// Number of relative positions with an embedding, both directions together.
    pub positions: usize,
    /// Whether these embeddings are normalised (`norm_rel_ebd`).
    pub normed: bool,
    /// Whether the content of a query attends to the position of a key (`c2p`).
    pub content_to_position: bool,
    /// Whether the position of a query attends to the content of a key (`p2c`).
    pub position_to_content: bool,
    /// Whether positions share the projections of the content (`share_att_key`).
    pub shared_projections: bool,
}

impl DisentangledConfig {
    fn form(&self) -> String {
        let Self { positions, normed, content_to_position, position_to_content, shared_projections } = self;
        format!(
            "(positions={positions} norm={normed} c2p={content_to_position} p2c={position_to_content} \
             shared={shared_projections})"
        )
    }
}
