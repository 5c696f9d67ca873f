//! The two towers by name, and what a forward pass of either returns.

use std::fmt;

use burn::tensor::Tensor;

/// The module of a [`DualEncoder`](crate::DualEncoder) that makes one vector of all tokens of an image.
pub(crate) const TOKENS_MODULE: &str = "image_tokens";

/// One of the two towers of a dual encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tower {
    /// The image tower.
    Image,
    /// The text tower.
    Text,
}

impl Tower {
    /// Both towers, in the order in which models, locks and configs list them.
    pub const ALL: [Self; 2] = [Self::Image, Self::Text];

    /// The module of a [`DualEncoder`](crate::DualEncoder) that holds the tower: `image_tower` or `text_tower`.
    pub const fn module(self) -> &'static str {
        match self {
            Self::Image => "image_tower",
            Self::Text => "text_tower",
        }
    }

    /// The prefix of the tower's parameter paths: `image_tower.` or `text_tower.`.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Image => "image_tower.",
            Self::Text => "text_tower.",
        }
    }

    /// The module of a [`DualEncoder`](crate::DualEncoder) that holds the tower's head: `image_projection` or
    /// `text_projection`.
    pub const fn head_module(self) -> &'static str {
        match self {
            Self::Image => "image_projection",
            Self::Text => "text_projection",
        }
    }

    /// The part of a step's dropout that the tower's head draws.
    pub(crate) const fn head_part(self) -> &'static str {
        match self {
            Self::Image => "image_head",
            Self::Text => "text_head",
        }
    }

    /// The tower that the parameter at `path` belongs to; `None` for projections and temperature.
    pub fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tower| path.starts_with(tower.prefix()))
    }

    /// The tower of the head with the parameter at `path`. What makes one vector of all tokens of an image is part of
    /// the image head.
    pub fn of_head(path: &str) -> Option<Self> {
        let module = path.split_once('.')?.0;
        let is_in = |tower: &Self| module == tower.head_module();
        Self::ALL.into_iter().find(is_in).or_else(|| (module == TOKENS_MODULE).then_some(Self::Image))
    }

    /// `image` or `text`, as config keys and messages spell it.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
        }
    }

    /// The config key that selects how the tower pools.
    pub(crate) const fn pool_key(self) -> &'static str {
        match self {
            Self::Image => "image_pool",
            Self::Text => "text_pool",
        }
    }

    /// The config key that selects the layer which is pooled.
    pub(crate) const fn layer_key(self) -> &'static str {
        match self {
            Self::Image => "image_layer",
            Self::Text => "text_layer",
        }
    }

    /// The prefix of the tower's tensors in a file of the reference.
    pub(crate) const fn stored_prefix(self) -> &'static str {
        match self {
            Self::Image => "vision_model.",
            Self::Text => "text_model.",
        }
    }
}

impl fmt::Display for Tower {
    /// `image tower` or `text tower`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tower", self.kind())
    }
}

/// The output of a tower's forward pass.
#[derive(Debug, Clone)]
pub struct TowerOutput {
    /// The last hidden state of every real token, `[rows, width]`, sequence after sequence. The tokens of a
    /// convolutional tower are the positions of its last feature map, row by row.
    pub hidden: Tensor<2>,
    /// One vector per image or caption, `[batch, width]`.
    pub pooled: Tensor<2>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tower_of_a_path() {
        assert_eq!(Tower::of("image_tower.patch.weight"), Some(Tower::Image));
        assert_eq!(Tower::of("text_tower.words"), Some(Tower::Text));
        assert_eq!(Tower::of("text_projection.weight"), None);
        assert_eq!(Tower::of("image_tower"), None);
        assert_eq!(Tower::of_head("text_projection.norm.weight"), Some(Tower::Text));
        assert_eq!(Tower::of_head("image_projection.weight"), Some(Tower::Image));
        assert_eq!(Tower::of_head("image_tokens.norm.weight"), Some(Tower::Image));
        assert_eq!(Tower::of_head("logit_scale"), None);
        assert_eq!(Tower::of_head("text_tower.embedding_projection.weight"), None);
        for tower in Tower::ALL {
            assert_eq!(tower.prefix(), format!("{}.", tower.module()));
        }
    }
}
