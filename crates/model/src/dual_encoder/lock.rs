//! Which parameters train. LiT writes it as two letters, image tower then text tower (Zhai et al., 2022, sec. 4.1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::dual_encoder::layer_depth::LayerDepths;
use crate::dual_encoder::model::DualEncoder;
use crate::error::ModelError;
use crate::layers::adapter::is_adapter;
use crate::params::grad::lock_unless;
use crate::tower::Tower;

/// How a tower is initialised, and whether it trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TowerLock {
    /// `L`: pretrained and frozen.
    Locked,
    /// `U`: pretrained and trainable.
    Unlocked,
    /// `u`: randomly initialised and trainable.
    Scratch,
}

impl TowerLock {
    /// Whether the tower trains.
    pub fn trains(self) -> bool {
        self != Self::Locked
    }

    fn letter(self) -> char {
        match self {
            Self::Locked => 'L',
            Self::Unlocked => 'U',
            Self::Scratch => 'u',
        }
    }
}

/// The locks of both towers, such as `LU`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// Lock of the image tower.
    pub image: TowerLock,
    /// Lock of the text tower.
    pub text: TowerLock,
}

impl Default for Lock {
    /// `LU`: a pretrained, frozen image tower, and a pretrained text tower that learns to match it.
    fn default() -> Self {
        Self { image: TowerLock::Locked, text: TowerLock::Unlocked }
    }
}

/// A string that is not a lock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a lock; expected two letters, image tower then text tower, each of `L` (locked, pretrained), \
     `U` (unlocked, pretrained) or `u` (unlocked, from scratch), such as `LU`"
)]
#[non_exhaustive]
pub struct LockError(String);

impl FromStr for Lock {
    type Err = LockError;

    fn from_str(text: &str) -> Result<Self, LockError> {
        let tower = |letter| match letter {
            'L' => Some(TowerLock::Locked),
            'U' => Some(TowerLock::Unlocked),
            'u' => Some(TowerLock::Scratch),
            _ => None,
        };
        let towers: Option<Vec<TowerLock>> = text.chars().map(tower).collect();
        match towers.as_deref() {
            Some([image, text]) => Ok(Self { image: *image, text: *text }),
            _ => Err(LockError(text.to_owned())),
        }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.image.letter(), self.text.letter())
    }
}

impl Serialize for Lock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which parameters of a tower are trainable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TowerTraining {
    /// All parameters except adapters.
    pub trains: bool,
    /// Number of blocks at the end of the tower that train even if `trains` is false, with everything after them.
    pub last: usize,
    /// The adapters.
    pub adapters: bool,
}

/// Which parameters of a model are trainable. `logit_scale` and `logit_bias` always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Training {
    /// The image tower.
    pub image: TowerTraining,
    /// The text tower.
    pub text: TowerTraining,
    /// The image projection.
    pub image_projection: bool,
    /// The text projection.
    pub text_projection: bool,
}

impl TowerTraining {
    /// Whether any parameter of the tower trains.
    pub fn any(self) -> bool {
        self.trains || self.last > 0 || self.adapters
    }

    /// Whether some of the tower trains, and some is locked.
    pub fn is_partial(self) -> bool {
        self.any() && !self.trains
    }

    /// The union: what trains in `self` or in `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            trains: self.trains || other.trains,
            last: self.last.max(other.last),
            adapters: self.adapters || other.adapters,
        }
    }
}

impl Training {
    /// The union: what trains in `self` or in `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            image: self.image.or(other.image),
            text: self.text.or(other.text),
            image_projection: self.image_projection || other.image_projection,
            text_projection: self.text_projection || other.text_projection,
        }
    }

    /// Makes exactly these parameters of `model` trainable, and freezes all others.
    ///
    /// # Errors
    /// [`ModelError::Input`] if a tower has fewer blocks than [`TowerTraining::last`].
    pub fn of(&self, model: DualEncoder) -> Result<DualEncoder, ModelError> {
        let depths = LayerDepths::of(&model);
        let towers = [(Tower::Image, self.image), (Tower::Text, self.text)];
        for ((tower, training), blocks) in towers.into_iter().zip(depths.num_blocks()) {
            if training.last > blocks {
                let (kind, found) = (tower.kind(), training.last);
                let blocks = if blocks == 1 { "1 block".to_owned() } else { format!("{blocks} blocks") };
                return Err(ModelError::Input(format!(
                    "`model.{kind}_unlock_last` (or `{kind}_unlock_last` of a `[[train.stage]]`) is {found}, but the \
                     {tower} has {blocks}; choose at most that, or unlock the whole tower with `U` in `lock`"
                )));
            }
        }
        Ok(lock_unless(model, |path| self.trains(path, &depths)))
    }

    /// Whether the parameter at `path` trains, in a model of these `depths`.
    pub fn trains(&self, path: &str, depths: &LayerDepths) -> bool {
        let tower = match Tower::of(path) {
            Some(Tower::Image) => self.image,
            Some(Tower::Text) => self.text,
            None => {
                return match Tower::of_head(path) {
                    Some(Tower::Image) => self.image_projection,
                    Some(Tower::Text) => self.text_projection,
                    None => true,
                };
            }
        };
        if is_adapter(path) {
            return tower.adapters;
        }
        let is_last = || depths.layer(path).is_some_and(|layer| layer.index + tower.last >= layer.last);
        tower.trains || tower.last > 0 && is_last()
    }

    /// Whether any parameter of the towers or the projections trains.
    pub fn any(self) -> bool {
        self.image.any() || self.text.any() || self.image_projection || self.text_projection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_round_trips() {
        let lock: Lock = "Lu".parse().unwrap();
        assert_eq!(lock, Lock { image: TowerLock::Locked, text: TowerLock::Scratch });
        assert_eq!(lock.to_string(), "Lu");
        for wrong in ["", "L", "LUU", "lx"] {
            assert!(wrong.parse::<Lock>().unwrap_err().to_string().contains(&format!("`{wrong}` is not a lock")));
        }
    }
}
