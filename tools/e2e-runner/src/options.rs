//! The command line of `run` and `prepare`, as typed and as a command that repeats it.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use kit::{
    Cause, Error, Platform, Result,
    ci::{CiOptions, parse_duration},
    process::quote,
    record::Results,
};

use crate::{environment, pace, shard::Shard};

/// Which tests of a component.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Its end-to-end tests, here, against a cluster
    #[default]
    E2e,
    /// Its examples, as its tests of them run them
    Examples,
    /// Unit tests, compiled here and run as pods on the nodes
    Unit,
    /// A test script of its own, here
    Script,
    /// What was made while an older release was installed, and its end-to-end tests, when a newer one is (see --phase)
    Upgrade,
}

/// Which half of the kind upgrade; between them somebody installs the newer release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    /// The older release is installed: objects are made and remembered
    Prepare,
    /// The newer release is installed: they are looked at again, then a suite runs
    Check,
}

impl Phase {
    /// As the command line names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Check => "check",
        }
    }
}

impl Kind {
    /// As records name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::E2e => "e2e",
            Self::Examples => "examples",
            Self::Unit => "unit",
            Self::Script => "script",
            Self::Upgrade => "upgrade",
        }
    }
}

/// Options of `prepare`.
#[derive(Debug, Parser)]
pub struct PrepareArgs {
    /// The component
    #[arg(long, value_name = "NAME")]
    pub component: String,
    /// Which tests of it
    #[arg(long, value_enum, default_value_t)]
    pub kind: Kind,
    /// Build tags [default: those of ci/components.toml]
    #[arg(long, value_name = "TAG,…", value_delimiter = ',')]
    pub tags: Vec<String>,
    /// The suite, where suites have packages of their own [default: the one marked so]
    #[arg(long, value_name = "NAME")]
    pub suite: Option<String>,
    /// How much slower the nodes are than this machine: lengths of time in the tests are stretched
    #[arg(long, value_name = "FACTOR", value_parser = slowdown)]
    pub slowdown: Option<f64>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub ci: CiOptions,
}

/// Options of `run`.
#[derive(Debug, Clone, Parser)]
#[command(after_help = "Examples:
  e2e-runner run --component pipeline --dry-run
  e2e-runner run --component pipeline --suite full --kubeconfig s390x.yaml --platform linux/s390x --shard 1/3
  e2e-runner run --component pipeline --only-failed target/runs/RUN
  e2e-runner run --component cli --suite pipelinerun   # its own tkn is built for the tests
  e2e-runner run --component pipeline --kind unit --tests TestSecrets --platform linux/s390x --repo REGISTRY/PATH
  e2e-runner run --component pipeline --kind upgrade --phase prepare --run-dir RUN   # then install the newer release
  e2e-runner run --component pipeline --kind upgrade --phase check --run-dir RUN     # with the same run directory

Exit codes: 0 good (also what is flaky); 1 a test says that the component is not good, or no rule knows why it failed;
3 infrastructure; 2 the call is wrong; 4 nothing ran, or all tests skipped themselves; 5 a program is missing;
128+n signal n.")]
pub struct RunArgs {
    /// The component
    #[arg(long, value_name = "NAME")]
    pub component: String,
    /// Which tests of it
    #[arg(long, value_enum, default_value_t)]
    pub kind: Kind,
    /// Of kind upgrade: which half of it
    #[arg(long, value_enum, required_if_eq("kind", "upgrade"))]
    pub phase: Option<Phase>,
    /// The suite in ci/components.toml [default: the one marked so, on emulated nodes maybe another; with --tests:
    /// all tests]
    #[arg(long, value_name = "NAME")]
    pub suite: Option<String>,
    /// Only these tests: names, or a pattern as `go test -run` takes it, also of subtests (TestA/sub)
    #[arg(long, value_name = "NAMES|REGEX")]
    pub tests: Vec<String>,
    /// Not these tests: a pattern as `go test -skip` takes it
    #[arg(long, value_name = "REGEX")]
    pub skip: Vec<String>,
    /// Build tags of the tests [default: those of ci/components.toml]
    #[arg(long, value_name = "TAG,…", value_delimiter = ',')]
    pub tags: Vec<String>,
    /// Only what failed or did not run in this run directory (or part of one, or results.json), in the same suite; all
    /// of the suite if that run failed as a whole
    #[arg(long, value_name = "RUN", conflicts_with = "tests")]
    pub only_failed: Option<PathBuf>,
    /// Of kind unit: only these packages, as in ./pkg/pod [default: those of ci/components.toml]
    #[arg(long, value_name = "PACKAGE")]
    pub package: Vec<String>,
    /// Of kind script: which of ci/components.toml [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub script: Option<String>,
    /// Part i of n of the tests: 'merge' makes one record of all parts
    #[arg(long, value_name = "I/N", default_value_t, hide_default_value = true)]
    pub shard: Shard,
    /// An earlier run: parts of this one are to take equally long by it (all parts must name the same one), and no test
    /// that passed there may take five times as long
    #[arg(long, value_name = "RUN")]
    pub durations: Option<PathBuf>,
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
    /// The digest of the release that the tests are about: refused where another one is installed
    #[arg(long, value_name = "DIGEST")]
    pub release: Option<String>,
    /// Where images were pushed, for tests that want to know ({repo} in ci/components.toml)
    #[arg(long, value_name = "REPOSITORY")]
    pub repo: Option<String>,
    /// More environment for the tests. Values of names like TOKEN, PASSWORD or KEY stand in no record
    #[arg(long, value_name = "KEY=VALUE", value_parser = environment::pair)]
    pub env: Vec<(String, String)>,
    /// End at the first failure
    #[arg(long)]
    pub fail_fast: bool,
    /// End when so many tests have failed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "fail_fast")]
    pub max_failures: Option<u32>,
    /// Afterwards run what ci/skips.toml leaves out as well, without counting it, to see what would pass by now
    #[arg(long)]
    pub shadow: bool,
    /// How much slower the nodes are than this machine: limits are stretched, also those in the tests' own sources
    /// [default: what install.json says]
    #[arg(long, value_name = "FACTOR", value_parser = slowdown)]
    pub slowdown: Option<f64>,
    /// Time limit of all tests together (of kind unit: of each package), exactly [default: that of
    /// ci/components.toml, stretched]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Time limit of each test, without the time of its subtests, exactly: it fails, and those that ran beside it run
    /// again [default: five times what it took in --durations, two minutes at least; without that the suite's
    /// test_time_limit or 20m, stretched; of kind unit ten minutes more]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub test_timeout: Option<Duration>,
    /// When nothing is printed for so long, exactly, the test hangs that has run longest (of kind unit and script: all
    /// end) [default: 10m, stretched]
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

/// What a run has found out that the command must say which repeats it: there is nothing in a run directory of its own.
#[derive(Debug, Clone, Default)]
pub struct Learnt {
    /// Digest of the release that is installed.
    pub release: Option<String>,
    /// How much slower the nodes are, if limits were stretched.
    pub slowdown: Option<f64>,
}

impl Learnt {
    /// As the record says.
    #[must_use]
    pub fn of(results: &Results) -> Self {
        let stretch = results.conditions.stretch.as_ref();
        Self { release: results.release.clone(), slowdown: stretch.map(|stretch| stretch.slowdown) }
    }
}

impl RunArgs {
    /// Refuses options that are for other kinds of tests: what is not done must not look as if it were.
    ///
    /// # Errors
    /// [`Cause::Usage`] naming the option, the kinds that it is for, and this one.
    pub fn check(&self) -> Result<()> {
        const UNIT: &[Kind] = &[Kind::Unit];
        const SCRIPT: &[Kind] = &[Kind::Script];
        const PARTS: &[Kind] = &[Kind::E2e, Kind::Examples];
        const SUITES: &[Kind] = &[Kind::E2e, Kind::Examples, Kind::Upgrade];
        const AGAIN: &[Kind] = &[Kind::E2e, Kind::Examples, Kind::Unit];
        const GO: &[Kind] = &[Kind::E2e, Kind::Examples, Kind::Unit, Kind::Upgrade];
        let whole = "a script runs as a whole: say what it is to run with --env";
        let given = [
            (!self.package.is_empty(), "--package", UNIT, "say which tests with --suite and --tests"),
            (self.script.is_some(), "--script", SCRIPT, "add --kind script"),
            (self.suite.is_some(), "--suite", SUITES, "say which with --package and --tests"),
            (self.shard.is_part(), "--shard", PARTS, "give each machine other packages with --package"),
            (self.shadow, "--shadow", SUITES, "name the tests with --tests, without their entries in ci/skips.toml"),
            (!self.tests.is_empty(), "--tests", GO, whole),
            (!self.skip.is_empty(), "--skip", GO, whole),
            (!self.tags.is_empty(), "--tags", GO, whole),
            (self.only_failed.is_some(), "--only-failed", AGAIN, whole),
            (self.fail_fast, "--fail-fast", GO, whole),
            (self.max_failures.is_some(), "--max-failures", GO, whole),
            (self.no_second_attempt, "--no-second-attempt", GO, "a script runs once"),
            (self.durations.is_some(), "--durations", GO, whole),
            (self.test_timeout.is_some(), "--test-timeout", GO, "say with --timeout how long the script may take"),
        ];
        let stranger = given.into_iter().find(|(given, _, kinds, _)| *given && !kinds.contains(&self.kind));
        let Some((_, option, kinds, next)) = stranger else { return Ok(()) };
        let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        let what = format!("{option} is for --kind {}, and this is --kind {}", names.join(" or "), self.kind.name());
        let next = match self.kind {
            Kind::Script if option != "--test-timeout" => whole,
            Kind::Upgrade => "an upgrade is tested as a whole: say which tests follow with --suite and --tests",
            _ => next,
        };
        Err(Error::new(Cause::Usage, what).next(next))
    }

    /// The command that runs one test again (all of them without one), in a run directory of its own. A test
    /// comes with the `suite` that it ran in if that sets something. Secrets in the environment it does not tell.
    #[must_use]
    pub fn again(&self, test: Option<&str>, suite: Option<&str>, learnt: &Learnt) -> String {
        let mut words = vec!["--component".to_owned(), self.component.clone()];
        if self.kind != Kind::E2e {
            words.extend(["--kind".to_owned(), self.kind.name().to_owned()]);
        }
        if let Some(phase) = self.phase {
            // What it is about lies in the run directory.
            words.extend(["--phase".to_owned(), phase.name().to_owned()]);
            words.extend(self.run_dir.iter().flat_map(|run| ["--run-dir".to_owned(), run.display().to_string()]));
        }
        words.extend(self.script.iter().flat_map(|script| ["--script".to_owned(), script.clone()]));
        words.extend(self.package.iter().flat_map(|package| ["--package".to_owned(), package.clone()]));
        if test.is_none() {
            let place = |place: &Option<PathBuf>| place.as_ref().map(|place| place.display().to_string());
            let part = self.shard.is_part().then(|| self.shard.to_string());
            for (option, value) in [
                ("--only-failed", place(&self.only_failed)),
                ("--shard", part),
                ("--durations", place(&self.durations)),
            ] {
                words.extend(value.into_iter().flat_map(|value| [option.to_owned(), value]));
            }
        }
        let suite = suite.or(self.suite.as_deref().filter(|_| test.is_none()));
        words.extend(suite.iter().flat_map(|suite| ["--suite".to_owned(), (*suite).to_owned()]));
        match test {
            Some(test) => words.extend(["--tests".to_owned(), test.to_owned()]),
            None => words.extend(self.tests.iter().flat_map(|tests| ["--tests".to_owned(), tests.clone()])),
        }
        words.extend(self.skip.iter().flat_map(|skip| ["--skip".to_owned(), skip.clone()]));
        words.extend((!self.tags.is_empty()).then(|| ["--tags".to_owned(), self.tags.join(",")]).into_iter().flatten());
        let limit = self.test_timeout.map(|limit| format!("{}s", limit.as_secs_f64()));
        words.extend(limit.into_iter().flat_map(|limit| ["--test-timeout".to_owned(), limit]));
        words.extend(self.cluster.arguments());
        words.extend(self.platform.iter().flat_map(|platform| ["--platform".to_owned(), platform.to_string()]));
        let slowdown = self.slowdown.or(learnt.slowdown).map(|slowdown| slowdown.to_string());
        let release = learnt.release.as_ref().or(self.release.as_ref());
        for (option, value) in
            [("--release", release), ("--repo", self.repo.as_ref()), ("--slowdown", slowdown.as_ref())]
        {
            words.extend(value.into_iter().flat_map(|value| [option.to_owned(), value.clone()]));
        }
        words.extend(self.ci.arguments());
        let env = self.env.iter().map(|(key, value)| format!("{key}={}", kit::secrets::shown(key, value)));
        words.extend(env.flat_map(|pair| ["--env".to_owned(), pair]));
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
        let nothing = Learnt::default();
        assert_eq!(
            args.again(Some("TestA"), None, &nothing),
            "cargo xtask e2e-runner run --component greeter --tests TestA --lab x --env 'A=b c'"
        );
        assert_eq!(
            args.again(None, None, &nothing),
            "cargo xtask e2e-runner run --component greeter --suite smoke --lab x --env 'A=b c'"
        );
        let secret =
            RunArgs::parse_from(["run", "--component", "x", "--env", "MY_TOKEN=s3cret", "--env", "URL=http://u:p@h/"]);
        assert_eq!(
            secret.again(None, None, &nothing),
            "cargo xtask e2e-runner run --component x --env 'MY_TOKEN=***' --env 'URL=http://***@h/'"
        );
        let command = args.again(Some("TestA"), Some("full"), &nothing);
        assert!(command.contains("--component greeter --suite full --tests TestA --lab"), "{command}");
        let part = ["run", "--component", "x", "--kind", "examples", "--shard", "2/3", "--durations", "a b"];
        let args = RunArgs::parse_from(part);
        assert_eq!(
            args.again(None, None, &nothing),
            "cargo xtask e2e-runner run --component x --kind examples --shard 2/3 --durations 'a b'"
        );
        assert_eq!(
            args.again(Some("TestA"), None, &nothing),
            "cargo xtask e2e-runner run --component x --kind examples --tests TestA"
        );
        let learnt = Learnt { release: Some("sha256:1".into()), slowdown: Some(11.5) };
        let args = RunArgs::parse_from(["run", "--component", "x", "--ci", "my ci"]);
        assert_eq!(
            args.again(Some("TestA"), None, &learnt),
            "cargo xtask e2e-runner run --component x --tests TestA --release sha256:1 --slowdown 11.5 --ci 'my ci'"
        );
        let said = ["run", "--component", "x", "--slowdown", "3", "--release", "sha256:0"];
        let command = RunArgs::parse_from(said).again(None, None, &learnt);
        assert!(command.ends_with("--component x --release sha256:1 --slowdown 3"), "{command}");
        let check = ["run", "--component", "x", "--kind", "upgrade", "--phase", "check", "--run-dir", "a b"];
        assert_eq!(
            RunArgs::parse_from(check).again(None, None, &nothing),
            "cargo xtask e2e-runner run --component x --kind upgrade --phase check --run-dir 'a b'"
        );
        for wrong in [
            &["--shard", "3/2"][..],
            &["--max-failures", "0"],
            &["--only-failed", "x", "--tests", "y"],
            &["--kind", "upgrade"],
        ] {
            let words = [&["run", "--component", "x"], wrong].concat();
            assert!(RunArgs::try_parse_from(words).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn options_of_another_kind_are_refused() {
        let check = |words: &[&str]| {
            let all = ["run", "--component", "x"].iter().chain(words);
            RunArgs::try_parse_from(all).unwrap().check().map_err(|error| error.to_string())
        };
        for (words, said) in [
            (&["--package", "./x"][..], "--package is for --kind unit, and this is --kind e2e"),
            (&["--script", "x"], "--script is for --kind script, and this is --kind e2e"),
            (&["--kind", "unit", "--shard", "1/2"], "--shard is for --kind e2e or examples, and this is --kind unit"),
            (
                &["--kind", "unit", "--suite", "x"],
                "--suite is for --kind e2e or examples or upgrade, and this is --kind unit",
            ),
            (
                &["--kind", "script", "--skip", "x"],
                "--skip is for --kind e2e or examples or unit or upgrade, and this is --kind script",
            ),
            (&["--kind", "script", "--tags", "x"], "a script runs as a whole"),
            (&["--kind", "script", "--durations", "x"], "--durations is for --kind e2e or examples or unit or upgrade"),
            (&["--kind", "script", "--test-timeout", "5m"], "say with --timeout how long the script may take"),
        ] {
            let error = check(words).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        for good in [&["--kind", "unit", "--package", "./x", "--tags", "a,b", "--skip", "x"][..], &["--shard", "1/2"]] {
            assert_eq!(check(good), Ok(()));
        }
        let words = ["run", "--component", "x", "--skip", "A/b c", "--tags", "e2e,more", "--test-timeout", "1m30s"];
        let again = RunArgs::parse_from(words).again(Some("TestA"), None, &Learnt::default());
        assert!(again.ends_with("--tests TestA --skip 'A/b c' --tags e2e,more --test-timeout 90s"), "{again}");
    }
}
