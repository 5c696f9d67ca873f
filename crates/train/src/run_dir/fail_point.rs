//! Named moments at which tests kill the process.

/// Ends the process at a named moment when `DUALENC_FAIL_AT` names it, so that tests can kill a save anywhere.
/// Builds without debug assertions have no such moments.
pub(crate) fn fail_point(name: &str) {
    if cfg!(debug_assertions) && std::env::var("DUALENC_FAIL_AT").is_ok_and(|at| at == name) {
        std::process::abort();
    }
}
