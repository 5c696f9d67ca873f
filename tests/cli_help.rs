//! `--help`, shell completions and the manual page: every command appears, every option is explained.

use crate::support::Session;

/// The names in the list of commands that `dualenc --help` prints.
fn commands(session: &Session) -> Vec<String> {
    let help = session.succeed(&["--help"]);
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = list.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let names: Vec<String> = names.filter(|name| *name != "help").map(str::to_owned).collect();
    assert!(names.len() >= 10 && names.contains(&"train".to_owned()), "{help}");
    names
}

#[test]
fn help_explains_every_option() {
    let session = Session::new();
    for command in commands(&session) {
        let help = session.succeed(&[&command, "--help"]);
        let about = help.lines().next().unwrap();
        assert!(about.len() > 10 && !about.starts_with("Usage"), "{command}: {help}");
        assert!(help.contains(&format!("Usage: dualenc {command}")), "{help}");
        let lines: Vec<&str> = help.lines().collect();
        // Long help puts the text of an option on the line below its name.
        let options = lines.windows(2).filter(|pair| {
            let name = pair[0].trim_start();
            let indent = pair[0].len() - name.len();
            (1..10).contains(&indent) && (name.starts_with('-') || name.starts_with('<')) && !name.starts_with("- ")
        });
        for option in options {
            let text = option[1].trim_start();
            assert!(option[1].starts_with("          ") && text.len() > 5, "{command} {}: no help", option[0]);
        }
    }
}

#[test]
fn completions_name_every_command() {
    let session = Session::new();
    let commands = commands(&session);
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = session.succeed(&["completions", shell]);
        for command in &commands {
            assert!(script.contains(command), "{shell}: {command} is missing");
        }
    }
    assert!(session.fail(2, &["completions", "tcsh"]).contains("possible values: bash"));
}

#[test]
fn man_page_names_every_command() {
    let session = Session::new();
    let commands = commands(&session);
    let page = session.succeed(&["man"]);
    assert!(page.contains(".TH dualenc 1") && page.contains(".SH DESCRIPTION"), "{page}");
    for command in &commands {
        assert!(page.contains(&format!("dualenc\\-{command}(1)")), "{command} is missing:\n{page}");
    }

    session.succeed(&["man", "--out", "pages/man1"]);
    for command in &commands {
        let page = std::fs::read_to_string(session.path(&format!("pages/man1/dualenc-{command}.1"))).unwrap();
        assert!(page.contains(".SH OPTIONS"), "{page}");
    }
    let files = std::fs::read_dir(session.path("pages/man1")).unwrap().count();
    assert_eq!(files, commands.len() + 1);
}
