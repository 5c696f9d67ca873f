//! Turning panics into values: decoders and tokenizers may panic on malformed files, and a worker thread's panic has to
//! reach the consumer as an error.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt::{Display, Formatter};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

thread_local! {
    /// Number of [`catch_quietly`] calls that this thread is inside.
    static CATCHING: Cell<u32> = const { Cell::new(0) };
    /// Where the newest caught panic of this thread started.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

static QUIET_HOOK: Once = Once::new();

/// Panics of all threads while [`catch_of_all_threads`] runs.
static WATCH: Mutex<Watch> = Mutex::new(Watch { calls: 0, first: None });

/// What [`catch_of_all_threads`] sees.
struct Watch {
    /// Calls that run now.
    calls: u32,
    /// The first panic that is not caught, since the first of them began.
    first: Option<CaughtPanic>,
}

/// A panic that was caught. `Display` has its message and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaughtPanic {
    /// The message of the panic.
    pub message: String,
    /// `file:line:column` of the panic in the source; `None` if it is not known.
    pub place: Option<String>,
}

impl Display for CaughtPanic {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        self.place.iter().try_for_each(|place| write!(f, " (at {place})"))
    }
}

/// The message of a panic payload.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(message) = panic.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

/// Runs `f` on this thread and returns a panic as an error. Nothing is printed: the first call installs a panic hook
/// that is silent inside `catch_quietly` and passes every other panic to the hook before it.
///
/// This works only where panics unwind. A program built with `panic = "abort"` ends at the first panic, and one that
/// replaces the panic hook later may print it. Panics of other threads that `f` starts are neither caught nor silent.
///
/// # Errors
/// The panic.
pub fn catch_quietly<T>(f: impl FnOnce() -> T) -> Result<T, CaughtPanic> {
    // The hook cannot be changed while a panic unwinds (in a `drop`); a later call installs it.
    if !std::thread::panicking() {
        QUIET_HOOK.call_once(install_quiet_hook);
    }
    CATCHING.set(CATCHING.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(f));
    CATCHING.set(CATCHING.get() - 1);
    let place = PLACE.take();
    result.map_err(|panic| CaughtPanic { message: panic_message(panic.as_ref()), place })
}

/// As [`catch_quietly`], and silent about panics of all other threads of the process while `f` runs. The error is their
/// first panic, if there is one: that of a thread which waits for them only follows from it.
///
/// # Errors
/// `f` panicked.
pub fn catch_of_all_threads<T>(f: impl FnOnce() -> T) -> Result<T, CaughtPanic> {
    QUIET_HOOK.call_once(install_quiet_hook);
    watch().calls += 1;
    let result = catch_quietly(f);
    let mut watch = watch();
    watch.calls -= 1;
    let first = if watch.calls == 0 { watch.first.take() } else { watch.first.clone() };
    result.map_err(|panic| first.unwrap_or(panic))
}

fn watch() -> MutexGuard<'static, Watch> {
    WATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install_quiet_hook() {
    let previous = take_hook();
    set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let place = || info.location().map(ToString::to_string);
        // A thread without its thread-local storage catches nothing.
        if CATCHING.try_with(Cell::get).is_ok_and(|depth| depth > 0) {
            let _ = PLACE.try_with(|found| found.replace(place()));
            return;
        }
        let mut watch = watch();
        if watch.calls > 0 {
            watch.first.get_or_insert_with(|| CaughtPanic { message: panic_message(info.payload()), place: place() });
        } else {
            drop(watch);
            previous(info);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_panic_of_any_thread_is_the_cause() {
        let cause = || {
            let found = catch_of_all_threads(|| {
                let driver = std::thread::spawn(|| panic!("no driver"));
                driver.join().expect("the driver is there");
            });
            found.unwrap_err().message
        };
        // A thread of another test may panic in between.
        assert!((0..20).any(|_| cause() == "no driver"));
        assert_eq!(catch_of_all_threads(|| 3), Ok(3));
    }

    #[test]
    fn caught_panic_names_place() {
        let caught = catch_quietly(|| panic!("no {}", 7)).unwrap_err();
        assert_eq!(caught.message, "no 7");
        assert!(caught.place.clone().unwrap().contains("panics.rs:"), "{caught}");
        assert!(caught.to_string().starts_with("no 7 (at "), "{caught}");
        let rethrown = catch_quietly(|| std::panic::resume_unwind(Box::new("again"))).unwrap_err();
        assert_eq!((rethrown.message.as_str(), rethrown.place), ("again", None));
        assert_eq!(catch_quietly(|| catch_quietly(|| panic!("inner")).is_err()), Ok(true));
        assert_eq!(CATCHING.get(), 0);
    }
}
