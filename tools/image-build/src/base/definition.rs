//! A `[build.NAME]` of ci/images.toml with everything that it inherits.

use std::collections::{BTreeMap, BTreeSet};

use kit::{
    Cause, Error, Result,
    ci::{Build, ImageMap},
};
use serde::Serialize;

use super::image::Settings;

/// What an image is made of. Its JSON is part of the cache's key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) packages: BTreeSet<String>,
    /// Path of the link, and what it points to.
    pub(crate) links: BTreeMap<String, String>,
    pub(crate) certificates: bool,
    pub(crate) drop: BTreeSet<String>,
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) user: Option<String>,
    pub(crate) workdir: Option<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
}

impl Definition {
    /// Reads `name` and what it extends: packages, links and drops add up; of the rest the nearest counts.
    pub(crate) fn resolve(map: &ImageMap, name: &str) -> Result<Self> {
        let mut definition = Self { name: name.into(), ..Self::default() };
        let mut next = Some(name);
        let mut chain = Vec::new();
        while let Some(name) = next {
            if chain.contains(&name) {
                return Err(Error::new(Cause::Usage, format!("images.toml: [build.{name}] extends itself")));
            }
            chain.push(name);
            let build = map.build.get(name).ok_or_else(|| unknown(map, name))?;
            definition.inherit(build);
            next = build.extends.as_deref();
        }
        Ok(definition)
    }

    /// What the image's config says.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            env: self.env.clone(),
            entrypoint: self.entrypoint.clone(),
            cmd: self.cmd.clone(),
            made_by: format!("image-build base build {}", self.name),
        }
    }

    fn inherit(&mut self, build: &Build) {
        self.packages.extend(build.packages.iter().cloned());
        self.drop.extend(build.drop.iter().cloned());
        for (target, links) in &build.links {
            for link in links {
                self.links.entry(link.clone()).or_insert_with(|| target.clone());
            }
        }
        self.certificates |= build.certificates;
        if self.files.is_empty() {
            self.files.clone_from(&build.files);
        }
        if self.env.is_empty() {
            self.env.clone_from(&build.env);
        }
        if self.entrypoint.is_empty() {
            self.entrypoint.clone_from(&build.entrypoint);
        }
        if self.cmd.is_empty() {
            self.cmd.clone_from(&build.cmd);
        }
        self.user = self.user.take().or_else(|| build.user.clone());
        self.workdir = self.workdir.take().or_else(|| build.workdir.clone());
    }
}

fn unknown(map: &ImageMap, name: &str) -> Error {
    let known: Vec<_> = map.build.keys().map(String::as_str).collect();
    Error::new(Cause::Usage, format!("there is no [build.{name}] in images.toml"))
        .next(format!("builds there: {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_extended_adds_up_or_gives_way() {
        let text = r#"
            [build.a]
            packages = ["x"]
            certificates = true
            user = "1:1"
            cmd = ["sh"]
            links = { "/bin/x" = ["/bin/sh", "/bin/y"] }
            [build.b]
            extends = "a"
            packages = ["z"]
            user = "2:2"
            links = { "/bin/z" = ["/bin/sh"] }
            [build.c]
            extends = "c"
        "#;
        let map: ImageMap = kit::config::parse(text, "images.toml").unwrap();
        let b = Definition::resolve(&map, "b").unwrap();
        assert_eq!(b.packages.iter().map(String::as_str).collect::<Vec<_>>(), ["x", "z"]);
        assert_eq!((b.links["/bin/sh"].as_str(), b.links["/bin/y"].as_str()), ("/bin/z", "/bin/x"));
        assert_eq!((b.user.as_deref(), b.cmd[0].as_str(), b.certificates), (Some("2:2"), "sh", true));
        for wrong in ["c", "d"] {
            assert_eq!(Definition::resolve(&map, wrong).unwrap_err().cause, Cause::Usage);
        }
    }
}
