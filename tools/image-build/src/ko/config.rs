//! ko's own configuration file, `.ko.yaml`: read, and written anew with our bases.

use std::{collections::BTreeMap, path::Path};

use kit::{Cause, Context, Result, rundir};
use serde_yaml_ng::{Mapping, Value};

/// The base that ko takes when nothing says another (`pkg/commands/options/build.go`).
pub(crate) const DEFAULT_BASE: &str = "cgr.dev/chainguard/static:latest";

/// A component's own `.ko.yaml`, empty if it has none.
pub(crate) struct Config(Mapping);

impl Config {
    /// Reads it from the sources' root.
    pub(crate) fn load(root: &Path) -> Result<Self> {
        let path = root.join(".ko.yaml");
        if !path.is_file() {
            return Ok(Self(Mapping::new()));
        }
        Self::read(&path)
    }

    /// Reads it by its name.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = rundir::read_limited(path, 1 << 20)?;
        let config =
            serde_yaml_ng::from_slice(&bytes).cause(Cause::Usage, || format!("cannot read {}", path.display()))?;
        Ok(Self(config))
    }

    /// Its bases: `default`, and import paths that have another one.
    pub(crate) fn bases(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().map(String::from);
        let overrides = self.0.get("baseImageOverrides").and_then(Value::as_mapping).cloned().unwrap_or_default();
        let mut bases: BTreeMap<_, _> =
            overrides.iter().filter_map(|(path, base)| Some((text(path)?, text(base)?))).collect();
        let default = self.0.get("defaultBaseImage").and_then(text).unwrap_or_else(|| DEFAULT_BASE.into());
        bases.insert("default".into(), default);
        bases
    }

    /// The configuration that ko gets: these bases, the linker's flags added, all else as the component has it.
    pub(crate) fn with(&self, bases: &BTreeMap<String, String>, ldflags: &[String]) -> Result<String> {
        let mut config = self.0.clone();
        let mut overrides = Mapping::new();
        for (path, base) in bases {
            match path.as_str() {
                "default" => drop(config.insert("defaultBaseImage".into(), base.as_str().into())),
                path => drop(overrides.insert(path.into(), base.as_str().into())),
            }
        }
        config.insert("baseImageOverrides".into(), overrides.into());
        if !ldflags.is_empty() {
            add_flags(&mut config, "defaultLdflags", ldflags, true);
            let builds = config.get_mut("builds").and_then(Value::as_sequence_mut);
            for build in builds.into_iter().flatten().filter_map(Value::as_mapping_mut) {
                add_flags(build, "ldflags", ldflags, false);
            }
        }
        serde_yaml_ng::to_string(&config).cause(Cause::Internal, || "cannot write ko's configuration")
    }
}

/// What a configuration says about how Go is called, and everything else in it but the bases.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// All of it without the bases, as text: what is equal there is equal for ko.
    pub(crate) text: String,
    pub(crate) default: Flags,
    pub(crate) builds: Vec<Entry>,
}

/// Variables and flags for `go build`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) env: Vec<String>,
    pub(crate) flags: Vec<String>,
    pub(crate) ldflags: Vec<String>,
}

/// An entry of `builds`: the folder of a command, and how it is built.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) dir: String,
    pub(crate) main: String,
    pub(crate) own: Flags,
}

impl Settings {
    /// Reads a configuration's text.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let unreadable = || "ko's configuration cannot be read";
        let mut config: Mapping = serde_yaml_ng::from_str(text).cause(Cause::Internal, unreadable)?;
        for base in ["defaultBaseImage", "baseImageOverrides"] {
            config.remove(base);
        }
        let default = Flags {
            env: words(&config, "defaultEnv"),
            flags: words(&config, "defaultFlags"),
            ldflags: words(&config, "defaultLdflags"),
        };
        let builds = config.get("builds").and_then(Value::as_sequence).cloned().unwrap_or_default();
        let entry = |build: &Mapping| {
            let text = |key| build.get(key).and_then(Value::as_str).unwrap_or(".").to_owned();
            let own =
                Flags { env: words(build, "env"), flags: words(build, "flags"), ldflags: words(build, "ldflags") };
            Entry { dir: text("dir"), main: text("main"), own }
        };
        let builds = builds.iter().filter_map(Value::as_mapping).map(entry).collect();
        let text = serde_yaml_ng::to_string(&config).cause(Cause::Internal, unreadable)?;
        Ok(Self { text, default, builds })
    }
}

/// A list of words, or the words of a text, as ko reads both.
fn words(map: &Mapping, key: &str) -> Vec<String> {
    match map.get(key) {
        Some(Value::Sequence(all)) => all.iter().filter_map(Value::as_str).map(String::from).collect(),
        Some(Value::String(text)) => text.split_whitespace().map(String::from).collect(),
        _ => Vec::new(),
    }
}

/// Adds to a list of flags; makes the list if asked to.
fn add_flags(map: &mut Mapping, key: &str, flags: &[String], make: bool) {
    if make && !map.contains_key(key) {
        map.insert(key.into(), Value::Sequence(Vec::new()));
    }
    if let Some(list) = map.get_mut(key).and_then(Value::as_sequence_mut) {
        list.extend(flags.iter().map(|flag| Value::from(flag.as_str())));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn settings_are_all_but_the_bases() {
        let text = "defaultBaseImage: a\nbaseImageOverrides: {e.com/x: b}\ndefaultEnv: [X=1]\ndefaultFlags: -tags a\n\
                    builds:\n- main: ./cmd/x\n  ldflags: [-s]\n  env: [Y=2]\n";
        let settings = Settings::read(text).unwrap();
        assert_eq!(settings.default.env, ["X=1"]);
        assert_eq!(settings.default.flags, ["-tags", "a"]);
        assert_eq!((settings.builds[0].dir.as_str(), settings.builds[0].main.as_str()), (".", "./cmd/x"));
        assert_eq!(settings.builds[0].own.env, ["Y=2"]);
        assert!(!settings.text.contains("Base") && settings.text.contains("-s"), "{}", settings.text);
        assert_eq!(Settings::read(&text.replace("Image: a", "Image: c")).unwrap(), settings);
        assert_ne!(Settings::read(&text.replace("-s", "-w")).unwrap(), settings);
    }

    #[test]
    fn a_component_s_configuration_keeps_all_but_its_bases() {
        let folder = tempfile::tempdir().unwrap();
        let text = "defaultBaseImage: old\nbaseImageOverrides:\n  e.com/A: older\nbuilds:\n- id: a\n  ldflags: [-s]\n- id: b\ndefaultEnv: [X=1]\n";
        fs::write(folder.path().join(".ko.yaml"), text).unwrap();
        let config = Config::load(folder.path()).unwrap();
        assert_eq!(config.bases()["default"], "old");
        assert_eq!(config.bases()["e.com/A"], "older");
        let bases =
            BTreeMap::from([("default".to_owned(), "new".to_owned()), ("e.com/b".to_owned(), "git".to_owned())]);
        let text = config.with(&bases, &["-X a=b".into()]).unwrap();
        let made: Value = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(made["defaultBaseImage"], "new");
        assert_eq!(made["baseImageOverrides"], serde_yaml_ng::from_str::<Value>("{e.com/b: git}").unwrap());
        assert_eq!(made["builds"][0]["ldflags"][1], "-X a=b");
        assert_eq!(made["builds"][1].get("ldflags"), None);
        assert_eq!((&made["defaultLdflags"][0], &made["defaultEnv"][0]), (&"-X a=b".into(), &"X=1".into()));
        assert_eq!(Config::load(Path::new("/nonexistent")).unwrap().bases()["default"], DEFAULT_BASE);
    }
}
