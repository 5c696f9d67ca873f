//! The kinds of heads and their settings.

use std::fmt;

/// Hidden width of a gated head, as a multiple of its input width (SAIL, Zhang et al., 2025, arXiv:2412.04616).
pub const DEFAULT_EXPANSION: usize = 8;

/// Number of blocks of a head of blocks.
pub const DEFAULT_BLOCKS: usize = 2;

/// What a head computes from `x` `[batch, width]`: a row of `[batch, dim]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// `x` itself; `dim` is the width.
    Identity,
    /// `A x`.
    Linear,
    /// `W3 (min(max(W1 x, 0), 6) * W2 x)`.
    Gated {
        /// Rows of `W1` and `W2`, as a multiple of the width.
        expansion: usize,
    },
    /// `A x + C gelu(B x)`.
    Residual,
    /// `count` times `x + W2 gelu(W1 LN(x))`, then `A LN(x)`.
    Blocks {
        /// Number of blocks.
        count: usize,
    },
}

/// A kind of head with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadForm {
    /// What it computes.
    pub kind: HeadKind,
    /// Whether each linear map adds a bias.
    pub bias: bool,
    /// Whether the input is normalised first (layer norm).
    pub norm: bool,
    /// Probability with which a hidden value is dropped while the head trains. A head without hidden values has none.
    pub dropout: f64,
}

impl HeadForm {
    /// A matrix and nothing else: the head of the reference.
    pub const LINEAR: Self = Self { kind: HeadKind::Linear, bias: false, norm: false, dropout: 0.0 };

    /// No parameters at all.
    pub const IDENTITY: Self = Self { kind: HeadKind::Identity, ..Self::LINEAR };

    /// The form of this kind that users get unless they ask for another.
    pub const fn default_of(kind: HeadKind) -> Self {
        let more = !matches!(kind, HeadKind::Identity | HeadKind::Linear);
        Self { kind, bias: more, norm: more, dropout: 0.0 }
    }

    /// Whether the head has no parameters.
    pub fn is_identity(&self) -> bool {
        self.kind == HeadKind::Identity
    }
}

impl HeadKind {
    /// The name of the kind, as config files spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Linear => "linear",
            Self::Gated { .. } => "glu",
            Self::Residual => "residual",
            Self::Blocks { .. } => "blocks",
        }
    }
}

impl fmt::Display for HeadForm {
    /// Such as `glu, expansion 8, with bias, norm`, for reports and messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        match self.kind {
            HeadKind::Gated { expansion } => write!(f, ", expansion {expansion}")?,
            HeadKind::Blocks { count } => write!(f, ", {count} block{}", if count == 1 { "" } else { "s" })?,
            HeadKind::Identity => return Ok(()),
            HeadKind::Linear | HeadKind::Residual => {}
        }
        match (self.bias, self.norm) {
            (true, true) => f.write_str(", bias and norm"),
            (true, false) => f.write_str(", bias"),
            (false, true) => f.write_str(", norm"),
            (false, false) => Ok(()),
        }
    }
}
