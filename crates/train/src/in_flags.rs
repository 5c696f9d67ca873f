//! Messages about data, for commands that take flags in place of a config.

use dualenc_data::DataErrorCause;

use crate::error::TrainError;

/// Keys of a source that messages tell to set.
const KEYS: [&str; 13] = [
    "image",
    "caption",
    "captions",
    "captions_from",
    "classnames",
    "columns",
    "delimiter",
    "encoding",
    "header",
    "quote",
    "root",
    "split",
    "strict",
];

/// What stands for the keys of a source in a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    /// The keys that have a flag of their name.
    pub known: &'static [&'static str],
    /// What to do about the other keys.
    pub way_out: &'static str,
}

impl Flags {
    /// The message with flags in place of keys: "set `root`" becomes "set `--root`". A key without a flag is named at
    /// the end, with the way out.
    pub(crate) fn translate(&self, message: &str) -> String {
        let mut parts: Vec<String> = message.split('`').map(str::to_owned).collect();
        let mut missing = None;
        for at in (1..parts.len()).step_by(2) {
            let key = parts[at].split(" = ").next().unwrap_or_default().to_owned();
            let before = &parts[at - 1];
            let is_order = before.ends_with("set ") || key == "classnames" && before.ends_with("with ");
            if !is_order || !KEYS.contains(&key.as_str()) {
                continue;
            }
            if self.known.contains(&key.as_str()) {
                parts[at] = format!("--{}", parts[at].replacen(" = ", " ", 1));
            } else {
                missing.get_or_insert(key);
            }
        }
        let message = parts.join("`");
        match missing {
            Some(key) => format!("{message}; `{key}` has no flag: {}", self.way_out),
            None => message,
        }
    }

    /// The error of data that the user can change, with flags in place of keys.
    pub(crate) fn translate_error(&self, error: TrainError) -> TrainError {
        match error {
            TrainError::Data(error) if error.cause() == DataErrorCause::Input => {
                TrainError::Usage(self.translate(&error.to_string()))
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: Flags = Flags { known: &["root", "classnames"], way_out: "use a config" };

    #[test]
    fn keys_become_flags() {
        for (message, expected) in [
            ("`d.csv`: set `root` to that folder", "`d.csv`: set `--root` to that folder"),
            ("name them with `classnames`", "name them with `--classnames`"),
            ("set `root = \"a b\"`?", "set `--root \"a b\"`?"),
            (
                "`d` has no column `image`; set `image` to it",
                "`d` has no column `image`; set `image` to it; `image` has no \
              flag: use a config",
            ),
            ("set `split = \"train\"`", "set `split = \"train\"`; `split` has no flag: use a config"),
            ("rows with `image` and no `root`", "rows with `image` and no `root`"),
            ("", ""),
        ] {
            assert_eq!(FLAGS.translate(message), expected);
        }
    }
}
