//! Buffers of pixels that are used again. A fresh one costs a page fault for every 4 KiB, which for a photo is a
//! twentieth of the time to decode it.

use std::sync::{Mutex, PoisonError};

/// Buffers that are kept: up to the size of an RGB image of 5.6 megapixels. The allocator itself reuses smaller ones
/// (glibc's `M_MMAP_THRESHOLD` is 128 KiB); larger ones would keep much memory from other uses.
const KEPT_BYTES: std::ops::RangeInclusive<usize> = 128 << 10..=16 << 20;

/// Free buffers, at most one per CPU core.
static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A buffer of `len` zeros. Decoders leave parts of a damaged image untouched: these must not show another image.
pub(crate) fn zeros(len: usize) -> Vec<u8> {
    let kept = if KEPT_BYTES.contains(&len) { take(&mut lock(), len) } else { None };
    let Some(mut buffer) = kept else { return vec![0; len] };
    buffer.clear();
    buffer.resize(len, 0);
    buffer
}

/// Keeps a buffer that is no longer in use, if there is room.
pub(crate) fn give_back(buffer: Vec<u8>) {
    if KEPT_BYTES.contains(&buffer.capacity()) {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        keep(&mut lock(), buffer, cores);
    }
}

/// Takes a buffer that has room for `len` bytes.
fn take(free: &mut Vec<Vec<u8>>, len: usize) -> Option<Vec<u8>> {
    let fitting = free.iter().position(|buffer| buffer.capacity() >= len)?;
    Some(free.swap_remove(fitting))
}

/// Adds `buffer`, in the place of the smallest if there are `most` already.
fn keep(free: &mut Vec<Vec<u8>>, buffer: Vec<u8>, most: usize) {
    if free.len() < most {
        free.push(buffer);
    } else if let Some(smallest) = free.iter_mut().min_by_key(|buffer| buffer.capacity())
        && smallest.capacity() < buffer.capacity()
    {
        *smallest = buffer;
    }
}

/// No code panics while it holds the lock.
fn lock() -> std::sync::MutexGuard<'static, Vec<Vec<u8>>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_replace_small_ones() {
        let mut free = Vec::new();
        for capacity in [100, 300, 200, 50] {
            keep(&mut free, Vec::with_capacity(capacity), 2);
        }
        assert!(take(&mut free, 301).is_none());
        assert_eq!(take(&mut free, 250).unwrap().capacity(), 300);
        assert_eq!(take(&mut free, 1).unwrap().capacity(), 200);
        assert!(take(&mut free, 1).is_none());
    }

    #[test]
    fn used_buffers_come_back_as_zeros() {
        for len in [200 << 10, 150 << 10, 250 << 10] {
            give_back(vec![7; 200 << 10]);
            assert!(zeros(len) == vec![0; len], "{len}");
        }
    }
}
