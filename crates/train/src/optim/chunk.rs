//! The size of a parallel task.

/// Values that one parallel task processes.
///
/// A constant, so that sums over chunks do not depend on the number of threads. Changing it changes the last bits of
/// gradient norms and of Adafactor's updates.
pub(crate) const CHUNK: usize = 1 << 14;
