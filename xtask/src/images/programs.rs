//! `ci/step-images/programs.toml`: what is compiled for each step image.

use std::{collections::BTreeMap, fmt, path::Path};

use kit::{Cause, Error, Result, config};
use serde::Deserialize;

use crate::tools;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Definitions {
    /// By name.
    pub(crate) image: BTreeMap<String, Image>,
    /// By name.
    #[serde(default)]
    pub(crate) program: BTreeMap<String, Program>,
}

/// A step image.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Image {
    /// The tool that it is for.
    pub(crate) tool: Option<String>,
    /// Whether Go is in it.
    #[serde(default)]
    pub(crate) go: bool,
    /// Names of Go programs.
    #[serde(default)]
    pub(crate) programs: Vec<String>,
    /// Commands that must end well in it.
    pub(crate) starts: Vec<String>,
    /// What a node fetches of it at most, on each platform.
    pub(crate) most: Megabytes,
}

/// A size as people write it, `8 MB`: millions of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Megabytes(u64);

impl Megabytes {
    pub(crate) const fn bytes(self) -> u64 {
        self.0 * 1_000_000
    }
}

impl TryFrom<String> for Megabytes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = text.strip_suffix(" MB").and_then(|number| number.parse::<u32>().ok());
        number
            .filter(|number| *number > 0)
            .map(|number| Self(number.into()))
            .ok_or_else(|| format!("'{text}' is no size as 8 MB"))
    }
}

impl fmt::Display for Megabytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MB", self.0)
    }
}

/// A Go program: of a module by its version, or of a module of this repository.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Program {
    pub(crate) module: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) folder: Option<String>,
    pub(crate) package: Option<String>,
    pub(crate) stamp: Option<String>,
}

impl Definitions {
    /// Reads and checks it.
    ///
    /// # Errors
    /// [`Cause::Usage`] naming what is wrong.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("programs.toml");
        let all: Self = config::read(&path)?;
        let wrong = |what: String| Err(Error::new(Cause::Usage, format!("{}: {what}", path.display())));
        for (name, image) in &all.image {
            if let Some(tool) = image.tool.as_ref().filter(|tool| !tools::TOOLS.contains(&tool.as_str())) {
                return wrong(format!("[image.{name}]: '{tool}' is no tool of this workspace"));
            }
            if let Some(program) = image.programs.iter().find(|program| !all.program.contains_key(*program)) {
                return wrong(format!("[image.{name}]: there is no [program.{program}]"));
            }
        }
        for (name, program) in &all.program {
            match program {
                Program { module: Some(_), version: Some(_), folder: None, package: None, stamp: None } => {}
                Program { module: None, version: None, folder: Some(_), package: Some(_), .. } => {}
                _ => return wrong(format!("[program.{name}]: needs either module and version, or folder and package")),
            }
        }
        Ok(all)
    }

    /// The images that are wanted, in the order of their names; all of them if none is named.
    pub(crate) fn choose<'a>(&'a self, wanted: &'a [String]) -> Result<Vec<&'a str>> {
        if let Some(unknown) = wanted.iter().find(|name| !self.image.contains_key(*name)) {
            let known: Vec<_> = self.image.keys().map(String::as_str).collect();
            return Err(Error::new(Cause::Usage, format!("there is no step image '{unknown}'"))
                .next(format!("images: {}", known.join(", "))));
        }
        let all = self.image.keys().map(String::as_str);
        Ok(all.filter(|name| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name)).collect())
    }
}

#[cfg(test)]
mod tests {
    use kit::ci::Ci;

    use super::*;

    fn folder() -> std::path::PathBuf {
        tools::root().join("ci/step-images")
    }

    #[test]
    fn every_tool_of_a_step_has_an_image_with_itself_as_the_entrypoint() {
        let all = Definitions::read(&folder()).unwrap();
        let map = Ci::new(folder()).images().unwrap();
        for tool in tools::TOOLS.iter().filter(|tool| **tool != "lab") {
            assert_eq!(all.image[*tool].tool.as_deref(), Some(*tool));
            assert_eq!(map.build[*tool].entrypoint, [format!("/usr/local/bin/{tool}")]);
            assert!(all.image[*tool].starts.contains(&format!("{tool} --version")), "{tool} is not started");
        }
        for (name, image) in &all.image {
            assert!(map.build.contains_key(name), "[build.{name}]");
            for program in &image.programs {
                assert!(image.starts.iter().any(|start| start.starts_with(program)), "{program} is not started");
            }
        }
    }

    #[test]
    fn ko_is_the_version_that_image_build_looks_for() {
        let all = Definitions::read(&folder()).unwrap();
        let source = std::fs::read_to_string(tools::root().join("tools/image-build/src/ko.rs")).unwrap();
        let version = all.program["ko"].version.as_ref().unwrap();
        assert!(source.contains(&format!("const VERSION: &str = \"{version}\"")), "{version}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (text, said) in [
            ("[image.x]\ntool = 'y'\nstarts = []\nmost = '8 MB'\n", "'y' is no tool"),
            ("[image.x]\nprograms = ['y']\nstarts = []\nmost = '8 MB'\n", "there is no [program.y]"),
            ("[image.x]\nstarts = []\n", "missing field `most`"),
            ("[image.x]\nstarts = []\nmost = '0 MB'\n", "'0 MB' is no size as 8 MB"),
            ("[image.x]\nstarts = []\nmost = '8 GB'\n", "'8 GB' is no size as 8 MB"),
            ("[image]\n[program.y]\nmodule = 'm'\n", "needs either module and version"),
            ("[image]\nx = 1\n", "programs.toml:2"),
        ] {
            std::fs::write(folder.path().join("programs.toml"), text).unwrap();
            let error = Definitions::read(folder.path()).unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{error}");
        }
        let all = Definitions::read(&self::folder()).unwrap();
        assert_eq!(all.choose(&["cleanup".into()]).unwrap(), ["cleanup"]);
        assert!(all.choose(&["x".into()]).unwrap_err().to_string().contains("no step image 'x'"));
    }
}
