//! Asks the processor to read ahead.

/// Reads the cache line of the value at `offset` to the L2 cache. `values` may end before it, but should not be
/// empty: its address is not mapped then, which the processor looks up each time. Elsewhere than on x86-64, this does
/// nothing.
#[inline(always)]
pub(crate) fn prefetch(values: &[f32], offset: usize) {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "an instruction that takes any address")]
    // SAFETY: the instruction changes no value and never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(values.as_ptr().wrapping_add(offset).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, offset);
}
