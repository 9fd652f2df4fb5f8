//! A component's own programs that its tests call, built from its sources for this machine, with the same flags as the
//! tests: what both compile is compiled once.

use std::{collections::BTreeMap, path::PathBuf};

use kit::{
    Cause, Error, Result, Ui,
    ci::{Ci, Component},
    digest, dirs,
    source::{self, Checkout},
};

use crate::{
    cache,
    program::{self, folder_beside, keep, run_compiler, take_turn},
};

/// The programs of a component, and how they are built.
#[derive(Debug, Default)]
pub(crate) struct Builds {
    component: String,
    checkout: Option<Checkout>,
    all: Vec<Build>,
}

#[derive(Debug)]
struct Build {
    name: String,
    package: String,
    /// Go's arguments, but for where the program goes.
    arguments: Vec<String>,
    path: PathBuf,
}

impl Builds {
    /// Finds out what is to be built; nothing is built yet.
    ///
    /// # Errors
    /// [`Cause::MissingProgram`] without Go, [`Cause::BuildFailure`] for a package that is no program.
    pub(crate) fn of(ci: &Ci, name: &str, component: &Component, ui: &Ui) -> Result<Self> {
        if component.builds.is_empty() {
            return Ok(Self::default());
        }
        source::go("building what the tests call")?;
        let checkout = source::checkout(ci, component, ui)?;
        let go = program::ask(&checkout, &["env", "GOVERSION"])?;
        let cache = dirs::cache()?.join("builds");
        let paths = component.tests.as_ref().map(|tests| program::place_in(&checkout, tests)).unwrap_or_default();
        let mut all = Vec::new();
        for (tool, package) in &component.builds {
            let found = program::ask(&checkout, &["list", "-e", "-f", "{{.Name}}", package])?;
            if found != "main" {
                let what = format!("{package} of {name} is no program, and ci/components.toml says that it is");
                return Err(Error::new(Cause::BuildFailure, what).next(format!("see [{name}.builds]")));
            }
            let trimpath = component.tests.as_ref().map_or(Some("-trimpath"), program::trimpath);
            let mut arguments = vec!["build".to_owned(), "-buildvcs=false".to_owned()];
            arguments.extend(trimpath.map(String::from));
            let flags = component.ldflags(component.version()).join(" ");
            arguments.extend((!flags.is_empty()).then(|| format!("-ldflags={flags}")));
            let text = format!("{:?}\n{package}\n{arguments:?}\n{go}\n{paths}", checkout.source);
            let key = &digest::hex(text.as_bytes())[..16];
            let path = cache.join(format!("{name}-{key}")).join(tool);
            all.push(Build { name: tool.clone(), package: package.clone(), arguments, path });
        }
        Ok(Self { component: name.to_owned(), checkout: Some(checkout), all })
    }

    /// Builds what the cache does not have.
    ///
    /// # Errors
    /// [`Cause::BuildFailure`] with the compiler's words, or what is wrong with this machine.
    pub(crate) fn make(self, ui: &Ui) -> Result<Self> {
        for build in &self.all {
            if !build.path.is_file() {
                self.make_one(build, ui)?;
            }
            cache::used(&build.path);
        }
        Ok(self)
    }

    fn make_one(&self, build: &Build, ui: &Ui) -> Result<()> {
        let (what, path) = (format!("{}'s {}", self.component, build.name), &build.path);
        let _turn = take_turn(&what, path, ui)?;
        // Somebody else may have built it meanwhile.
        let Some(checkout) = self.checkout.as_ref().filter(|_| !path.is_file()) else { return Ok(()) };
        let new = folder_beside(path)?;
        let file = new.path().join(&build.name);
        let mut command = program::go_command(&checkout.dir)?;
        command.args(&build.arguments).arg("-o").arg(&file).arg(&build.package);
        let step = ui.step(format!("{}: build {}", self.component, build.name));
        if let Err(error) = run_compiler(&what, "does not compile", command, &step) {
            step.failed("");
            return Err(error);
        }
        step.done(format!("{} MB", keep(&file, path)? / 1_000_000));
        if let Some(cache) = path.parent().and_then(|folder| folder.parent()) {
            cache::forget_older(cache, path, |folder| program::is_of(&self.component, folder));
        }
        Ok(())
    }

    /// Where each of them lies, or will.
    pub(crate) fn paths(&self) -> BTreeMap<String, PathBuf> {
        self.all.iter().map(|build| (build.name.clone(), build.path.clone())).collect()
    }

    /// For people, a line for each.
    pub(crate) fn in_words(&self) -> String {
        let line = |build: &Build| {
            let words: Vec<_> = build.arguments.iter().map(|word| kit::process::quote(word)).collect();
            format!("# {{{}}} is built before: go {} {}\n", build.name, words.join(" "), build.package)
        };
        self.all.iter().map(line).collect()
    }
}
