//! Failures of a device that its backend tells of by a panic, as errors.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use dualenc_data::panic_message;
use dualenc_model::DeviceFailure;

use crate::error::TrainError;

/// Whether this process computes on a device that is not the CPU.
static DEVICE_IS_OPEN: AtomicBool = AtomicBool::new(false);

/// The first failure of a device while [`catch_device_failures`] runs. Backends have threads of their own, and what the
/// thread that waits for them says only follows from it. A backend may also have recovered, as CubeCL does from what
/// fails while it tunes: a later panic is then one of its own.
static FIRST: Mutex<Option<DeviceFailure>> = Mutex::new(None);

/// What threads say that waited for one that panicked: `CallError` and the device runner of CubeCL 0.11, its tuning,
/// and the channels and locks of std. A `CallError` with a cause of its own is none of them.
const FOLLOW_UPS: [&str; 8] = [
    "device runner channel disconnected",
    "task panicked on device runner thread with a non-string payload",
    "Failed to synchronize device runner thread initialization",
    "At least one kernel has to succeed",
    "Should run when selected by autotune",
    "RecvError",
    "SendError",
    "PoisonError",
];

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
    let failure = result.as_ref().err().and_then(|panic| failure_of(&panic_message(panic.as_ref())));
    *first() = None;
    match (result, failure) {
        (Ok(result), _) => result,
        (Err(_), Some(failure)) => Err(TrainError::DeviceFailed { failure }.into()),
        (Err(panic), None) => resume_unwind(panic),
    }
}

/// The failure of a device that a panic with this message tells of, or follows from. On the CPU alone, a panic is a bug
/// whatever it says.
pub(crate) fn failure_of(message: &str) -> Option<DeviceFailure> {
    failure_where(DEVICE_IS_OPEN.load(Ordering::Relaxed), message)
}

fn failure_where(device_is_open: bool, message: &str) -> Option<DeviceFailure> {
    if !device_is_open {
        return None;
    }
    DeviceFailure::recognise(message).or_else(|| if follows(message) { first().clone() } else { None })
}

/// Whether this is the message of a thread that waited for one that panicked.
fn follows(message: &str) -> bool {
    FOLLOW_UPS.iter().any(|text| message.contains(text))
}

fn first() -> MutexGuard<'static, Option<DeviceFailure>> {
    FIRST.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install_hook() {
    let previous = take_hook();
    set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        if DEVICE_IS_OPEN.load(Ordering::Relaxed) {
            let message = panic_message(info.payload());
            if let Some(failure) = DeviceFailure::recognise(&message) {
                first().get_or_insert(failure);
                return;
            }
            // The thread that waited for the one that failed.
            if follows(&message) && first().is_some() && CATCHING.try_with(Cell::get).unwrap_or_default() {
                return;
            }
        }
        previous(info);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows from a panic of a thread of CubeCL.
    const FOLLOW_UP: &str = "device runner channel disconnected before producing a result";

    /// Runs work of which a thread panics with `text`, and then this one with `then`.
    fn run(text: &'static str, then: &'static str) -> Result<(), TrainError> {
        catch_device_failures(|| {
            let server = std::thread::spawn(move || panic!("{text}"));
            assert!(server.join().is_err());
            panic!("{then}")
        })
    }

    /// The message of the panic that [`run`] ends with.
    fn panic_of(text: &'static str, then: &'static str) -> String {
        panic_message(catch_unwind(|| run(text, then)).unwrap_err().as_ref())
    }

    #[test]
    fn panic_on_the_cpu_is_a_bug() {
        let full = "out of device memory allocating 2097152 bytes";
        assert!(failure_where(true, full).is_some() && failure_where(false, full).is_none());
    }

    // One test, as the first failure is one of the whole process.
    #[test]
    fn panic_of_a_backend_is_an_error() {
        device_is_open();
        let full = "out of device memory allocating 2097152 bytes\nNo backtrace available";
        let start = "the device failed: it is out of memory: there is no room for 2097152 bytes (2.0 MiB); lower \
                     `train.micro_batch_size`";
        for (text, then) in [(full, FOLLOW_UP), ("a bug of ours", full)] {
            let text = run(text, then).unwrap_err().to_string();
            assert!(text.starts_with(start), "{text}");
        }
        // Any other panic stays one, also after a failure that the backend recovered from.
        assert_eq!(panic_of("a bug of ours", FOLLOW_UP), FOLLOW_UP);
        assert_eq!(panic_of(full, "a bug of ours"), "a bug of ours");
        // The failure has no effect on the next work.
        assert_eq!(panic_of("a bug of ours", FOLLOW_UP), FOLLOW_UP);
        assert!(run_of_error().is_err());
    }

    fn run_of_error() -> Result<(), TrainError> {
        catch_device_failures(|| Err(TrainError::Usage("no".to_owned())))
    }
}
