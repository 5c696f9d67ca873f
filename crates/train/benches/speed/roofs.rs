//! What the machine can do at most: matrix products and memory.

use rayon::prelude::*;

use crate::Work;

/// Bytes of the copied block: far more than any cache holds.
const COPY_BYTES: usize = 256 << 20;

/// The product of `m x k` and `k x n` for `[m, n, k]`, by the `gemm` crate as Burn's CPU backend uses it, on all
/// threads.
pub fn gemm([m, n, k]: [usize; 3]) -> Work {
    let left: Vec<f32> = (0..m * k).map(|index| (index % 7) as f32 - 3.0).collect();
    let right: Vec<f32> = (0..k * n).map(|index| (index % 5) as f32 - 2.0).collect();
    let mut out = vec![0.0f32; m * n];
    let threads = gemm::Parallelism::Rayon(0);
    let round = move || {
        #[expect(unsafe_code, reason = "the crate's only interface; sizes and strides are those of the three vectors")]
        // SAFETY: sizes and strides are those of the three vectors.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                out.as_mut_ptr(),
                1,
                n as isize,
                false,
                left.as_ptr(),
                1,
                k as isize,
                right.as_ptr(),
                1,
                n as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                threads,
            );
        }
        Ok(())
    };
    Work { flops: 2.0 * (m * n * k) as f64, bytes: 0.0, images: 0, round: Box::new(round) }
}

/// A block of memory copied on all threads: as many bytes read as written.
pub fn copy() -> Work {
    let from = vec![1u8; COPY_BYTES];
    let mut to = vec![0u8; COPY_BYTES];
    let round = move || {
        let part = COPY_BYTES.div_ceil(rayon::current_num_threads());
        to.par_chunks_mut(part).zip(from.par_chunks(part)).for_each(|(to, from)| to.copy_from_slice(from));
        std::hint::black_box(&to);
        Ok(())
    };
    Work { flops: 0.0, bytes: 2.0 * COPY_BYTES as f64, images: 0, round: Box::new(round) }
}
