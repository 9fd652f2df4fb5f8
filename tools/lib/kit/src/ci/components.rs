//! `ci/components.toml`: what is built, installed and tested.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::placeholders;
use crate::{Cause, Error, Platform, Result};

/// `ci/components.toml`.
pub type Components = BTreeMap<String, Component>;

/// A component.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// Go module path, with `version`.
    pub module: Option<String>,
    /// Version of the module.
    pub version: Option<String>,
    /// The commit that the version is.
    pub commit: Option<String>,
    /// A folder of this repository, instead of a module.
    pub path: Option<String>,
    /// What ko is given, relative to the sources; without it there is nothing to install.
    pub config: Option<Vec<String>>,
    /// Flags for Go's linker; `{commit7}` and `{version}` are replaced.
    #[serde(default)]
    pub ldflags: Vec<String>,
    /// Base images by name in `ci/images.toml`: `default` and import paths.
    #[serde(default)]
    pub bases: BTreeMap<String, String>,
    /// Import paths that are built for these platforms only, of those asked for.
    #[serde(default)]
    pub platforms: BTreeMap<String, Vec<Platform>>,
    /// Components installed before.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Versions of Kubernetes that it runs on: `1.28`, or `1.28..1.40`.
    pub kubernetes: Option<String>,
    /// Values that are set in its ConfigMaps whenever it is installed.
    #[serde(default)]
    pub settings: Settings,
    /// Named sets of such values, as in `stable`, `beta`, `alpha`.
    #[serde(default)]
    pub flags: BTreeMap<String, Settings>,
    /// End-to-end tests.
    pub tests: Option<Tests>,
    /// Tests of its examples.
    pub examples: Option<Tests>,
    /// Unit tests.
    pub unit: Option<Unit>,
    /// What a newer release has to keep.
    pub upgrade: Option<Upgrade>,
    /// Test scripts of its own, by name.
    #[serde(default)]
    pub scripts: BTreeMap<String, Script>,
    /// Named selections of tests.
    #[serde(default)]
    pub suites: BTreeMap<String, Suite>,
    /// Programs that tests call, and which tests fail without them.
    #[serde(default)]
    pub programs: BTreeMap<String, String>,
    /// Programs of its own that tests call, built for this machine: packages relative to the sources, by name.
    #[serde(default)]
    pub builds: BTreeMap<String, String>,
}

/// How a component's tests are run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tests {
    /// Go package, relative to the sources.
    pub package: String,
    /// Build tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Arguments of the test program, with placeholders.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment, with placeholders.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The program is run once for each of these argument lists.
    #[serde(default = "one_pass")]
    pub passes: Vec<Vec<String>>,
    /// Folders of manifests applied before the tests.
    #[serde(default)]
    pub manifests: Vec<String>,
    /// `-test.parallel`.
    pub parallel: Option<u32>,
    /// Where the component lives.
    pub namespace: Option<String>,
    /// Whether the program knows where its sources lie.
    #[serde(default)]
    pub source_paths: bool,
    /// What is changed in the tests' sources for slow nodes.
    #[serde(default)]
    pub overlay: Vec<Overlay>,
}

/// Unit tests: compiled here, run as pods on the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Go packages, as `go test` takes them.
    pub packages: Vec<String>,
    /// Build tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Arguments of the test programs, with placeholders.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment, with placeholders.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The image that the programs run in, as nodes reach it, with placeholders; without it they get nothing but
    /// their sources.
    pub base: Option<String>,
    /// Of each package, as in `10m`; longer on slow nodes.
    pub time_limit: Option<String>,
}

/// What is made while an older release is installed, and has to be there and to work when a newer one is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// Files, and folders of files, relative to the sources; with `//` before them, to this repository.
    pub manifests: Vec<String>,
    /// What objects come to by themselves, by kind: the type of a condition that becomes True, or `phase=VALUE`.
    #[serde(default)]
    pub reach: BTreeMap<String, String>,
    /// The suite that runs after the look at them, instead of the default one.
    pub suite: Option<String>,
    /// How long objects may take to get there, as in `5m`; longer on slow nodes.
    pub time_limit: Option<String>,
}

/// A test script.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Program and arguments, with placeholders; it runs in the folder of the sources.
    pub command: Vec<String>,
    /// What it prints or leaves.
    pub output: ScriptOutput,
    /// The file with its results, relative to the sources, where it does not print them.
    pub report: Option<String>,
    /// Environment, with placeholders.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// As in `12m`; longer on slow nodes.
    pub time_limit: Option<String>,
}

/// In which form a script says what became of its tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScriptOutput {
    /// What `go test -json` prints.
    GoJson,
    /// What `go test -v` prints.
    Go,
    /// The Test Anything Protocol.
    Tap,
    /// JUnit's XML, in a file.
    Junit,
}

/// A length of time in the tests' sources that slow nodes need more of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// Relative to the sources.
    pub file: String,
    /// The exact text.
    pub find: String,
    /// What takes its place; `{15m}` becomes that length, stretched, in seconds.
    pub replace: String,
    /// How often the text is there.
    #[serde(default = "once")]
    pub times: usize,
}

const fn once() -> usize {
    1
}

fn one_pass() -> Vec<Vec<String>> {
    vec![Vec::new()]
}

/// The name of the round in which all tests of a suite run.
pub const FIRST_ROUND: &str = "first";

/// A selection of tests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Taken when none is named.
    #[serde(default)]
    pub default: bool,
    /// Taken when none is named and the nodes are emulated.
    #[serde(default)]
    pub default_emulated: bool,
    /// The Go package of its tests, instead of the tests' own.
    pub package: Option<String>,
    /// Every test that the ledger does not name.
    #[serde(default)]
    pub all: bool,
    /// These tests.
    #[serde(default)]
    pub tests: Vec<String>,
    /// Of the whole suite, as in `12m`; longer on slow nodes.
    pub time_limit: Option<String>,
    /// Of each of its tests, without the time of subtests; longer on slow nodes.
    pub test_time_limit: Option<String>,
    /// `-test.parallel`, instead of the tests' own.
    pub parallel: Option<u32>,
    /// What is set while it runs.
    #[serde(default)]
    pub settings: Settings,
    /// Further rounds, for the tests that skipped themselves until then.
    #[serde(default)]
    pub rounds: Vec<Round>,
}

/// Values in ConfigMaps of the component's namespace: by ConfigMap, then by key.
pub type Settings = BTreeMap<String, BTreeMap<String, String>>;

/// Tests that skipped themselves, once more with other settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// For records and messages.
    pub name: String,
    /// What is set for it, beside the suite's.
    pub settings: Settings,
}

impl Tests {
    /// They as a suite has them: maybe in another package.
    #[must_use]
    pub fn of_suite(&self, suite: &Suite) -> Self {
        let package = suite.package.as_ref().unwrap_or(&self.package).clone();
        Self { package, ..self.clone() }
    }
}

impl Suite {
    /// What is set in one of its rounds: the suite's values, and over them the round's.
    #[must_use]
    pub fn settings_of(&self, round: Option<&Round>) -> Settings {
        let mut all = self.settings.clone();
        for (map, values) in round.into_iter().flat_map(|round| &round.settings) {
            all.entry(map.clone()).or_default().extend(values.clone());
        }
        all
    }

    /// Whether it changes the component's ConfigMaps.
    #[must_use]
    pub fn changes_settings(&self) -> bool {
        !self.settings.is_empty() || !self.rounds.is_empty()
    }

    /// The limit as a duration.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it is none.
    pub fn limit(&self) -> Result<Option<Duration>> {
        self.time_limit.as_deref().map(parse_duration).transpose()
    }

    /// The limit of each test as a duration.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it is none.
    pub fn test_limit(&self) -> Result<Option<Duration>> {
        self.test_time_limit.as_deref().map(parse_duration).transpose()
    }
}

/// A length of time: `90s`, `12m`, `2h`, or several of these together.
///
/// # Errors
/// [`Cause::Usage`] if it is none.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|length| Duration::try_from(length).ok());
    parsed.filter(|length| !length.is_zero()).ok_or_else(|| {
        Error::new(Cause::Usage, format!("'{text}' is no length of time")).next("write for instance 90s, 12m or 1h30m")
    })
}

impl Component {
    /// The suite `name`, or the default one.
    ///
    /// # Errors
    /// [`Cause::Usage`] if there is none; the message lists those that exist.
    pub fn suite(&self, name: Option<&str>) -> Result<(&str, &Suite)> {
        self.suite_on(name, false)
    }

    /// The suite `name`, or the default one for nodes that are emulated or not.
    ///
    /// # Errors
    /// As [`Component::suite`].
    pub fn suite_on(&self, name: Option<&str>, emulated: bool) -> Result<(&str, &Suite)> {
        let default = |is: fn(&Suite) -> bool| self.suites.iter().find(|(_, suite)| is(suite));
        let found = match name {
            Some(name) => self.suites.get_key_value(name),
            None => {
                let slow = default(|suite| suite.default_emulated).filter(|_| emulated);
                slow.or_else(|| default(|suite| suite.default))
            }
        };
        found.map(|(name, suite)| (name.as_str(), suite)).ok_or_else(|| {
            let known: Vec<_> = self.suites.keys().map(String::as_str).collect();
            Error::new(Cause::Usage, format!("there is no suite '{}'", name.unwrap_or("(default)")))
                .next(format!("suites in ci/components.toml: {}", known.join(", ")))
        })
    }

    /// The component as it looks to who runs its examples: their tests, all of them.
    #[must_use]
    pub fn of_examples(mut self) -> Self {
        self.tests = self.examples.take();
        let all = Suite { default: true, all: true, ..Suite::default() };
        self.suites = BTreeMap::from([("examples".to_owned(), all)]);
        self
    }

    /// What ko is given.
    ///
    /// # Errors
    /// [`Cause::Usage`] if there is nothing to install.
    pub fn to_install(&self, name: &str) -> Result<&[String]> {
        self.config.as_deref().ok_or_else(|| {
            Error::new(Cause::Usage, format!("there is nothing of {name} to install: it has no config"))
                .next(format!("install what it needs: {}", self.needs.join(", ")))
        })
    }

    /// Flags for Go's linker, of a build of that version.
    #[must_use]
    pub fn ldflags(&self, version: &str) -> Vec<String> {
        let commit = self.commit.as_deref().unwrap_or_default();
        let short = commit.get(..7).unwrap_or(commit);
        self.ldflags.iter().map(|flag| flag.replace("{commit7}", short).replace("{version}", version)).collect()
    }

    /// What is wrong with its suites, scripts or other tests, if anything is.
    pub(super) fn problem(&self) -> Option<String> {
        if let Some(problem) = self.problem_of_builds().or_else(|| placeholders::problem(self)) {
            return Some(problem);
        }
        for (name, script) in &self.scripts {
            if script.command.is_empty() {
                return Some(format!("script {name}: there is nothing to run"));
            }
            if (script.output == ScriptOutput::Junit) != script.report.is_some() {
                return Some(format!("script {name}: 'report' names the file of output = \"junit\", and of no other"));
            }
        }
        if self.unit.as_ref().is_some_and(|unit| unit.packages.is_empty()) {
            return Some("unit: there are no packages".into());
        }
        if let Some(upgrade) = &self.upgrade {
            if upgrade.manifests.is_empty() {
                return Some("upgrade: there are no manifests".into());
            }
            if let Some(suite) = upgrade.suite.as_ref().filter(|suite| !self.suites.contains_key(*suite)) {
                return Some(format!("upgrade: there is no suite '{suite}'"));
            }
            let empty = |what: &String| what.is_empty() || what == "phase=";
            if let Some((kind, _)) = upgrade.reach.iter().find(|(_, what)| empty(what)) {
                return Some(format!("upgrade: what {kind} is to reach is the type of a condition, or phase=VALUE"));
            }
        }
        for (is_default, when) in [
            ((|suite| suite.default) as fn(&Suite) -> bool, ""),
            (|suite| suite.default_emulated, " for emulated nodes"),
        ] {
            if self.suites.values().filter(|suite| is_default(suite)).count() > 1 {
                return Some(format!("more than one suite is the default{when}"));
            }
        }
        if let Some((name, _)) = self.suites.iter().find(|(_, suite)| suite.package.is_some() && self.tests.is_none()) {
            return Some(format!("suite {name}: its package is one of the component's tests, and there are none"));
        }
        let namespace = self.tests.as_ref().and_then(|tests| tests.namespace.as_ref());
        self.suites.iter().find_map(|(name, suite)| {
            let mut names: Vec<_> = suite.rounds.iter().map(|round| round.name.as_str()).collect();
            names.sort_unstable();
            if names.windows(2).any(|pair| pair[0] == pair[1]) || names.contains(&FIRST_ROUND) {
                return Some(format!("suite {name}: each round needs a name of its own, other than '{FIRST_ROUND}'"));
            }
            let homeless = suite.changes_settings() && namespace.is_none();
            homeless.then(|| format!("suite {name}: settings need the namespace of the component's tests"))
        })
    }

    /// What is wrong with its programs, or with what is only of components that are installed.
    fn problem_of_builds(&self) -> Option<String> {
        if self.config.is_none() {
            let of_images = !(self.bases.is_empty() && self.platforms.is_empty());
            if of_images || !self.settings.is_empty() || !self.flags.is_empty() {
                return Some(
                    "bases, platforms, settings and flags are of what config installs, and it has none".into(),
                );
            }
            if self.builds.is_empty() {
                return Some("needs config, what is installed of it, or builds, what is tested of it".into());
            }
        }
        self.builds.iter().find_map(|(name, package)| {
            if crate::rundir::slug(name) != *name || placeholders::KNOWN.contains(&name.as_str()) {
                let known = placeholders::KNOWN.join(", ");
                return Some(format!(
                    "builds: '{name}' is no name: letters, digits, '-', '_' and '.', and not {known}"
                ));
            }
            let inside = package.starts_with("./") && !package.contains("..");
            (!inside).then(|| format!("builds: {name}: '{package}' is no package of its own, as in ./cmd/{name}"))
        })
    }

    /// What an installation sets: the component's own values, over them those of the set `flags`, over them `more`.
    ///
    /// # Errors
    /// [`Cause::Usage`] if there is no such set; the message lists those that exist.
    pub fn settings_with(&self, flags: Option<&str>, more: &Settings) -> Result<Settings> {
        let set = match flags {
            Some(name) => Some(self.flags.get(name).ok_or_else(|| {
                let known: Vec<_> = self.flags.keys().map(String::as_str).collect();
                Error::new(Cause::Usage, format!("there is no set of flags '{name}'"))
                    .next(format!("sets in ci/components.toml: {}", known.join(", ")))
            })?),
            None => None,
        };
        let mut all = self.settings.clone();
        for (map, values) in set.into_iter().chain([more]).flatten() {
            all.entry(map.clone()).or_default().extend(values.clone());
        }
        Ok(all)
    }

    /// The version to show: the module's, or `devel` for a folder.
    #[must_use]
    pub fn version(&self) -> &str {
        self.version.as_deref().unwrap_or("devel")
    }
}
