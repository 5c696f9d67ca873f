//! `[model.image_head]` and `[model.text_head]`: what maps the pooled output of a tower into the shared space.

use dualenc_model::{
    DEFAULT_BLOCKS, DEFAULT_DROP_PATH, DEFAULT_EXPANSION, DEFAULT_TOKEN_BLOCKS, DEFAULT_TOKEN_WIDTH, HeadForm,
    HeadKind, TokenForm, TokenKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The map from a tower's pooled output `x` to `embed_dim` values. It trains at `train.projection_learning_rate`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeadSection {
    /// What the head computes. A head of another kind than `linear` cannot be exported for transformers.
    ///
    /// Default: `"linear"`; with `init`, the head of that model.
    pub kind: Option<HeadChoice>,
    /// Whether the linear maps of the head add a bias, which starts at 0.
    ///
    /// Default: `false` for `linear`, `true` for other kinds.
    pub bias: Option<bool>,
    /// Whether `x` is normalised first (layer norm with weight and bias, epsilon 1e-5).
    ///
    /// Default: `false` for `linear`, `true` for other kinds.
    pub norm: Option<bool>,
    /// Probability with which a hidden value of the head is dropped while it trains: 0 or more and less than 1. Not for
    /// `linear`, which has no hidden values.
    ///
    /// Default: `0.0`.
    pub dropout: Option<f64>,
    /// Hidden width of a `glu`, as a multiple of the width of `x`.
    ///
    /// Default: `8` (SAIL, arXiv:2412.04616).
    pub expansion: Option<usize>,
    /// Number of blocks of `blocks`.
    ///
    /// Default: `2`.
    pub blocks: Option<usize>,
    /// What the head makes of all tokens of an image first, in place of the tower's pooled output: `x` is then what it
    /// finds. For image heads, and vision transformers of one image size. Every token of a locked tower is cached, many
    /// times the size of a pooled output; `dualenc plan` says how much.
    ///
    /// Default: none, `x` is the pooled output. With `init`, what that model has.
    pub tokens: Option<TokenChoice>,
    /// Width of what `tokens` computes with: of queries, keys and values, or of the blocks, which have a linear map
    /// before them if the tower has another width.
    ///
    /// Default: `256`.
    pub token_width: Option<usize>,
    /// Number of attention heads of `tokens`, which divides `token_width`.
    ///
    /// Default: one for each 64 values of `token_width`, at least one.
    pub token_heads: Option<usize>,
    /// Side of a coarser grid of patch tokens for `tokens`: the means of its cells stand for the patch tokens
    /// (`adaptive_avg_pool2d`), other tokens stay. The cache is smaller: `8` leaves 64 of the 196 patch tokens of a
    /// ViT-B/16.
    ///
    /// Default: none, every patch token.
    pub token_grid: Option<usize>,
    /// Number of transformer blocks of `tokens = "blocks"`.
    ///
    /// Default: `2` (dino.txt, arXiv:2412.16334).
    pub token_blocks: Option<usize>,
    /// Probability with which a branch of a block of `tokens = "blocks"` is left out for an image while the head
    /// trains: 0 or more and less than 1 (stochastic depth, arXiv:1603.09382).
    ///
    /// Default: `0.1`; 0.3 suits a million pairs and more.
    pub token_drop_path: Option<f64>,
}

/// What an image head makes of all tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenChoice {
    /// A learned query attends to all tokens; `x` is the class token (the mean of the patch tokens where there is none)
    /// and what the query finds, side by side.
    Query,
    /// Transformer blocks (attention, SwiGLU, LayerScale from 1e-5) over all tokens; `x` is the class token and the
    /// mean of the patch tokens after them, side by side, or the mean alone where there is no class token.
    Blocks,
}

impl TokenChoice {
    /// The keys of [`HeadSection`], beside `tokens`, that it has.
    pub(crate) fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Query => &["token_width", "token_heads", "token_grid"],
            Self::Blocks => &["token_width", "token_heads", "token_grid", "token_blocks", "token_drop_path"],
        }
    }

    /// The value of the key.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Blocks => "blocks",
        }
    }
}

/// What a head computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeadChoice {
    /// `A x`, as in the reference. `A` starts normal with standard deviation 0.02.
    Linear,
    /// `W3 (min(max(W1 x, 0), 6) * W2 x)`, a gated network (SAIL, arXiv:2412.04616). The weights start uniform
    /// (Xavier).
    Glu,
    /// `A x + C gelu(B x)`. `C` starts at 0, so that the head begins as a linear one. Its `norm` applies to both paths.
    Residual,
    /// Blocks `x + W2 gelu(W1 LN(x))`, 4 times as wide inside, then a layer norm and a linear map (FuseMix,
    /// arXiv:2312.10144).
    Blocks,
    /// `x` itself: embeddings are the tower's pooled outputs. Only for the text head, and `embed_dim` is the width of
    /// the text tower. Text indexes of the tower stay valid if the tower is locked.
    Identity,
}

impl HeadChoice {
    /// The name of the kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Glu => "glu",
            Self::Residual => "residual",
            Self::Blocks => "blocks",
            Self::Identity => "identity",
        }
    }

    /// The keys of [`HeadSection`], beside `kind`, that the kind has.
    pub(crate) fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Identity => &[],
            Self::Linear => &["bias", "norm"],
            Self::Residual => &["bias", "norm", "dropout"],
            Self::Glu => &["bias", "norm", "dropout", "expansion"],
            Self::Blocks => &["bias", "norm", "dropout", "blocks"],
        }
    }
}

impl HeadSection {
    /// The head in the model crate's terms; `None`: the head of the model that the run starts from.
    pub fn form(&self) -> Option<HeadForm> {
        let kind = match self.kind? {
            HeadChoice::Identity => return Some(HeadForm::IDENTITY),
            HeadChoice::Linear => HeadKind::Linear,
            HeadChoice::Glu => HeadKind::Gated { expansion: self.expansion.unwrap_or(DEFAULT_EXPANSION) },
            HeadChoice::Residual => HeadKind::Residual,
            HeadChoice::Blocks => HeadKind::Blocks { count: self.blocks.unwrap_or(DEFAULT_BLOCKS) },
        };
        let default = HeadForm::default_of(kind);
        Some(HeadForm {
            bias: self.bias.unwrap_or(default.bias),
            norm: self.norm.unwrap_or(default.norm),
            dropout: self.dropout.unwrap_or(default.dropout),
            ..default
        })
    }

    /// The keys that are set beside `kind`.
    pub(crate) fn given(&self) -> impl Iterator<Item = &'static str> {
        let Self { bias, norm, dropout, expansion, blocks, .. } = self;
        let set = [
            ("bias", bias.is_some()),
            ("norm", norm.is_some()),
            ("dropout", dropout.is_some()),
            ("expansion", expansion.is_some()),
            ("blocks", blocks.is_some()),
        ];
        set.into_iter().filter(|(_, given)| *given).map(|(key, _)| key)
    }

    /// What takes the tokens, in the model crate's terms; `None`: nothing does, or what the model has that the run
    /// starts from.
    pub fn token_form(&self) -> Option<TokenForm> {
        let kind = match self.tokens? {
            TokenChoice::Query => TokenKind::Query,
            TokenChoice::Blocks => TokenKind::Blocks {
                count: self.token_blocks.unwrap_or(DEFAULT_TOKEN_BLOCKS),
                drop_path: self.token_drop_path.unwrap_or(DEFAULT_DROP_PATH),
            },
        };
        let width = self.token_width.unwrap_or(DEFAULT_TOKEN_WIDTH);
        let heads = self.token_heads.unwrap_or_else(|| TokenForm::default_heads(width));
        Some(TokenForm { kind, width, heads, grid: self.token_grid })
    }

    /// The keys of `tokens` that are set beside it.
    pub(crate) fn given_of_tokens(&self) -> impl Iterator<Item = &'static str> {
        let Self { token_width, token_heads, token_grid, token_blocks, token_drop_path, .. } = self;
        let set = [
            ("token_width", token_width.is_some()),
            ("token_heads", token_heads.is_some()),
            ("token_grid", token_grid.is_some()),
            ("token_blocks", token_blocks.is_some()),
            ("token_drop_path", token_drop_path.is_some()),
        ];
        set.into_iter().filter(|(_, given)| *given).map(|(key, _)| key)
    }

    /// Sets the defaults of `tokens`.
    fn fill_token_defaults(&mut self) {
        let Some(TokenForm { kind, width, heads, .. }) = self.token_form() else { return };
        (self.token_width, self.token_heads) = (Some(width), Some(heads));
        if let TokenKind::Blocks { count, drop_path } = kind {
            (self.token_blocks, self.token_drop_path) = (Some(count), Some(drop_path));
        }
    }

    /// Sets the defaults that depend on the kind, and the kind of a head that is `new`.
    pub(crate) fn fill_defaults(&mut self, new: bool) {
        if new {
            self.kind.get_or_insert(HeadChoice::Linear);
        }
        self.fill_token_defaults();
        let (Some(choice), Some(form)) = (self.kind, self.form()) else { return };
        for key in choice.keys() {
            match (*key, form.kind) {
                ("bias", _) => self.bias = Some(form.bias),
                ("norm", _) => self.norm = Some(form.norm),
                ("dropout", _) => self.dropout = Some(form.dropout),
                ("expansion", HeadKind::Gated { expansion }) => self.expansion = Some(expansion),
                ("blocks", HeadKind::Blocks { count }) => self.blocks = Some(count),
                _ => {}
            }
        }
    }
}
