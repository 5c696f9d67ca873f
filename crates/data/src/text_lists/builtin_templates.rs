//! Prompt templates of this program, for users without a file of their own.

use std::path::Path;

use crate::error::DataError;

/// What stands in front of the name of a set, in the place of a path.
const PREFIX: &str = "builtin:";

/// Sets of templates by name. Their texts vary what CLIP (arXiv:2103.00020, sec. 3.1.4) varies: the medium, the quality
/// of the picture, and the size, number and place of what it shows.
pub const TEMPLATE_SETS: [(&str, &[&str]); 4] = [
    ("name", &["{c}"]),
    ("photo", &["a photo of a {c}."]),
    (
        "photos",
        &[
            "a photo of a {c}.",
            "a photo of the {c}.",
            "a photo of several {c}.",
            "a close photo of a {c}.",
            "a {c}, seen from a distance.",
            "a sharp, bright photo of a {c}.",
            "a dark or blurred photo of a {c}.",
            "a photo that shows part of a {c}.",
        ],
    ),
    (
        "pictures",
        &[
            "a picture of a {c}.",
            "a photo of a {c}.",
            "a drawing of a {c}.",
            "a painting of a {c}.",
            "an icon of a {c}.",
            "a 3D model of a {c}.",
            "a {c} as a toy.",
            "a {c} in black and white.",
        ],
    ),
];

/// Whether `path` names a set of templates, and no file.
#[must_use]
pub fn is_builtin_templates(path: &Path) -> bool {
    builtin_name(path).is_some()
}

/// The name of a set, if `path` names one. A relative path may have been resolved against a directory.
pub(crate) fn builtin_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX).filter(|_| !path.exists())
}

/// The templates of a set.
///
/// # Errors
/// [`DataError::TextList`] for an unknown name.
pub(crate) fn builtin(path: &Path, name: &str) -> Result<Vec<String>, DataError> {
    let set = TEMPLATE_SETS.iter().find(|(known, _)| *known == name);
    let templates = |(_, templates): &(&str, &[&str])| templates.iter().map(|&template| template.to_owned()).collect();
    set.map(templates).ok_or_else(|| {
        let known: Vec<String> = TEMPLATE_SETS.iter().map(|(known, _)| format!("`{PREFIX}{known}`")).collect();
        let problem = format!("there is no set of templates `{name}`; expected {}, or a file", known.join(", "));
        DataError::TextList { path: path.to_owned(), problem }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text_lists::templates::{CLASS_PLACEHOLDER, read_templates};

    #[test]
    fn sets_are_read_by_name() {
        for (name, expected) in TEMPLATE_SETS {
            let found = read_templates(Path::new(&format!("/config/builtin:{name}"))).unwrap();
            assert_eq!(found, expected);
            assert!(found.iter().all(|template| template.matches(CLASS_PLACEHOLDER).count() == 1));
        }
        let error = read_templates(Path::new("builtin:fotos")).unwrap_err().to_string();
        assert!(error.contains("no set of templates `fotos`; expected `builtin:name`"), "{error}");
    }
}
