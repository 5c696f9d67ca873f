//! Counts of computed and cached features.

/// How many features were computed, and how many were found in the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Features computed now.
    pub computed: usize,
    /// Features found in the cache.
    pub kept: usize,
}

impl std::ops::AddAssign for CacheCounts {
    fn add_assign(&mut self, other: Self) {
        self.computed += other.computed;
        self.kept += other.kept;
    }
}
