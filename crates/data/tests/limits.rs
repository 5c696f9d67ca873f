//! Limits that tests set: how many mutations to try, how long one may take, and how much memory it may use.
//!
//! `DUALENC_SOAK=10` multiplies the number of mutations, and `DUALENC_SEED=1` tries others; `--nocapture` shows what
//! ran.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How long one mutation may take. They take milliseconds: this turns a hang into a failure, and measures nothing.
const DEADLINE: Duration = Duration::from_secs(60);

thread_local! {
    /// Bytes that this thread has allocated and not freed, and their largest number since the last measurement began.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

/// The system's allocator, which counts the bytes of each thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator is unsafe to implement; this one passes every call to the system's")]
// SAFETY: every method passes its arguments to `System`, under the same conditions. Counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller of this method keeps the same conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller of this method keeps the same conditions.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size as isize - layout.size() as isize);
        // SAFETY: the caller of this method keeps the same conditions.
        unsafe { System.realloc(place, layout, new_size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller of this method keeps the same conditions.
        unsafe { System.dealloc(place, layout) }
    }
}

/// Runs `f`; returns its result and the most memory that this thread had allocated at once for it, in bytes.
pub fn peak_memory<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = f();
    (result, (PEAK.get() - before) as usize)
}

/// Runs `f` on a thread of its own and returns its result. A hang becomes a failure after `deadline`, which is generous
/// and no measurement.
pub fn within<T: Send + 'static>(deadline: Duration, f: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || sender.send(f()));
    match receiver.recv_timeout(deadline) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("hangs: no result after {deadline:?}"),
        Err(RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

/// How many mutations were accepted and refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    pub good: u64,
    pub bad: u64,
}

/// Calls `attempt` with `count` seeds (more in a soak), each under a deadline and within `max_bytes` of memory. It
/// returns whether the input was accepted. A failure names the seed.
pub fn attempts(
    name: &str,
    count: u64,
    max_bytes: usize,
    mut attempt: impl FnMut(u64) -> bool + Send + 'static,
) -> Outcomes {
    let (count, first) = (count * variable("DUALENC_SOAK", 1), variable("DUALENC_SEED", 0) << 32);
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || {
        for seed in first..first + count {
            let (accepted, peak) = peak_memory(|| attempt(seed));
            assert!(peak <= max_bytes, "seed {seed} used {peak} bytes of memory, {max_bytes} allowed");
            if sender.send((seed, accepted, peak)).is_err() {
                return;
            }
        }
    });
    let (mut outcomes, mut most, mut next) = (Outcomes::default(), 0, first);
    loop {
        match receiver.recv_timeout(DEADLINE) {
            Ok((seed, accepted, peak)) => {
                *(if accepted { &mut outcomes.good } else { &mut outcomes.bad }) += 1;
                (most, next) = (most.max(peak), seed + 1);
            }
            Err(RecvTimeoutError::Timeout) => panic!("{name}: seed {next} hangs: no result after {DEADLINE:?}"),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Err(panic) = thread.join() {
        let message = dualenc_data::panic_message(panic.as_ref());
        panic!("{name}, seed {next} (DUALENC_SEED={}): {message}", next >> 32);
    }
    assert_eq!(outcomes.good + outcomes.bad, count);
    #[expect(clippy::print_stdout, reason = "shown with `--nocapture`: what a soak ran")]
    {
        println!("{name}: {count} inputs from seed {first}, {outcomes:?}, at most {most} bytes of memory");
    }
    outcomes
}

#[test]
fn memory_is_counted() {
    let (kept, peak) = peak_memory(|| {
        drop(vec![1u8; 1 << 20]);
        vec![1u8; 1 << 10]
    });
    assert!(kept.len() == 1 << 10 && (1 << 20..2 << 20).contains(&peak), "{peak}");
    let failure = std::panic::catch_unwind(|| attempts("vectors", 3, 1000, |seed| vec![seed as u8; 2000].len() > 1));
    let message = dualenc_data::panic_message(failure.unwrap_err().as_ref());
    assert!(message.contains("used 2000 bytes of memory, 1000 allowed"), "{message}");
}
