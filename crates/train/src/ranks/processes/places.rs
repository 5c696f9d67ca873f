//! Where each rank is.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Machine and device of each rank, as far as they are known.
#[derive(Debug)]
pub(super) struct Places(Mutex<Vec<String>>);

impl Places {
    /// That of rank `own` is `host`.
    pub fn new(ranks: usize, own: usize, host: &str) -> Self {
        let mut places = vec![String::new(); ranks];
        host.clone_into(&mut places[own]);
        Self(Mutex::new(places))
    }

    /// Sets all of them.
    pub fn set(&self, places: Vec<String>) {
        *self.all() = places;
    }

    fn all(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That of `rank`; `None`: nothing is known.
    pub fn of(&self, rank: usize) -> Option<String> {
        self.all().get(rank).filter(|place| !place.is_empty()).cloned()
    }

    /// Notes the machine of a rank, of which nothing is known yet.
    pub fn note_host(&self, rank: usize, host: String) {
        if let Some(place) = self.all().get_mut(rank).filter(|place| place.is_empty()) {
            *place = host;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_known_before_devices() {
        let places = Places::new(3, 1, "node2");
        assert_eq!(places.of(0), None);
        places.note_host(0, "node1".to_owned());
        assert_eq!(places.of(0).as_deref(), Some("node1"));
        // What is known with its device is known better.
        places.set(["node1, cuda:0", "node2, cuda:0", "node2, cuda:1"].map(str::to_owned).to_vec());
        places.note_host(2, "node2".to_owned());
        assert_eq!(places.of(2).as_deref(), Some("node2, cuda:1"));
        assert_eq!(places.of(3), None);
    }
}
