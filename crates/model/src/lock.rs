//! What trains. LiT writes it as two letters, image tower then text tower (Zhai et al., 2022, sec. 4.1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
