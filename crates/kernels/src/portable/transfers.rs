//! What a program copies between host and device, counted. On a GPU, each copy to the device waits for a place in the
//! queue, and each copy back for everything before it; what a training step may copy is therefore checked by tests.

use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::kind::Basic;
use burn::tensor::{Device, Tensor, TensorCreationOptions, TensorData};

use crate::portable::forms::is_remote;

static UPLOADS: AtomicU64 = AtomicU64::new(0);
static UPLOADED_BYTES: AtomicU64 = AtomicU64::new(0);
static READS: AtomicU64 = AtomicU64::new(0);

/// Copies since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Tensors copied to a device by [`upload`].
    pub uploads: u64,
    /// Their bytes.
    pub uploaded_bytes: u64,
    /// Times at which the host waited for what a device computed: [`count_read`].
    pub reads: u64,
}

impl Transfers {
    /// Those of this process so far.
    pub fn so_far() -> Self {
        let [uploads, uploaded_bytes, reads] =
            [&UPLOADS, &UPLOADED_BYTES, &READS].map(|count| count.load(Ordering::Relaxed));
        Self { uploads, uploaded_bytes, reads }
    }

    /// Those after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            uploads: self.uploads - earlier.uploads,
            uploaded_bytes: self.uploaded_bytes - earlier.uploaded_bytes,
            reads: self.reads - earlier.reads,
        }
    }
}

/// The tensor with these values. What a training step copies to its device is copied by this function.
pub fn upload<const D: usize, K: Basic>(data: TensorData, options: impl Into<TensorCreationOptions>) -> Tensor<D, K> {
    let bytes = data.bytes().len() as u64;
    let tensor = Tensor::from_data(data, options);
    if is_remote(&tensor.device()) {
        UPLOADS.fetch_add(1, Ordering::Relaxed);
        UPLOADED_BYTES.fetch_add(bytes, Ordering::Relaxed);
    }
    tensor
}

/// Counts a copy to the host, of however many tensors, if they are on another device.
pub fn count_read(device: &Device) {
    if is_remote(device) {
        READS.fetch_add(1, Ordering::Relaxed);
    }
}
