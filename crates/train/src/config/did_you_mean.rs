//! The wording of a suggestion for a misspelt name.

pub(super) fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}
