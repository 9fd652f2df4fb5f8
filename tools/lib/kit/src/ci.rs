//! The types of the files under `ci/`: what is built and tested, and for whom, as data.
//!
//! The heads of those files say what each field means to a person; unknown fields are refused.

mod allow;
mod clusters;
mod components;
mod declared;
mod distributions;
mod images;
mod placeholders;
mod policy;
mod versions;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Cause, Error, Platform, Result, Within, config, dirs};

pub use allow::{Allow, Allowed};
pub use clusters::{Borrowed, Cluster, Jump, K8sManager, Kind, LabCluster, Limits, Provider, Ssh};
pub use components::{
    Component, Components, FIRST_ROUND, Overlay, Round, Script, ScriptOutput, Settings, Suite, Tests, Unit, Upgrade,
    parse_duration,
};
pub use declared::Declared;
pub use distributions::{Distribution, Distributions, Life};
pub use images::{Build, ImageMap, ReplacedImage};
pub use placeholders::fill;
pub use policy::{Alarms, Level, PassRate, Policy, Retention, States};
pub use versions::Versions;

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

    /// The option as another call takes it.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        self.folder.iter().flat_map(|folder| ["--ci".to_owned(), folder.display().to_string()]).collect()
    }
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
    /// Top-level names, or `Test/Sub`; `*` stands for any part of a level.
    pub tests: Vec<String>,
    /// Only of these versions of the component; of all without.
    pub versions: Option<Versions>,
    /// Only there; everywhere if empty.
    #[serde(default)]
    pub platforms: Vec<Platform>,
    /// Only in these suites; in all if empty.
    #[serde(default)]
    pub suites: Vec<String>,
    /// Not there: where what is missing can be had.
    pub unless: Option<Unless>,
    /// What is missing.
    pub reason: String,
    /// More about it.
    pub link: Option<String>,
    /// Who removes the entry.
    pub owner: String,
    /// Last day on which it counts.
    pub until: jiff::civil::Date,
}

impl Skip {
    /// Whether it is about this version of its component. A folder of this repository has none, and is newer than all.
    #[must_use]
    pub fn is_of(&self, version: &str) -> bool {
        self.versions.is_none_or(|versions| versions.hold(version).unwrap_or_else(|| versions.are_open()))
    }
}

/// Where an entry of the ledger does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unless {
    /// On the node of a lab that is this machine: it has what image-build made in its store.
    Lab,
}

/// `ci/architectures.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architectures {
    /// All of them.
    #[serde(default)]
    pub architecture: Vec<Architecture>,
    /// Clusters: how they are come by, what owners say of their nodes.
    #[serde(default)]
    pub cluster: Vec<Cluster>,
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
    /// How many machines there are; what is not said does not count.
    #[serde(default)]
    pub machines: u32,
    /// Who lends or pays for them.
    pub provider: Option<String>,
    /// Names of clusters.
    #[serde(default)]
    pub clusters: Vec<String>,
    /// Least number of workers.
    #[serde(default = "one_worker")]
    pub workers: u32,
    /// Processors that will do, as the probe calls their level; any if none is named.
    #[serde(default)]
    pub processors: Vec<String>,
    /// Sizes of pages that will do, in bytes; any if none is named.
    #[serde(default)]
    pub page_sizes: Vec<u64>,
    /// When a CronJob starts its night, as cron(5) writes it; never without one.
    pub schedule: Option<String>,
    /// The label of GitHub's machines of that architecture.
    pub runner: Option<String>,
}

const fn one_worker() -> u32 {
    1
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
            if let Some(problem) = component.problem() {
                return wrong(&problem);
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
        let path = self.folder.join("images.toml");
        let images: ImageMap = config::read(&path)?;
        for image in images.image.iter().filter(|image| image.preload) {
            let named_otherwise = image.names.iter().find(|name| !name.contains("@sha256:"));
            let same = images.image.iter().filter(|other| other.build == image.build).count();
            let why = match (named_otherwise, &image.build) {
                (Some(name), _) => format!("{name} has no digest: mirrors serve it, so it needs no 'preload'"),
                (None, None) => format!("{:?} needs a 'build' to be preloaded", image.names),
                // A node reports an image by the first of its names.
                (None, Some(build)) if same > 1 => format!("{build} is preloaded, so it must not have other names"),
                (None, Some(_)) => continue,
            };
            return Err(Error::new(Cause::Usage, format!("{}: {why}", path.display())));
        }
        Ok(images)
    }

    /// The skip ledger.
    ///
    /// # Errors
    /// [`Cause::Usage`] with file, line and field.
    pub fn skips(&self) -> Result<Skips> {
        config::read(&self.folder.join("skips.toml"))
    }

    /// What releases may lose; nothing where the file is missing.
    ///
    /// # Errors
    /// [`Cause::Usage`] with file, line and field.
    pub fn allowed(&self) -> Result<Allowed> {
        let path = self.folder.join("allow.toml");
        if !path.exists() {
            return Ok(Allowed::default());
        }
        let allowed: Allowed = config::read(&path)?;
        for allow in &allowed.allow {
            let within = || format!("{}: the entry for {}", path.display(), allow.image);
            if allow.reason.trim().is_empty() {
                return Err(Error::new(Cause::Usage, "it gives no reason").within(within()));
            }
            // A record may name what our table does not know, an entry of ours may not.
            allow.platforms.iter().try_for_each(|platform| platform.row().map(drop)).within(within)?;
        }
        Ok(allowed)
    }

    /// The architectures.
    ///
    /// # Errors
    /// [`Cause::Usage`] with file, line and field.
    pub fn architectures(&self) -> Result<Architectures> {
        let path = self.folder.join("architectures.toml");
        let architectures: Architectures = config::read(&path)?;
        clusters::check(&path, &architectures.cluster)?;
        Ok(architectures)
    }

    /// The distributions' lives; none are known where the file is missing.
    ///
    /// # Errors
    /// [`Cause::Usage`] with file, line and field.
    pub fn distributions(&self) -> Result<Distributions> {
        let path = self.folder.join("distributions.toml");
        if !path.exists() {
            return Ok(Distributions::default());
        }
        let distributions: Distributions = config::read(&path)?;
        distributions.check(&path)?;
        Ok(distributions)
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn our_own_files_are_read() {
        let ci = Ci::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../ci"));
        let components = ci.components().unwrap();
        let (name, suite) = components["pipeline"].suite(None).unwrap();
        assert_eq!(name, "smoke");
        assert!(suite.tests.len() >= 40 && suite.limit().unwrap().unwrap() <= Duration::from_secs(720));
        let (name, slow) = components["pipeline"].suite_on(None, true).unwrap();
        assert!(name == "emulated" && slow.tests.len() >= 20, "{}", slow.tests.len());
        assert_eq!(components["greeter"].suite_on(None, true).unwrap().0, "smoke");
        let cli = &components["cli"];
        assert!(cli.config.is_none() && cli.suites.values().all(|suite| suite.package.is_some()));
        let flags = components["pipeline"].settings_with(Some("alpha"), &Settings::new()).unwrap();
        assert_eq!(flags["feature-flags"]["enable-api-fields"], "alpha");
        let error = components["pipeline"].settings_with(Some("gamma"), &Settings::new()).unwrap_err();
        assert!(error.to_string().contains("alpha, beta, stable"), "{error}");
        let images = ci.images().unwrap();
        for image in &images.image {
            let build = image.build.as_ref();
            assert!(build.is_none_or(|build| images.build.contains_key(build)), "{build:?}");
            assert_ne!(build.is_some(), image.unused.is_some(), "{:?}", image.names);
        }
        for skip in ci.skips().unwrap().skip {
            assert!(components.contains_key(&skip.component) && !skip.reason.is_empty());
        }
        ci.allowed().unwrap();
        assert!(!ci.architectures().unwrap().architecture.is_empty());
        assert!(!ci.policy().unwrap().level.is_empty());
        assert!(ci.distributions().unwrap().find("debian", Some("12")).is_some());
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
            ("[a]\nconfig = []\npath = 'x'\n[a.unit]\npackages = []\n", "unit: there are no packages"),
            ("[a]\nconfig = []\npath = 'x'\n[a.upgrade]\nmanifests = []\n", "upgrade: there are no manifests"),
            ("[a]\nconfig = []\npath = 'x'\n[a.upgrade]\nmanifests = ['m']\nsuite = 's'\n", "there is no suite 's'"),
            (
                "[a]\nconfig = []\npath = 'x'\n[a.upgrade]\nmanifests = ['m']\nreach = { Run = 'phase=' }\n",
                "what Run is to reach is the type of a condition",
            ),
            (
                "[a]\nconfig = []\npath = 'x'\n[a.scripts.s]\ncommand = ['x']\noutput = 'junit'\n",
                "script s: 'report' names the file",
            ),
            ("[a]\nconfig = []\npath = 'x'\n[a.scripts.s]\ncommand = []\noutput = 'tap'\n", "there is nothing to run"),
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
    fn settings_of_a_round_lie_over_the_suite_s() {
        let text = |namespace: &str, name: &str| {
            format!(
                "[a]\nconfig = []\npath = 'x'\n[a.tests]\npackage = './t'\n{namespace}\n[a.suites.full]\nall = true\n\
                 settings = {{ flags = {{ one = '1', two = '2' }} }}\n[[a.suites.full.rounds]]\nname = '{name}'\n\
                 settings = {{ flags = {{ two = '3' }}, other = {{ x = 'y' }} }}\n"
            )
        };
        let folder = tempfile::tempdir().unwrap();
        let read = |text: String| {
            std::fs::write(folder.path().join("components.toml"), text).unwrap();
            Ci::new(folder.path()).component("a")
        };
        let component = read(text("namespace = 'n'", "alpha")).unwrap();
        let suite = &component.suites["full"];
        assert!(suite.changes_settings());
        assert_eq!(suite.settings_of(None)["flags"]["two"], "2");
        let set = suite.settings_of(suite.rounds.first());
        assert_eq!((set["flags"]["one"].as_str(), set["flags"]["two"].as_str(), set["other"].len()), ("1", "3", 1));
        for (namespace, name, said) in
            [("", "alpha", "settings need the namespace"), ("namespace = 'n'", "first", "other than 'first'")]
        {
            let error = read(text(namespace, name)).unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn only_what_no_mirror_can_serve_is_preloaded() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(folder.path().join("images.toml"), text).unwrap();
            Ci::new(folder.path()).images()
        };
        let named = |name: &str, more: &str| read(&format!("[[image]]\nnames = ['{name}']\npreload = true\n{more}\n"));
        assert!(named("x.y/a@sha256:0", "build = 'a'").unwrap().image[0].preload);
        for (name, more, said) in
            [("x.y/a:1", "build = 'a'", "has no digest"), ("x.y/a@sha256:0", "", "needs a 'build'")]
        {
            let error = named(name, more).unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn a_loss_is_allowed_for_a_reason_only() {
        let folder = tempfile::tempdir().unwrap();
        let ci = Ci::new(folder.path());
        assert!(ci.allowed().unwrap().allow.is_empty());
        let read = |reason: &str, more: &str| {
            let text =
                format!("[[allow]]\nimage = 'x'\nreason = '{reason}'\nowner = 'us'\nuntil = '2027-01-01'\n{more}");
            std::fs::write(folder.path().join("allow.toml"), text).unwrap();
            ci.allowed()
        };
        assert_eq!(read("known", "platforms = ['linux/arm']\n").unwrap().allow[0].platforms.len(), 1);
        for (reason, more, said) in [
            (" ", "", "gives no reason"),
            ("x", "colour = 1\n", "allow.toml:6:1: unknown field `colour`"),
            ("x", "platforms = ['linux/vax']\n", "unknown architecture 'vax'"),
        ] {
            let error = read(reason, more).unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn a_skip_is_of_some_versions() {
        let folder = tempfile::tempdir().unwrap();
        let read = |versions: &str| {
            let text = format!(
                "[[skip]]\ncomponent = 'x'\ntests = ['Test*']\nreason = 'r'\nowner = 'us'\nuntil = '2027-01-01'\n{versions}"
            );
            std::fs::write(folder.path().join("skips.toml"), text).unwrap();
            Ci::new(folder.path()).skips().map(|skips| skips.skip[0].clone())
        };
        assert!(read("").unwrap().is_of("v0.1.0"));
        let open = read("versions = '1.9'\n").unwrap();
        assert!(open.is_of("v1.9.2") && open.is_of("devel") && !open.is_of("v1.8.3"));
        let closed = read("versions = '1.9..1.10'\n").unwrap();
        assert!(closed.is_of("v1.10.1") && !closed.is_of("devel") && !closed.is_of("v1.11.0"));
        let error = read("versions = 'new'\n").unwrap_err();
        assert!(error.cause == Cause::Usage && error.to_string().contains("'new' names no versions"), "{error}");
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
