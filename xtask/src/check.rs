//! `cargo xtask check`: formatting, clippy, tidy, generated files and ci/tekton, all of them even if one fails.

use std::{path::Path, time::Duration};

use kit::{Cause, Context, Done, Error, Process, Result, Ui, ci::Ci};

use crate::{generate, tekton, tools};

/// Formatting, clippy, tidy and generated files
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Repair what can be repaired: formatting and generated files
    #[arg(long)]
    fix: bool,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    if args.fix {
        cargo("formatting", &["fmt", "--all"], ui)?;
        generate::run(ui)?;
    }
    let checks: [(&str, Check); 5] = [
        ("formatting", |ui| cargo("formatting", &["fmt", "--all", "--check"], ui)),
        ("generated files", |_| generated()),
        ("ci/tekton", |_| tekton::check(&Ci::new(tools::root().join("ci")))),
        ("tidy", |_| tidy(&tools::root())),
        ("clippy", |ui| {
            cargo("clippy", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"], ui)
        }),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(error) = check(ui) {
            ui.warn(format!("{name}: {error}"));
            failed.push(name);
        }
    }
    if failed.is_empty() {
        ui.note("all checks passed");
        return Ok(Done::good());
    }
    Err(Error::new(Cause::PolicyRefused, format!("not good: {}", failed.join(", ")))
        .next("`cargo xtask check --fix` repairs formatting and generated files"))
}

type Check = fn(&Ui) -> Result<()>;

fn cargo(name: &str, arguments: &[&str], ui: &Ui) -> Result<()> {
    let step = ui.step(format!("cargo {name}"));
    let command = tools::cargo(arguments)?;
    let mut said = Vec::new();
    let process = Process::new(format!("cargo {name}"), command).limit(Duration::from_secs(1800));
    let finished = process.on_line(|_, line| said.push(line.to_owned())).finish()?;
    if finished.good() {
        step.done("");
        return Ok(());
    }
    step.failed("");
    said.truncate(60);
    Err(Error::new(Cause::PolicyRefused, format!("cargo {} found something", arguments[0])).line(said.join("\n")))
}

fn generated() -> Result<()> {
    let stale = |(path, text): &(std::path::PathBuf, String)| std::fs::read_to_string(path).ok().as_ref() != Some(text);
    let stale: Vec<_> =
        generate::files()?.into_iter().filter(stale).map(|(path, _)| path.display().to_string()).collect();
    if stale.is_empty() {
        return Ok(());
    }
    Err(Error::new(Cause::PolicyRefused, format!("not what the code says: {}", stale.join(", ")))
        .next("cargo xtask generate"))
}

/// Rules that no other tool checks. Each names the file and line.
pub(crate) fn tidy(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for path in tracked()? {
        let full = root.join(&path);
        let Ok(text) = std::fs::read_to_string(&full) else { continue };
        if path.ends_with(".rs") {
            if !text.starts_with("//!") {
                wrong.push(format!("{path}:1: the first line says what belongs in the file (`//! …`)"));
            }
            if text.lines().count() > 600 {
                wrong.push(format!("{path}: more than 600 lines: more than one topic?"));
            }
        }
        for (number, line) in text.lines().enumerate() {
            if path.ends_with(".rs") && line.ends_with(' ') {
                wrong.push(format!("{path}:{}: space at the end of the line", number + 1));
            }
            // Put together, so that this line is not found.
            if line.contains(concat!("StrictHostKey", "Checking=no")) {
                wrong.push(format!("{path}:{}: host keys are pinned", number + 1));
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::new(Cause::PolicyRefused, format!("{} places", wrong.len())).line(wrong.join("\n")))
}

fn tracked() -> Result<Vec<String>> {
    let command = tools::git(&["ls-files", "--cached", "--others", "--exclude-standard"])?;
    let listed = Process::new("list of files", command).cause(Cause::MissingProgram).read();
    let listed = listed.cause(Cause::MissingProgram, || "tidy needs git")?;
    Ok(listed
        .lines()
        .map(String::from)
        .filter(|path| !path.contains("/streams/") && !path.contains("/golden/"))
        .collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tree_is_tidy() {
        if let Err(error) = super::tidy(&crate::tools::root()) {
            panic!("{error}");
        }
    }
}
