//! The pages of images that were read last, within a number of bytes, shared by all threads. Threads that need the
//! same page wait for the one that reads it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::parquet::file::Fault;

/// A page: the number of its column, and its position in the file.
pub(crate) type Key = (u64, u64);

/// Keeps values of type `T` by [`Key`].
#[derive(Debug)]
pub(crate) struct PageCache<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    max_bytes: u64,
}

#[derive(Debug)]
struct State<T> {
    pages: HashMap<Key, Slot<T>>,
    /// Pages by the time of their last use.
    by_use: BTreeMap<u64, Key>,
    time: u64,
    /// Bytes of the pages that are kept.
    kept: u64,
    /// Bytes of the pages that are being read.
    coming: u64,
}

#[derive(Debug)]
enum Slot<T> {
    Coming,
    Kept { page: Arc<T>, bytes: u64, used: u64 },
}

impl<T> PageCache<T> {
    pub(crate) fn new(max_bytes: u64) -> Self {
        let state = State { pages: HashMap::new(), by_use: BTreeMap::new(), time: 0, kept: 0, coming: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new(), max_bytes }
    }

    /// The page `key` of `bytes` bytes, which `read` reads if it is not kept; reading takes `packed` bytes more. While
    /// pages of the cache's size are being read, further ones wait; a page that is larger than the cache is read alone.
    pub(crate) fn get(
        &self,
        key: Key,
        bytes: u64,
        packed: u64,
        read: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<Arc<T>, Fault> {
        let coming = bytes.saturating_add(packed);
        let mut state = self.lock();
        loop {
            if let Some(page) = state.kept(key) {
                return Ok(page);
            }
            let is_coming = state.pages.contains_key(&key);
            if !is_coming && (state.coming == 0 || state.coming.saturating_add(coming) <= self.max_bytes) {
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.pages.insert(key, Slot::Coming);
        state.coming += coming;
        state.evict(self.max_bytes);
        drop(state);
        let mut reading = Reading { cache: self, key, bytes, coming, page: None };
        let page = Arc::new(read()?);
        reading.page = Some(Arc::clone(&page));
        Ok(page)
    }

    /// The page `key`, if it is kept.
    pub(crate) fn kept(&self, key: Key) -> Option<Arc<T>> {
        self.lock().kept(key)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn kept(&mut self, key: Key) -> Option<Arc<T>> {
        let Some(Slot::Kept { page, used, .. }) = self.pages.get_mut(&key) else { return None };
        self.time += 1;
        self.by_use.remove(used);
        *used = self.time;
        self.by_use.insert(self.time, key);
        Some(Arc::clone(page))
    }

    fn evict(&mut self, max_bytes: u64) {
        while self.kept.saturating_add(self.coming) > max_bytes {
            let Some((_, key)) = self.by_use.pop_first() else { return };
            if let Some(Slot::Kept { bytes, .. }) = self.pages.remove(&key) {
                self.kept -= bytes;
            }
        }
    }
}

/// A page that is being read. When it is dropped, the page is kept or, after an error or a panic, free to be read
/// again.
struct Reading<'a, T> {
    cache: &'a PageCache<T>,
    key: Key,
    bytes: u64,
    coming: u64,
    page: Option<Arc<T>>,
}

impl<T> Drop for Reading<'_, T> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        state.coming -= self.coming;
        state.pages.remove(&self.key);
        if let Some(page) = self.page.take() {
            state.time += 1;
            let used = state.time;
            state.pages.insert(self.key, Slot::Kept { page, bytes: self.bytes, used });
            state.by_use.insert(used, self.key);
            state.kept += self.bytes;
            state.evict(self.cache.max_bytes);
        }
        drop(state);
        self.cache.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[test]
    fn least_used_page_goes_first() {
        let cache = PageCache::new(10);
        let reads = AtomicUsize::new(0);
        let get = |at: u64, bytes: u64| {
            let page = cache.get((0, at), bytes, 0, || {
                reads.fetch_add(1, SeqCst);
                Ok(at)
            });
            assert_eq!(*page.unwrap(), at);
            reads.load(SeqCst)
        };
        assert_eq!([get(1, 4), get(2, 4), get(1, 4), get(3, 4)], [1, 2, 2, 3]);
        assert_eq!([get(1, 4), get(2, 4)], [3, 4], "page 2 was used before page 1");
        assert_eq!([get(9, 99), get(9, 99), get(2, 4)], [5, 6, 7], "larger than the cache");
        assert!(cache.get((0, 4), 1, 2, || Err(Fault::Malformed("x".to_owned()))).is_err());
        assert_eq!(get(4, 1), 8, "an error is not kept");
        assert!(cache.lock().kept <= 10);
    }

    #[test]
    fn threads_share_one_read() {
        let (cache, reads) = (PageCache::new(10), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (cache, reads) = (&cache, &reads);
                scope.spawn(move || {
                    for step in 0..200 {
                        let at = (step + thread % 2) / 4;
                        let page = cache.get((0, at), 4, 2, || {
                            reads.fetch_add(1, SeqCst);
                            Ok(at)
                        });
                        assert_eq!(*page.unwrap(), at);
                    }
                });
            }
        });
        assert!(reads.load(SeqCst) < 1600, "{reads:?}");
        assert_eq!(cache.lock().coming, 0);
    }
}
