//! What trains. LiT writes it as two letters, image tower then text tower (Zhai et al., 2022, sec. 4.1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::dual_encoder::layer_depth::Depths;
use crate::dual_encoder::lora::is_adapter;
use crate::dual_encoder::model::DualEncoder;
use crate::error::ModelError;
use crate::params::values as parameters;

/// How one tower starts, and whether it trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TowerLock {
    /// `L`: pretrained, and never changes.
    Locked,
    /// `U`: pretrained, and trains.
    Unlocked,
    /// `u`: trains from random weights.
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

/// The lock of both towers, such as `LU`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// The image tower's.
    pub image: TowerLock,
    /// The text tower's.
    pub text: TowerLock,
}

impl Default for Lock {
    /// `LU`: a pretrained image tower that stays, and a pretrained text tower that learns to match it.
    fn default() -> Self {
        Self { image: TowerLock::Locked, text: TowerLock::Unlocked }
    }
}

/// A text that is no lock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a lock: two letters, image tower then text tower, each of `L` (locked, pretrained), \
     `U` (unlocked, pretrained) or `u` (unlocked, from scratch), such as `LU`"
)]
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

/// What of one tower trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TowerTraining {
    /// All of it, adapters aside.
    pub trains: bool,
    /// Of one that does not, so many blocks at its end, with what follows them.
    pub last: usize,
    /// Its adapters.
    pub adapters: bool,
}

/// What of a model trains; `logit_scale` and `logit_bias` always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Training {
    /// Of the image tower.
    pub image: TowerTraining,
    /// Of the text tower.
    pub text: TowerTraining,
    /// The image projection.
    pub image_projection: bool,
    /// The text projection.
    pub text_projection: bool,
}

impl TowerTraining {
    /// Whether anything of it trains.
    pub fn any(self) -> bool {
        self.trains || self.last > 0 || self.adapters
    }

    /// What trains in either.
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
    /// What trains in either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            image: self.image.or(other.image),
            text: self.text.or(other.text),
            image_projection: self.image_projection || other.image_projection,
            text_projection: self.text_projection || other.text_projection,
        }
    }

    /// `model` with just this training: what trains is in the gradient graph, and nothing else.
    ///
    /// # Errors
    /// When a tower has fewer blocks than are to train.
    pub fn of(&self, model: DualEncoder) -> Result<DualEncoder, ModelError> {
        let depths = Depths::of(&model);
        let towers = [("image", self.image), ("text", self.text)];
        for ((name, tower), blocks) in towers.into_iter().zip(depths.num_blocks()) {
            if tower.last > blocks {
                return Err(ModelError::Input(format!(
                    "`{name}_unlock_last` is {}, but the {name} tower has {blocks} blocks",
                    tower.last
                )));
            }
        }
        Ok(parameters::lock_unless(model, |path| self.trains(path, &depths)))
    }

    /// Whether the parameter at `path` trains, in a model of these `depths`.
    pub fn trains(&self, path: &str, depths: &Depths) -> bool {
        let tower = match path.split('.').next().unwrap_or_default() {
            "image_tower" => self.image,
            "text_tower" => self.text,
            "image_projection" => return self.image_projection,
            "text_projection" => return self.text_projection,
            _ => return true,
        };
        if is_adapter(path) {
            return tower.adapters;
        }
        let is_last = || depths.layer(path).is_some_and(|layer| layer.index + tower.last >= layer.last);
        tower.trains || tower.last > 0 && is_last()
    }

    /// Whether anything of the towers or projections trains.
    pub fn any(self) -> bool {
        self.image.any() || self.text.any() || self.image_projection || self.text_projection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_lits_letters() {
        let lock: Lock = "Lu".parse().unwrap();
        assert_eq!(lock, Lock { image: TowerLock::Locked, text: TowerLock::Scratch });
        assert_eq!(lock.to_string(), "Lu");
        for wrong in ["", "L", "LUU", "lx"] {
            assert!(wrong.parse::<Lock>().unwrap_err().to_string().contains(&format!("`{wrong}` is not a lock")));
        }
    }
}
