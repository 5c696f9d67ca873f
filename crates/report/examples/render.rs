//! Renders a page from JSON: `render FIXTURE OUT`. The name of the fixture says which page it is.

use std::{env, fs, process};

use dualenc_report::{PageOptions, render_comparison, render_report, render_results};

fn render(fixture: &str, out: &str) -> Result<(), Box<dyn std::error::Error>> {
    let text = fs::read_to_string(fixture)?;
    let options = PageOptions::default();
    let page = if fixture.contains("compar") {
        render_comparison(&serde_json::from_str(&text)?, &options)
    } else if fixture.contains("results") {
        render_results(&serde_json::from_str(&text)?, &options)
    } else {
        render_report(&serde_json::from_str(&text)?, &options)
    };
    fs::write(out, page)?;
    Ok(())
}

fn main() -> process::ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [fixture, out] = arguments.as_slice() else { return process::ExitCode::from(2) };
    match render(fixture, out) {
        Ok(()) => process::ExitCode::SUCCESS,
        Err(_) => process::ExitCode::FAILURE,
    }
}
