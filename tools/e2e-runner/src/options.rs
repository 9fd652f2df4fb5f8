//! The command line of `run` and `prepare`, as typed and as a command that repeats it.

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use kit::{
    Platform,
    ci::{CiOptions, parse_duration},
    process::quote,
};

use crate::{environment, pace};

/// Options of `prepare`.
#[derive(Debug, Parser)]
pub struct PrepareArgs {
    /// The component
    #[arg(long, value_name = "NAME")]
    pub component: String,
    /// How much slower the nodes are than this machine: lengths of time in the tests are stretched
    #[arg(long, value_name = "FACTOR", value_parser = slowdown)]
    pub slowdown: Option<f64>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub ci: CiOptions,
}

/// Options of `run`.
#[derive(Debug, Parser)]
pub struct RunArgs {
    /// The component
    #[arg(long, value_name = "NAME")]
    pub component: String,
    /// The suite in ci/components.toml [default: the one marked so, on emulated nodes maybe another; with --tests:
    /// all tests]
    #[arg(long, value_name = "NAME")]
    pub suite: Option<String>,
    /// Only these tests: names, or a pattern as `go test -run` takes it
    #[arg(long, value_name = "NAMES|REGEX")]
    pub tests: Vec<String>,
    /// The run directory [default: a new one under target/runs]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// The platform whose nodes are tested, where a cluster has several
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<Platform>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub cluster: cluster::Options,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub ci: CiOptions,
    /// Where images were pushed, for tests that want to know ({repo} in ci/components.toml)
    #[arg(long, value_name = "REPOSITORY")]
    pub repo: Option<String>,
    /// More environment for the tests
    #[arg(long, value_name = "KEY=VALUE", value_parser = environment::pair)]
    pub env: Vec<(String, String)>,
    /// End at the first failure
    #[arg(long)]
    pub fail_fast: bool,
    /// How much slower the nodes are than this machine: limits are stretched, also those in the tests' own sources
    /// [default: what install.json says]
    #[arg(long, value_name = "FACTOR", value_parser = slowdown)]
    pub slowdown: Option<f64>,
    /// Time limit of all tests together, exactly [default: the suite's, stretched]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// End tests that print nothing for so long, exactly [default: 10m, stretched]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub silence: Option<Duration>,
    /// Do not run what failed a second time
    #[arg(long)]
    pub no_second_attempt: bool,
    /// Say what would run, and where; no cluster is opened
    #[arg(long)]
    pub dry_run: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

fn slowdown(text: &str) -> Result<f64, String> {
    pace::parse(text).map_err(|error| error.to_string())
}

impl RunArgs {
    /// The command that runs one test again (all of them without one), in a run directory of its own. A test
    /// comes with the `suite` that it ran in if that sets something.
    #[must_use]
    pub fn again(&self, test: Option<&str>, suite: Option<&str>) -> String {
        let mut words = vec!["--component".to_owned(), self.component.clone()];
        let suite = suite.or(self.suite.as_deref().filter(|_| test.is_none()));
        words.extend(suite.iter().flat_map(|suite| ["--suite".to_owned(), (*suite).to_owned()]));
        match test {
            Some(test) => words.extend(["--tests".to_owned(), test.to_owned()]),
            None => words.extend(self.tests.iter().flat_map(|tests| ["--tests".to_owned(), tests.clone()])),
        }
        words.extend(self.cluster.arguments());
        words.extend(self.platform.iter().flat_map(|platform| ["--platform".to_owned(), platform.to_string()]));
        words.extend(self.repo.iter().flat_map(|repo| ["--repo".to_owned(), repo.clone()]));
        words.extend(self.slowdown.iter().flat_map(|slowdown| ["--slowdown".to_owned(), slowdown.to_string()]));
        words.extend(self.env.iter().flat_map(|(key, value)| ["--env".to_owned(), format!("{key}={value}")]));
        let words: Vec<_> = words.iter().map(|word| quote(word)).collect();
        format!("cargo xtask e2e-runner run {}", words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_repeats_it() {
        let args =
            RunArgs::parse_from(["run", "--component", "greeter", "--suite", "smoke", "--env", "A=b c", "--lab", "x"]);
        assert_eq!(
            args.again(Some("TestA"), None),
            "cargo xtask e2e-runner run --component greeter --tests TestA --lab x --env 'A=b c'"
        );
        assert_eq!(
            args.again(None, None),
            "cargo xtask e2e-runner run --component greeter --suite smoke --lab x --env 'A=b c'"
        );
        assert!(
            args.again(Some("TestA"), Some("full")).contains("--component greeter --suite full --tests TestA --lab")
        );
    }
}
