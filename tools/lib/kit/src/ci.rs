//! The types of the files under `ci/`: what is built and tested, and for whom, as data.
//!
//! The heads of those files say what each field means to a person; unknown fields are refused.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{Cause, Error, Platform, Result, config, dirs};

/// The folder with all of them, read when asked for.
#[derive(Debug, Clone)]
pub struct Ci {
    folder: PathBuf,
}

/// The option that names the folder.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CiOptions {
    /// Folder with components.toml, images.toml, … [default: ci/ of the workspace]
    #[arg(long = "ci", value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl CiOptions {
    /// The folder named, or that of the workspace.
    ///
    /// # Errors
    /// [`Cause::Usage`] outside a workspace.
    pub fn open(&self) -> Result<Ci> {
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => dirs::workspace()?.join("ci"),
        };
        Ok(Ci { folder })
    }
}

/// `ci/components.toml`.
pub type Components = BTreeMap<String, Component>;

/// A component.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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
    /// What ko is given, relative to the sources.
    pub config: Vec<String>,
    /// Flags for Go's linker; `{commit7}` is replaced.
    #[serde(default)]
    pub ldflags: Vec<String>,
    /// Base images by name in `ci/images.toml`: `default` and import paths.
    #[serde(default)]
    pub bases: BTreeMap<String, String>,
    /// Components installed before.
    #[serde(default)]
    pub needs: Vec<String>,
    /// End-to-end tests.
    pub tests: Option<Tests>,
    /// Named selections of tests.
    #[serde(default)]
    pub suites: BTreeMap<String, Suite>,
    /// Programs that tests call, and which tests fail without them.
    #[serde(default)]
    pub programs: BTreeMap<String, String>,
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
    /// How tests are selected.
    #[serde(default)]
    pub select: Select,
    /// Folders of manifests applied before the tests.
    #[serde(default)]
    pub manifests: Vec<String>,
    /// `-test.parallel`.
    pub parallel: Option<u32>,
    /// Where the component lives.
    pub namespace: Option<String>,
}

fn one_pass() -> Vec<Vec<String>> {
    vec![Vec::new()]
}

/// How tests are selected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Select {
    /// By `-test.run`.
    #[default]
    Run,
    /// By `-test.skip`, because the program sets its own `-test.run`.
    Skip,
}

/// A selection of tests.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Taken when none is named.
    #[serde(default)]
    pub default: bool,
    /// Every test that the ledger does not name.
    #[serde(default)]
    pub all: bool,
    /// These tests.
    #[serde(default)]
    pub tests: Vec<String>,
    /// Of the whole suite, as in `12m`.
    pub time_limit: Option<String>,
}

impl Suite {
    /// The limit as a duration.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it is none.
    pub fn limit(&self) -> Result<Option<Duration>> {
        self.time_limit.as_deref().map(parse_duration).transpose()
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
        let found = match name {
            Some(name) => self.suites.get_key_value(name),
            None => self.suites.iter().find(|(_, suite)| suite.default),
        };
        found.map(|(name, suite)| (name.as_str(), suite)).ok_or_else(|| {
            let known: Vec<_> = self.suites.keys().map(String::as_str).collect();
            Error::new(Cause::Usage, format!("there is no suite '{}'", name.unwrap_or("(default)")))
                .next(format!("suites in ci/components.toml: {}", known.join(", ")))
        })
    }

    /// The version to show: the module's, or `devel` for a folder.
    #[must_use]
    pub fn version(&self) -> &str {
        self.version.as_deref().unwrap_or("devel")
    }
}

/// `ci/images.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageMap {
    /// Public names that are replaced.
    #[serde(default)]
    pub image: Vec<ReplacedImage>,
    /// How images are built.
    #[serde(default)]
    pub build: BTreeMap<String, Build>,
}

/// Names that one build stands in for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplacedImage {
    /// Full references.
    pub names: Vec<String>,
    /// The build, or
    pub build: Option<String>,
    /// why none is needed.
    pub unused: Option<String>,
}

/// A root file system from Debian's packages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Start from another build.
    pub extends: Option<String>,
    /// Packages, unpacked exactly as listed.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Target, and the paths that link to it.
    #[serde(default)]
    pub links: BTreeMap<String, Vec<String>>,
    /// Whether the bundle of certificates is put together.
    #[serde(default)]
    pub certificates: bool,
    /// Paths removed after unpacking.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Files with their content.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// `UID:GID`.
    pub user: Option<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// Environment beside PATH.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// As in an OCI image's configuration.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// As in an OCI image's configuration.
    #[serde(default)]
    pub cmd: Vec<String>,
}

/// `ci/skips.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skips {
    /// All entries.
    #[serde(default)]
    pub skip: Vec<Skip>,
}

/// Tests that are not run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// Of which component.
    pub component: String,
    /// Top-level names, or `Test/Sub`.
    pub tests: Vec<String>,
    /// Only there; everywhere if empty.
    #[serde(default)]
    pub platforms: Vec<Platform>,
    /// Only in these suites; in all if empty.
    #[serde(default)]
    pub suites: Vec<String>,
    /// What is missing.
    pub reason: String,
    /// More about it.
    pub link: Option<String>,
    /// Who removes the entry.
    pub owner: String,
    /// Last day on which it counts.
    pub until: jiff::civil::Date,
}

/// `ci/architectures.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architectures {
    /// All of them.
    #[serde(default)]
    pub architecture: Vec<Architecture>,
}

/// A platform, and who answers for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Which.
    pub platform: Platform,
    /// People or teams.
    #[serde(default)]
    pub owners: Vec<String>,
    /// Machines, in words.
    #[serde(default)]
    pub hardware: Vec<String>,
    /// Names of clusters.
    #[serde(default)]
    pub clusters: Vec<String>,
    /// Least number of workers.
    #[serde(default = "one_worker")]
    pub workers: u32,
}

const fn one_worker() -> u32 {
    1
}

/// `ci/policy.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The platform that others are compared with.
    pub reference: Platform,
    /// From weak to strong.
    #[serde(default)]
    pub level: Vec<Level>,
}

/// What a word in the matrix requires.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// The word.
    pub name: String,
    /// Kinds of evidence.
    pub evidence: Vec<String>,
    /// Suites that count as `e2e`; any if empty.
    #[serde(default)]
    pub suites: Vec<String>,
    /// Whether only native nodes count.
    #[serde(default)]
    pub native: bool,
    /// `published`, if what we built ourselves does not count.
    pub origin: Option<String>,
    /// Days after which evidence no longer counts.
    pub max_age: Option<u32>,
    /// Least number of owners.
    #[serde(default)]
    pub owners: u32,
}

impl Ci {
    /// The folder `folder`.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path of a component, which is relative to the folder's parent.
    #[must_use]
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.folder.parent().unwrap_or(&self.folder).join(path)
    }

    /// All components, each checked for what must be there.
    ///
    /// # Errors
    /// [`Cause::Usage`] with file, line and field.
    pub fn components(&self) -> Result<Components> {
        let path = self.folder.join("components.toml");
        let components: Components = config::read(&path)?;
        for (name, component) in &components {
            let wrong = |what: &str| Err(Error::new(Cause::Usage, format!("{}: [{name}]: {what}", path.display())));
            if crate::rundir::slug(name) != *name {
                return wrong("a component's name is made of letters, digits, '-', '_' and '.'");
            }
            match (&component.module, &component.version, &component.path) {
                (Some(_), Some(_), None) | (None, None, Some(_)) => {}
                _ => return wrong("needs either module and version, or path"),
            }
            if let Some(unknown) = component.needs.iter().find(|need| !components.contains_key(*need)) {
                return wrong(&format!("needs '{unknown}', which is no component"));
            }
            if component.suites.values().filter(|suite| suite.default).count() > 1 {
                return wrong("more than one suite is the default");
            }
        }
        Ok(components)
    }

    /// The component `name`.
    ///
    /// # Errors
    /// [`Cause::Usage`]; the message lists those that exist.
    pub fn component(&self, name: &str) -> Result<Component> {
        let mut components = self.components()?;
        components.remove(name).ok_or_else(|| {
            let known: Vec<_> = components.keys().map(String::as_str).collect();
            Error::new(Cause::Usage, format!("unknown component '{name}'")).next(format!(
                "components in {}: {}",
                self.folder.join("components.toml").display(),
                known.join(", ")
            ))
        })
    }

    /// The image map.
    ///
    /// # Errors
    /// [`Cause::Usage`] with file, line and field.
    pub fn images(&self) -> Result<ImageMap> {
        config::read(&self.folder.join("images.toml"))
    }

    /// The skip ledger.
    ///
    /// # Errors
    /// [`Cause::Usage`] with file, line and field.
    pub fn skips(&self) -> Result<Skips> {
        config::read(&self.folder.join("skips.toml"))
    }

    /// The architectures.
    ///
    /// # Errors
    /// [`Cause::Usage`] with file, line and field.
    pub fn architectures(&self) -> Result<Architectures> {
        config::read(&self.folder.join("architectures.toml"))
    }

    /// The policy.
    ///
    /// # Errors
    /// [`Cause::Usage`] with file, line and field.
    pub fn policy(&self) -> Result<Policy> {
        config::read(&self.folder.join("policy.toml"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_files_are_read() {
        let ci = Ci::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../ci"));
        let components = ci.components().unwrap();
        let (name, suite) = components["pipeline"].suite(None).unwrap();
        assert_eq!(name, "smoke");
        assert!(suite.tests.len() >= 40 && suite.limit().unwrap().unwrap() <= Duration::from_secs(720));
        let images = ci.images().unwrap();
        for image in &images.image {
            let build = image.build.as_ref();
            assert!(build.is_none_or(|build| images.build.contains_key(build)), "{build:?}");
            assert_ne!(build.is_some(), image.unused.is_some(), "{:?}", image.names);
        }
        for skip in ci.skips().unwrap().skip {
            assert!(components.contains_key(&skip.component) && !skip.reason.is_empty());
        }
        assert!(!ci.architectures().unwrap().architecture.is_empty());
        assert!(!ci.policy().unwrap().level.is_empty());
    }

    #[test]
    fn what_cannot_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("components.toml");
        let ci = Ci::new(folder.path());
        for (text, said) in [
            ("[a]\nconfig = []\n", "needs either module and version, or path"),
            ("[a]\nconfig = []\npath = 'x'\nneeds = ['b']\n", "'b', which is no component"),
            ("[a]\nconfig = []\npath = 'x'\ncolour = 1\n", "components.toml:4:1: unknown field `colour`"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = ci.components().unwrap_err();
            assert_eq!(error.cause, Cause::Usage);
            assert!(error.to_string().contains(said), "{error}");
        }
        std::fs::write(&file, "[a]\nconfig = []\npath = 'x'\n").unwrap();
        assert!(ci.component("b").unwrap_err().to_string().contains("next: components in"));
        assert!(ci.component("a").unwrap().suite(Some("x")).is_err());
    }

    #[test]
    fn lengths_of_time() {
        assert_eq!(parse_duration("12m").unwrap(), Duration::from_secs(720));
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5400));
        for text in ["", "12", "-3s", "0s", "soon"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
