//! Settings of the C allocator for large tensors.

/// Makes glibc's allocator reuse the memory of freed tensors instead of returning it to the system.
///
/// By default glibc unmaps blocks of this size at once, and the next allocation is zeroed page by page: an eighth of
/// the time of a training step. The price is a peak memory about a tenth higher. The setting applies to the whole
/// process; with other C libraries this function does nothing.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "a setting of the C library")]
    {
        /// glibc's maximum on 64-bit targets (`HEAP_MAX_SIZE / 2`); larger blocks are still mapped and unmapped.
        const MMAP_THRESHOLD: libc::c_int = 32 << 20;
        // SAFETY: mallopt takes the allocator's own lock and changes two numbers.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
            libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        }
    }
}

/// Returns the memory of freed tensors to the system, so that what is in use can be measured. With other C libraries
/// than glibc this function does nothing.
pub fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "a call of the C library")]
    // SAFETY: malloc_trim takes the allocator's own locks and only touches free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_usable_afterwards() {
        for _ in 0..3 {
            super::keep_freed_memory();
            let values = vec![1u8; 40 << 20];
            assert!(values.iter().all(|&value| value == 1));
            drop(values);
            super::return_freed_memory();
        }
    }
}
