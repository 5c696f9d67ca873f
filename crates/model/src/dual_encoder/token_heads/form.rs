//! The kinds of token heads and their settings.

use std::fmt;

/// Width inside a token head.
pub const DEFAULT_TOKEN_WIDTH: usize = 256;

/// Number of blocks of a token head of blocks (dino.txt, Jose et al., 2024, arXiv:2412.16334, sec. 3.2).
pub const DEFAULT_TOKEN_BLOCKS: usize = 2;

/// Probability with which a branch of a block is left out for an image while the head trains.
pub const DEFAULT_DROP_PATH: f64 = 0.1;

/// Width of an attention head, as in ViT (Dosovitskiy et al., 2021, tab. 1).
const ATTENTION_HEAD_WIDTH: usize = 64;

/// What a token head makes of the tokens of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TokenKind {
    /// What a learned query finds in them, beside the class token.
    Query,
    /// The class token and the mean of the patch tokens, after `count` transformer blocks.
    Blocks {
        /// Number of blocks.
        count: usize,
        /// Probability with which a branch is left out for an image while the head trains.
        drop_path: f64,
    },
}

/// A kind of token head with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenForm {
    /// What it computes.
    pub kind: TokenKind,
    /// Width of queries, keys and values, or of the blocks.
    pub width: usize,
    /// Number of attention heads, which divides `width`.
    pub heads: usize,
    /// Side of the grid of means that stand for the patch tokens; `None`: themselves.
    pub grid: Option<usize>,
}

impl TokenForm {
    /// The number of attention heads that users get unless they ask for another.
    pub const fn default_heads(width: usize) -> usize {
        let heads = width / ATTENTION_HEAD_WIDTH;
        if heads == 0 { 1 } else { heads }
    }
}

impl fmt::Display for TokenForm {
    /// Such as `query over tokens, width 256, 4 heads`, for reports and messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        match self.kind {
            TokenKind::Query => f.write_str("query over tokens")?,
            TokenKind::Blocks { count, .. } => write!(f, "{count} block{} over tokens", plural(count))?,
        }
        write!(f, ", width {}, {} head{}", self.width, self.heads, plural(self.heads))?;
        self.grid.map_or(Ok(()), |side| write!(f, ", grid {side}x{side}"))
    }
}
