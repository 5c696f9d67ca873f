//! Failures of a device that its backend tells of by a panic, as errors.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use dualenc_data::panic_message;
use dualenc_model::DeviceFailure;

use crate::error::TrainError;

/// Whether this process computes on a device that is not the CPU.
static DEVICE_IS_OPEN: AtomicBool = AtomicBool::new(false);

/// The first failure of a device while [`catch_device_failures`] runs. Backends have threads of their own, and what the
/// thread that waits for them says only follows from it.
static FIRST: Mutex<Option<DeviceFailure>> = Mutex::new(None);

static HOOK: Once = Once::new();

thread_local! {
    /// Whether this thread is inside [`catch_device_failures`].
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Notes that panics can be failures of a device from now on.
pub(crate) fn device_is_open() {
    DEVICE_IS_OPEN.store(true, Ordering::Relaxed);
}

/// Runs `work`. A panic that tells of a failed device becomes an error, and is not printed; any other goes on.
///
/// # Errors
/// Those of `work`, and the failure of the device.
pub fn catch_device_failures<T, E: From<TrainError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    HOOK.call_once(install_hook);
    CATCHING.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(false);
    let failure = FIRST.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (result, failure) {
        (Ok(result), _) => result,
        (Err(_), Some(failure)) => Err(TrainError::DeviceFailed { failure }.into()),
        (Err(panic), None) => resume_unwind(panic),
    }
}

fn install_hook() {
    let previous = take_hook();
    set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        if DEVICE_IS_OPEN.load(Ordering::Relaxed) {
            let mut first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(failure) = DeviceFailure::recognise(&panic_message(info.payload())) {
                first.get_or_insert(failure);
                return;
            }
            // The thread that waited for the one that failed.
            if first.is_some() && CATCHING.try_with(Cell::get).unwrap_or_default() {
                return;
            }
        }
        previous(info);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_of_a_backend_is_an_error() {
        let run = |text: &'static str| -> Result<(), TrainError> {
            catch_device_failures(|| {
                let server = std::thread::spawn(move || panic!("{text}"));
                server.join().expect("the server answers");
                Ok(())
            })
        };
        device_is_open();
        let text =
            run("out of device memory allocating 2097152 bytes\nNo backtrace available").unwrap_err().to_string();
        let start = "the device failed: it is out of memory: there is no room for 2097152 bytes (2.0 MiB); lower \
                     `train.micro_batch_size`";
        assert!(text.starts_with(start), "{text}");
        // Any other panic stays one.
        assert!(catch_unwind(|| run("a bug of ours")).is_err());
        assert!(run_of_error().is_err());
    }

    fn run_of_error() -> Result<(), TrainError> {
        catch_device_failures(|| Err(TrainError::Usage("no".to_owned())))
    }
}
