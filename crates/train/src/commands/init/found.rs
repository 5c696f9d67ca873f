//! What `init` found.

use std::path::PathBuf;

use crate::commands::init::candidate::Candidate;
use crate::commands::init::split::Split;

/// Training data, and what belongs to them.
#[derive(Debug)]
pub(crate) struct Found {
    pub train: Candidate,
    /// Pairs that the training data do not have.
    pub validation: Option<Candidate>,
    /// A folder with one folder per class that the training data do not have.
    pub classes: Option<PathBuf>,
    /// What is there and not used, in words: the test split, and what could be trained on too.
    pub unused: Vec<String>,
    /// All of this in words.
    pub lines: Vec<String>,
}

impl Found {
    /// Training data alone.
    pub fn of(train: Candidate) -> Self {
        Self { train, validation: None, classes: None, unused: Vec::new(), lines: Vec::new() }
    }

    /// Adds the other splits in the file of the training data.
    pub fn other_splits(&mut self) {
        if let Some(validation) = self.train.other_split(Split::Validation) {
            self.validation = Some(validation);
        }
        self.unused.extend(self.train.other_split(Split::Test).map(|test| test.describe()));
    }
}
