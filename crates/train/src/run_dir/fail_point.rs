//! Named moments at which tests kill the process.

/// Aborts the process if the environment variable `DUALENC_FAIL_AT` is `name`, so that tests can kill a save anywhere.
///
/// Does nothing unless the crate is built with the feature `failpoints`, as the tests of the program are.
pub(crate) fn fail_point(name: &str) {
    if cfg!(feature = "failpoints") && std::env::var("DUALENC_FAIL_AT").is_ok_and(|at| at == name) {
        std::process::abort();
    }
}
