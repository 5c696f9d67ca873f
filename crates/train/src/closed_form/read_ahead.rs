//! Reads on a thread of its own while the caller works.

use std::panic::resume_unwind;
use std::sync::mpsc::sync_channel;
use std::thread;

use crate::error::TrainError;

/// Passes what `read` sends to `on_item`, in order; `read` is one item ahead, on a thread of its own. It sends with a
/// function that returns false once `on_item` has failed.
///
/// # Errors
/// That of `on_item`, else that of `read`.
pub(crate) fn read_ahead<T: Send>(
    read: impl FnOnce(&dyn Fn(T) -> bool) -> Result<(), TrainError> + Send,
    on_item: impl FnMut(T) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    thread::scope(|scope| {
        // Without room: an item waits for the caller, and no further one is read.
        let (sender, items) = sync_channel(0);
        let reader = scope.spawn(move || read(&|item| sender.send(item).is_ok()));
        let worked = items.into_iter().try_for_each(on_item);
        let read = reader.join().unwrap_or_else(|panic| resume_unwind(panic));
        worked.and(read)
    })
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn usage(what: &str) -> TrainError {
        TrainError::Usage(what.to_owned())
    }

    #[test]
    fn items_come_in_order_before_the_error() {
        for fails in [false, true] {
            let mut seen = Vec::new();
            let read = |send: &dyn Fn(usize) -> bool| {
                assert!((0..100).all(send));
                if fails { Err(usage("read")) } else { Ok(()) }
            };
            let result = read_ahead(read, |item| {
                seen.push(item);
                Ok(())
            });
            assert_eq!(seen, (0..100).collect::<Vec<_>>());
            assert_eq!(result.map_err(|error| error.to_string()), if fails { Err("read".to_owned()) } else { Ok(()) });
        }
    }

    #[test]
    fn failed_work_ends_reading() {
        let sent = AtomicUsize::new(0);
        let read = |send: &dyn Fn(usize) -> bool| {
            for item in 0..100 {
                sent.fetch_add(1, Ordering::Relaxed);
                if !send(item) {
                    return Err(usage("read"));
                }
            }
            Ok(())
        };
        let result = read_ahead(read, |item| if item == 2 { Err(usage("work")) } else { Ok(()) });
        assert_eq!(result.unwrap_err().to_string(), "work");
        assert!((3..=4).contains(&sent.load(Ordering::Relaxed)), "{sent:?} items were read");
    }

    #[test]
    fn panics_of_the_reader_go_on() {
        let read = |send: &dyn Fn(usize) -> bool| {
            assert!(send(0));
            panic!("of the reader")
        };
        let panic = catch_unwind(|| read_ahead(read, |_| Ok(()))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"of the reader"));
    }
}
