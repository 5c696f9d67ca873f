//! Turning panics into values: decoders and tokenizers may panic on malformed files, and a worker thread's panic has to
//! reach the consumer as an error.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt::{Display, Formatter};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Number of [`catch_quietly`] calls that this thread is inside.
    static CATCHING: Cell<u32> = const { Cell::new(0) };
    /// Where the newest caught panic of this thread started.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

static QUIET_HOOK: Once = Once::new();

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

fn install_quiet_hook() {
    let previous = take_hook();
    set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        // A thread whose storage is gone catches nothing.
        if CATCHING.try_with(Cell::get).is_ok_and(|depth| depth > 0) {
            let _ = PLACE.try_with(|place| place.replace(info.location().map(ToString::to_string)));
        } else {
            previous(info);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

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
