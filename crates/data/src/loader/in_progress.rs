//! The images that worker threads are loading now, to name the one that a loader waits for.

use std::fmt::{Display, Formatter};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An image that has been loading for unusually long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The path, or `shard.tar/entry.jpg`.
    pub key: String,
    /// How long it has been loading.
    pub elapsed: Duration,
    /// Number of other images that have been loading for as long.
    pub others: usize,
}

impl Display for Stall {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "image `{}` has been loading for {} s", self.key, self.elapsed.as_secs())?;
        if self.others > 0 {
            write!(f, ", and {} others about as long", self.others)?;
        }
        f.write_str("; the run waits: check the disk or the network file system")
    }
}

/// Images in progress. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct InProgress {
    inner: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    next_ticket: u64,
    loading: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    ticket: u64,
    image: usize,
    started: Instant,
    /// When it was last reported; before that, when it started.
    noted: Instant,
}

/// Ends the progress of an image when it is dropped, by a panic too.
pub(crate) struct Ticket<'a> {
    owner: &'a InProgress,
    number: u64,
}

impl InProgress {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        // No code that can panic runs under this lock between two changes.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an image is loading until the ticket is dropped.
    pub(crate) fn enter(&self, image: usize) -> Ticket<'_> {
        let now = Instant::now();
        let mut entries = self.lock();
        let ticket = entries.next_ticket;
        entries.next_ticket += 1;
        entries.loading.push(Entry { ticket, image, started: now, noted: now });
        Ticket { owner: self, number: ticket }
    }

    /// The time until an image has been loading for `after` since it started or was last reported.
    pub(crate) fn time_left(&self, after: Duration) -> Duration {
        let oldest = self.lock().loading.iter().map(|entry| entry.noted.elapsed()).max();
        after.saturating_sub(oldest.unwrap_or_default())
    }

    /// Reports the images that have been loading for `after`: the oldest of them, its time, and the number of others.
    pub(crate) fn take_stalled(&self, after: Duration) -> Option<(usize, Duration, usize)> {
        let mut entries = self.lock();
        let now = Instant::now();
        let stalled = entries.loading.iter_mut().filter(|entry| now.duration_since(entry.noted) >= after);
        let reported = stalled.map(|entry| {
            entry.noted = now;
            (now.duration_since(entry.started), entry.image)
        });
        let reported: Vec<_> = reported.collect();
        let (elapsed, image) = *reported.iter().max_by_key(|(elapsed, _)| *elapsed)?;
        Some((image, elapsed, reported.len() - 1))
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.owner.lock().loading.retain(|entry| entry.ticket != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_oldest_once() {
        let images = InProgress::default();
        assert_eq!(images.take_stalled(Duration::ZERO), None);
        let hour = Duration::from_secs(3600);
        assert_eq!(images.time_left(hour), hour);
        let (first, second) = (images.enter(7), images.enter(8));
        assert!(images.time_left(hour) < hour);
        let (image, _, others) = images.take_stalled(Duration::ZERO).unwrap();
        assert_eq!((image, others), (7, 1));
        assert_eq!(images.take_stalled(hour), None, "reported just now");
        drop(first);
        assert_eq!(images.take_stalled(Duration::ZERO).map(|(image, _, others)| (image, others)), Some((8, 0)));
        drop(second);
        assert_eq!(images.take_stalled(Duration::ZERO), None);
    }
}
