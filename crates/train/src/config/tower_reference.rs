//! What a reference to a tower may look like.

use std::path::Path;

/// Whether `reference` can name a tower in a resolved config: an absolute path, or a hub id.
pub(crate) fn is_reference(reference: &str) -> bool {
    Path::new(reference).is_absolute() || is_hub_id(reference)
}

/// `name` or `org/name`, in the characters the hub allows (`validate_repo_id` of `huggingface_hub`).
pub(crate) fn is_hub_id(reference: &str) -> bool {
    let is_name = |name: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let ends = |c: char| matches!(c, '-' | '.');
        !name.is_empty() && name.chars().all(allowed) && !name.starts_with(ends) && !name.ends_with(ends)
    };
    let is_sound = !reference.contains("--") && !reference.contains("..") && reference.len() <= 96;
    is_sound && reference.matches('/').count() <= 1 && reference.split('/').all(is_name)
}

/// Whether a name from outside may become one component of a path.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.chars().all(allowed) && !name.starts_with('.')
}
