//! Which form of an operation a device takes.

use std::cell::Cell;

use burn::backend::DispatchDevice;
use burn::tensor::Device;

thread_local! {
    static ONLY_PLAIN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with the forms that devices without kernels of ours take, on this thread. For tests: they then cover
/// these forms on any machine.
pub fn with_plain_forms<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ONLY_PLAIN.set(self.0);
        }
    }
    let _restore = Restore(ONLY_PLAIN.replace(true));
    work()
}

/// Whether this thread is inside of [`with_plain_forms`].
pub(crate) fn only_plain() -> bool {
    ONLY_PLAIN.get()
}

/// Whether values that the host makes have to be copied to `device`.
pub fn is_remote(device: &Device) -> bool {
    let device = device.clone().without_autodiff();
    let on_host = match device.as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => true,
        _ => false,
    };
    only_plain() || !on_host
}
