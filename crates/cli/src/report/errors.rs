//! Errors as text: config errors with the lines they are about and carets, in the style of rustc; any other error as
//! `error:`, one `cause:` per link of its chain, and `help:`.
//!
//! Printing, and the choice of the exit code, are left to the caller.

use std::error::Error;
use std::fmt::Write;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use dualenc_train::config::{ConfigError, Problem};

/// Separates the message of an error from its advice.
const ADVICE_SEPARATOR: &str = "\nhelp: ";

/// Renders an error and its causes. If the chain contains a [`ConfigError`], renders the problems of the config
/// instead.
pub fn render(error: &(dyn Error + 'static), color: bool) -> String {
    match chain(error).find_map(|error| error.downcast_ref::<ConfigError>()) {
        Some(config @ ConfigError::Invalid { path, problems }) => {
            let plural = if problems.len() == 1 { "" } else { "s" };
            let mut text: String = problems.iter().map(|problem| render_problem(problem, color) + "\n\n").collect();
            let total = format!("{} problem{plural} in the config `{}`", problems.len(), path.display());
            text.push_str(&label(Level::ERROR, &total, color));
            // What was found besides, such as problems of the data.
            for error in chain(error).take_while(|error| !error.is::<ConfigError>()) {
                let message = error.to_string();
                if message != config.to_string() {
                    let _ = write!(text, "\n\n{}", label(Level::ERROR, &message, color));
                }
            }
            text
        }
        _ => render_chain(error, color),
    }
}

fn render_problem(problem: &Problem, color: bool) -> String {
    let place = &problem.place;
    let mut group = Group::with_title(Level::ERROR.primary_title(without_controls(&problem.message)));
    if let Some(span) = &place.span {
        let annotation = AnnotationKind::Primary.span(span.clone());
        let mut snippet = Snippet::source(place.text.as_ref()).annotation(annotation);
        // A `--set` argument is a source of its own.
        snippet = snippet.path(if place.is_argument() { "--set" } else { place.origin.as_str() });
        group = group.element(snippet);
    } else {
        group = group.element(annotate_snippets::Origin::path(place.origin.as_str()));
    }
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(without_controls(help)));
    }
    renderer(color).render(&[group])
}

/// The error, its source, and so on.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

fn render_chain(error: &(dyn Error + 'static), color: bool) -> String {
    let mut text = String::new();
    let mut help = Vec::new();
    let mut above = String::new();
    for error in chain(error) {
        let message = error.to_string();
        let (message, advice) = message.split_once(ADVICE_SEPARATOR).unwrap_or((&message, ""));
        help.extend((!advice.is_empty()).then(|| advice.to_owned()));
        // Some messages end with that of their cause; print it once.
        if text.is_empty() {
            text.push_str(&label(Level::ERROR, message, color));
        } else if !above.ends_with(message) {
            let _ = write!(text, "\n{}", label(Level::NOTE.with_name("cause"), message, color));
        }
        above = message.to_owned();
    }
    for advice in help {
        let _ = write!(text, "\n{}", label(Level::HELP, &advice, color));
    }
    text
}

/// `error: message`, in the colours of the level.
fn label(level: Level<'_>, message: &str, color: bool) -> String {
    renderer(color).render(&[Group::with_title(level.primary_title(without_controls(message)))])
}

fn renderer(color: bool) -> Renderer {
    if color { Renderer::styled() } else { Renderer::plain() }
}

/// Replaces control characters, which a file name or a value could send to the terminal.
fn without_controls(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::path::PathBuf;

    use super::*;
    use dualenc_train::config::RunConfig;

    const TEXT: &str = "[data.train.csv]
path = \"train.csv\"

[model]
image_tower = \"./tä\"
\tlock = \"éé\" # two letters

[train]
batch_size = 1
learning_rte = 3
epochs = 1
";

    fn load(text: &str, overrides: &[&str]) -> Result<RunConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("run.toml");
        std::fs::write(&file, text).unwrap();
        let overrides: Vec<String> = overrides.iter().map(|argument| (*argument).to_owned()).collect();
        let shorten = |error| match error {
            ConfigError::Invalid { mut problems, .. } => {
                for place in problems.iter_mut().map(|problem| &mut problem.place).filter(|place| !place.is_argument())
                {
                    place.origin = "run.toml".to_owned();
                }
                ConfigError::Invalid { path: PathBuf::from("run.toml"), problems }
            }
            other => other,
        };
        RunConfig::load(&file, &overrides).map_err(shorten)
    }

    #[test]
    fn renders_config_problems() {
        let error = load(TEXT, &["train.eps=-1"]).unwrap_err();
        assert_eq!(
            render(&error, false),
            "\
error: missing key `model.text_tower`
 --> run.toml:4:1
  |
4 | [model]
  | ^^^^^^^
  |
  = help: set it to a Hugging Face directory or a hub id, or set `init` to a whole model

error: `model.lock`: `éé` is not a lock; expected two letters, image tower then text tower, each of \
`L` (locked, pretrained), \
`U` (unlocked, pretrained) or `u` (unlocked, from scratch), such as `LU`
 --> run.toml:6:9
  |
6 |     lock = \"éé\" # two letters
  |            ^^^^

error: `train.batch_size` is 1, expected at least 2
 --> run.toml:9:14
  |
9 | batch_size = 1
  |              ^
  |
  = help: a pair's negatives are the other pairs of its batch

error: unknown key `train.learning_rte`
  --> run.toml:10:1
   |
10 | learning_rte = 3
   | ^^^^^^^^^^^^
   |
   = help: did you mean `learning_rate`?

error: missing key `run.dir`
--> run.toml
 = help: where the run writes, such as `dir = \"runs/first\"`

error: `train.eps` is -1, expected a finite number above 0
 --> --set:1:11
  |
1 | train.eps=-1
  |           ^^

error: 6 problems in the config `run.toml`"
        );
    }

    #[test]
    fn colours_only_on_request() {
        let error = load("[rnu]\n", &[]).unwrap_err();
        assert!(!render(&error, false).contains('\u{1b}'));
        assert!(render(&error, true).contains("\u{1b}[1m\u{1b}[91merror\u{1b}[0m"));
    }

    #[derive(Debug)]
    struct Link(&'static str, Option<Box<Link>>);

    impl fmt::Display for Link {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(self.0)
        }
    }

    impl Error for Link {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|link| link as _)
        }
    }

    #[test]
    fn renders_each_cause_once() {
        let system = Link("permission denied", None);
        let write = Link("cannot write `a`: permission denied\nhelp: choose another `run.dir`", Some(Box::new(system)));
        let save = Link("step 7 is not saved", Some(Box::new(write)));
        assert_eq!(
            render(&save, false),
            "error: step 7 is not saved\ncause: cannot write `a`: permission denied\nhelp: choose another `run.dir`"
        );
        let bell = Link("no file `\u{7}\u{1b}[2J`", None);
        assert_eq!(render(&bell, false), "error: no file `\u{fffd}\u{fffd}[2J`");
    }

    #[test]
    fn finds_wrapped_config_error() {
        #[derive(Debug)]
        struct Above(ConfigError);
        impl fmt::Display for Above {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("cannot train")
            }
        }
        impl Error for Above {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        let rendered = render(&Above(load("[rnu]\n", &[]).unwrap_err()), false);
        assert!(rendered.starts_with("error: unknown key `rnu`\n --> run.toml:1:2\n"), "{rendered}");
    }

    /// Underlining must not split a character, wherever the config ends and whatever unusual characters it holds.
    #[test]
    fn renders_any_cut_of_a_config() {
        for cut in TEXT.char_indices().map(|(at, _)| at) {
            let (before, after) = TEXT.split_at(cut);
            for text in [before.to_owned(), format!("{before}\u{feff}\r\n\u{200d}{after}"), format!("\u{feff}{after}")]
            {
                // Every prefix has a problem: its batch size is 1, or missing.
                let error = load(&text, &["run.dir=\t\u{1f600}"]).unwrap_err();
                assert!(render(&error, false).starts_with("error: "));
            }
        }
    }
}
