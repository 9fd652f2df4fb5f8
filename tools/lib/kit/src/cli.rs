//! What every tool's command line has in common, and the one `main` of all.

use std::{ffi::OsString, io::Write, panic::AssertUnwindSafe, path::PathBuf, process::ExitCode};

use clap::{Args, Parser};

use crate::{
    Cause, Error, Exit, Outcome, Output, Result, Ui, rundir, signal,
    stage::{self, Ended},
};

/// The results that `--results-dir` writes, one file each.
pub const RESULTS: [&str; 4] = ["outcome", "cause", "digest", "reference"];

/// Options that every tool takes.
#[derive(Debug, Clone, Default, Args)]
pub struct Common {
    /// What standard output gets: text for people, or JSON
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "OTHER_ARCH_OUTPUT",
        help_heading = "General options"
    )]
    pub output: Output,
    /// Say nothing but warnings and errors on standard error
    #[arg(long, short, global = true, help_heading = "General options")]
    pub quiet: bool,
    /// Write Tekton results (outcome, cause, digest, reference) as files into this folder
    #[arg(long, global = true, value_name = "DIR", help_heading = "General options")]
    pub results_dir: Option<PathBuf>,
    /// This call is a stage of a run that something else wires: write how it ended into FILE, and exit with 0 when the
    /// work was done, whatever it found, or when the call is wrong: with another code only for what may go better again
    #[arg(long, global = true, value_name = "FILE", help_heading = "General options")]
    pub stage: Option<PathBuf>,
}

/// A tool's arguments, which contain the common ones.
pub trait Tool: Parser {
    /// The common ones.
    fn common(&self) -> &Common;
}

/// What a tool found when it could do its work.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// Why it is not good (or only flaky); nothing if it is good.
    pub cause: Option<Cause>,
    /// Another exit code than the cause's.
    pub exit: Option<Exit>,
    /// Digest of the record or the release that it wrote.
    pub digest: Option<String>,
    /// Reference by digest of what it published: a release, an image.
    pub reference: Option<String>,
}

impl Done {
    /// All is good.
    #[must_use]
    pub fn good() -> Self {
        Self::default()
    }

    /// It did its work and found something that is not good; what, it has said already.
    #[must_use]
    pub fn found(cause: Cause) -> Self {
        Self { cause: Some(cause), ..Self::default() }
    }

    /// With the digest of what it wrote.
    #[must_use]
    pub fn digest(mut self, digest: impl Into<String>) -> Self {
        self.digest = Some(digest.into());
        self
    }

    /// With the reference of what it published.
    #[must_use]
    pub fn reference(mut self, reference: Option<String>) -> Self {
        self.reference = reference;
        self
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit.unwrap_or_else(|| self.cause.map_or(Exit::GOOD, Cause::exit))
    }
}

/// Parses the arguments, runs the tool, writes Tekton results, says what went wrong, returns the exit code.
pub fn main<T: Tool>(run: impl FnOnce(T, &Ui) -> Result<Done>) -> ExitCode {
    signal::install();
    let started = jiff::Timestamp::now();
    let mut command = T::command().subcommand(
        clap::Command::new("completions")
            .about("Print the completions for a shell")
            .arg(clap::arg!(<SHELL>).value_parser(clap::value_parser!(clap_complete::Shell))),
    );
    let words = stage::words(std::env::args_os().skip(1).collect());
    let all = std::env::args_os().take(1).chain(words.iter().cloned());
    let matches = match command.clone().try_get_matches_from(all) {
        Ok(matches) => matches,
        Err(error) => return refused(&error, command.get_name(), &words, started),
    };
    if let Some(("completions", matches)) = matches.subcommand() {
        if let Some(shell) = matches.get_one::<clap_complete::Shell>("SHELL") {
            // Whoever reads them may stop early, as `| head` does.
            let _ = std::io::stdout().write_all(&completions(&mut command, *shell));
        }
        return ExitCode::SUCCESS;
    }
    let tool = T::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let common = tool.common().clone();
    let ui = Ui::new(common.output, common.quiet);
    // A bug of ours has an exit code and a cause as well; the panic itself has said where.
    let caught = std::panic::catch_unwind(AssertUnwindSafe(|| run(tool, &ui)));
    let result = caught.unwrap_or_else(|_| Err(Error::new(Cause::Internal, "a bug of this tool: see above")));
    let result = result.and_then(|done| write_results(&common, Ok(&done)).map(|()| done));
    let ended = match result {
        Ok(done) => Ended { cause: done.cause, exit: done.exit() },
        Err(error) => {
            report(&ui, &error);
            if let Err(second) = write_results(&common, Err(&error)) {
                report(&ui, &second);
            }
            Ended { cause: Some(error.cause), exit: error.exit() }
        }
    };
    let exit = match &common.stage {
        Some(file) => stage::end(file, command.get_name(), &words, started, ended, &ui),
        None => ended.exit,
    };
    ExitCode::from(exit.0)
}

/// A call that is none: said, and also to a wiring, which reads no usage.
fn refused(error: &clap::Error, tool: &str, words: &[OsString], started: jiff::Timestamp) -> ExitCode {
    // Help and the version come here as well. Whoever reads them may stop early.
    let _ = error.print();
    let texts: Vec<_> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let folder = |option| stage::value(&texts, option).map(PathBuf::from);
    let wrong = || error.exit_code() == i32::from(Exit::USAGE.0);
    let Some(file) = folder("--stage").filter(|_| wrong()) else {
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::USAGE.0));
    };
    let ui = Ui::new(Output::Text, false);
    let common = Common { results_dir: folder("--results-dir"), ..Common::default() };
    if let Err(second) = write_results(&common, Err(&Error::new(Cause::Usage, "the call is wrong"))) {
        report(&ui, &second);
    }
    let ended = Ended { cause: Some(Cause::Usage), exit: Exit::USAGE };
    ExitCode::from(stage::end(&file, tool, words, started, ended, &ui).0)
}

fn completions(command: &mut clap::Command, shell: clap_complete::Shell) -> Vec<u8> {
    // `cargo xtask` is two words, and completes as the program that cargo runs.
    let name = command.get_name().rsplit(' ').next().unwrap_or_default().to_owned();
    let mut text = Vec::new();
    command.set_bin_name(name.clone());
    clap_complete::generate(shell, command, name, &mut text);
    text
}

/// Says on standard error what went wrong.
pub fn report(ui: &Ui, error: &Error) {
    let head = ui.paint("31", &format!("error[{}]:", error.cause));
    let _ = writeln!(std::io::stderr(), "{head} {}", crate::ui::printable(&error.to_string()));
}

fn write_results(common: &Common, result: Result<&Done, &Error>) -> Result<()> {
    let Some(folder) = &common.results_dir else { return Ok(()) };
    let (cause, digest, reference) = match result {
        Ok(done) if done.cause.is_none() && done.exit() != Exit::GOOD => (Some(Cause::Interrupted), None, None),
        Ok(done) => (done.cause, done.digest.as_deref(), done.reference.as_deref()),
        Err(error) => (Some(error.cause), None, None),
    };
    let good = cause.is_none_or(|cause| cause.class() == crate::Class::Flaky);
    let outcome = if good { Outcome::Passed } else { Outcome::Failed };
    let outcome = serde_json::to_value(outcome).ok().and_then(|value| value.as_str().map(String::from));
    let outcome = outcome.unwrap_or_default();
    let values = [outcome.as_str(), cause.map_or("", Cause::name), digest.unwrap_or(""), reference.unwrap_or("")];
    for (name, value) in RESULTS.iter().zip(values) {
        rundir::write(&folder.join(name), value.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn there_are_completions_for_every_shell_also_for_a_name_of_two_words() {
        for shell in clap_complete::Shell::value_variants() {
            let sub = clap::Command::new("nightly").about("x");
            let mut command = clap::Command::new("cargo xtask").bin_name("cargo xtask").subcommand(sub);
            let text = String::from_utf8(completions(&mut command, *shell)).unwrap();
            assert!(text.contains("nightly"), "{shell}");
        }
    }

    #[test]
    fn a_wiring_hears_of_a_call_that_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (file, results) = (folder.path().join("stages/install.json"), folder.path().join("results"));
        let words: Vec<OsString> = vec![
            "--nope".into(),
            format!("--stage={}", file.display()).into(),
            "--results-dir".into(),
            (&results).into(),
        ];
        let error = clap::Command::new("x").try_get_matches_from(["x", "--nope"]).unwrap_err();
        let code = refused(&error, "x", &words, jiff::Timestamp::now());
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
        let (stage, _) = rundir::read_json::<serde_json::Value>(&file).unwrap();
        assert_eq!((&stage["cause"], &stage["exit"]), (&"usage".into(), &2.into()));
        assert_eq!(std::fs::read_to_string(results.join("outcome")).unwrap(), "failed");
        let code = refused(&error, "x", &words[..1], jiff::Timestamp::now());
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(2)));
    }
}
