//! How many pairs a run trains on, for a message about changed data.

use dualenc_data::counted;
use serde::{Deserialize, Serialize};

/// Size of the training data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairCounts {
    pub images: usize,
    pub captions: usize,
}

impl PairCounts {
    /// What a user can see of a change of the data from `before`.
    pub(crate) fn change_from(self, before: Option<Self>) -> String {
        let shown = |of: Self| format!("{} with {}", counted(of.images, "image"), counted(of.captions, "caption"));
        match before {
            Some(before) if before == self => format!(
                "there are {} as before, but a path, a caption, their order, a weight or the length of a file differs",
                shown(self)
            ),
            Some(before) => format!("there were {}, and there are {} now", shown(before), shown(self)),
            None => format!("there are {} now", shown(self)),
        }
    }
}
