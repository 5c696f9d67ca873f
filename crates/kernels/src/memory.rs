//! What the C allocator does with the memory of large tensors.

/// Makes glibc's allocator keep the memory of freed tensors for the next ones.
///
/// By default it gives blocks of this size back to the system at once and gets them anew, cleared page by page: an eighth
/// of a training step. The price is memory that stays with the process, about a tenth more at the peak. For the whole
/// process; elsewhere than on glibc it does nothing.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "a setting of the C library")]
    {
        /// The most that glibc takes (`HEAP_MAX_SIZE / 2` on 64 bits); larger blocks still come from the system.
        const LARGEST_KEPT: libc::c_int = 32 << 20;
        // SAFETY: mallopt locks the allocator itself and changes two numbers.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_KEPT);
            libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        }
    }
}
