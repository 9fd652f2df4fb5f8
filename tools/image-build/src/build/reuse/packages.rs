//! What Go says of the packages that programs are made of: `go list -deps -export` with the build ID of each.
//!
//! A build ID is Go's own digest over everything that decides what a package compiles to: its files (embedded ones
//! and assembly too), the compiler, its flags, the platform, and the packages that it imports.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use kit::{Cause, Process, Result, digest, source};
use serde::Serialize;

/// Nothing is compiled longer than by ko itself.
const LIMIT: Duration = Duration::from_secs(3 * 3600);
/// One line for each package, and one more for each of those that were asked for.
const FORMAT: &str = "{{printf \"package\\t%s\\t%s\" .ImportPath .BuildID}}{{if not .DepOnly}}\
                      {{printf \"\\ncommand\\t%s\\t%s\\t%s\" .ImportPath .Dir (join .Deps \" \")}}{{end}}";
/// What of Go's settings reaches programs. Those that only the linker looks at are in no build ID.
const SETTINGS: &[&str] = &[
    "CGO_ENABLED",
    "GOVERSION",
    "GOOS",
    "GOARCH",
    "GOEXPERIMENT",
    "GOFLAGS",
    "GO386",
    "GOAMD64",
    "GOARM",
    "GOARM64",
    "GOMIPS",
    "GOMIPS64",
    "GOPPC64",
    "GORISCV64",
    "GOWASM",
    "GOFIPS140",
    "GODEBUG",
    "GO_EXTLINK_ENABLED",
];

/// How Go is called for some commands on one platform.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Call {
    /// Variables: the platform's, and those of ko's configuration.
    pub(super) variables: Vec<(String, String)>,
    /// Flags of `go build`, without those of the linker.
    pub(super) flags: Vec<String>,
}

/// What Go said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Packages {
    /// The linker, and Go's settings.
    toolchain: String,
    /// Build IDs by import path. There are several where a program's profile (PGO) gives it packages of its own.
    ids: BTreeMap<String, BTreeSet<String>>,
    commands: BTreeMap<String, Command>,
}

#[derive(Debug, PartialEq, Eq)]
struct Command {
    dir: PathBuf,
    packages: Vec<String>,
}

impl Packages {
    /// Asks Go for all packages of these commands; what is not compiled yet is compiled.
    ///
    /// # Errors
    /// [`Cause::Interrupted`]; with any other cause it is no more than that they are not known.
    pub(super) fn list(root: &Path, go_flags: &str, call: &Call, commands: &BTreeSet<String>) -> Result<Self> {
        let go = |arguments: &[&str]| -> Result<std::process::Command> {
            let mut command = source::go_command("--reuse", root)?;
            command.env("CGO_ENABLED", "0").env("GOFLAGS", go_flags).envs(call.variables.iter().cloned());
            command.args(arguments);
            Ok(command)
        };
        let read = |what: &str, command: std::process::Command| {
            Process::new(what, command).cause(Cause::BuildFailure).limit(LIMIT).read()
        };
        let settings = read("Go's settings", go(&[&["env"][..], SETTINGS].concat())?)?;
        if settings.lines().next() != Some("0") {
            return Err(unknown("it is built with cgo: what C compilers and libraries add is not known"));
        }
        let linker = read("the version of Go's linker", go(&["tool", "link", "-V=full"])?)?;
        let mut list = go(&["list", "-deps", "-export", "-trimpath"])?;
        list.args(&call.flags).args(["-f", FORMAT, "--"]).args(commands);
        let mut packages = Self::parse(&read("the list of packages", list)?)?;
        packages.toolchain = format!("{linker}{settings}");
        Ok(packages)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut packages = Self::default();
        for line in text.lines() {
            match line.split('\t').collect::<Vec<_>>()[..] {
                ["package", path, id] => {
                    packages.ids.entry(path.to_owned()).or_default().insert(id.to_owned());
                }
                ["command", path, dir, deps] => {
                    let packages_of = deps.split(' ').filter(|dep| !dep.is_empty()).chain([path]).map(String::from);
                    let command = Command { dir: dir.into(), packages: packages_of.collect() };
                    packages.commands.insert(path.to_owned(), command);
                }
                _ => return Err(unknown("Go lists its packages in another way than expected").line(line)),
            }
        }
        Ok(packages)
    }

    /// One digest over everything that Go compiles and links for a command.
    pub(super) fn digest(&self, import: &str) -> Result<String> {
        let mut lines = BTreeSet::new();
        for path in &self.command(import)?.packages {
            let ids = self.ids.get(path).ok_or_else(|| unknown(format!("Go did not list the package {path}")))?;
            // `unsafe` is no package that is compiled.
            if path != "unsafe" && ids.iter().any(String::is_empty) {
                return Err(unknown(format!("Go gives the package {path} no build ID")));
            }
            lines.extend(ids.iter().map(|id| format!("{path}\t{id}\n")));
        }
        let lines: String = lines.into_iter().collect();
        Ok(digest::sha256(format!("{}\n{lines}", self.toolchain).as_bytes()))
    }

    /// The folder of a command's sources.
    pub(super) fn dir(&self, import: &str) -> Result<&Path> {
        Ok(&self.command(import)?.dir)
    }

    fn command(&self, import: &str) -> Result<&Command> {
        self.commands.get(import).ok_or_else(|| unknown(format!("Go did not list the command {import}")))
    }
}

/// Why it cannot be told what an image is made of.
pub(super) fn unknown(why: impl Into<String>) -> kit::Error {
    kit::Error::new(Cause::Unclassified, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "package\tunsafe\t\npackage\te.com/dep\tA/B\npackage\te.com/x\tC/D\n\
                          command\te.com/x\t/src/x\tunsafe e.com/dep\npackage\te.com/y\tE/F\ncommand\te.com/y\t/src/y\t\n";

    fn packages(text: &str) -> Packages {
        Packages::parse(text).unwrap()
    }

    #[test]
    fn a_command_is_the_packages_that_it_needs() {
        let before = packages(LISTED);
        assert_eq!(before.dir("e.com/x").unwrap(), Path::new("/src/x"));
        let digests = |text: &str| {
            let packages = packages(text);
            ["e.com/x", "e.com/y"].map(|import| packages.digest(import).unwrap())
        };
        let (first, other) = (digests(LISTED), digests(&LISTED.replace("A/B", "A/Z")));
        assert!(first[0] != other[0] && first[1] == other[1]);
        // With a profile there is more than one of a package.
        let several = digests(&format!("{LISTED}package\te.com/dep\tG/H\n"));
        assert!(first[0] != several[0] && first[1] == several[1]);
        let mut linked = packages(LISTED);
        linked.toolchain = "link version go1.99".into();
        assert_ne!(linked.digest("e.com/x").unwrap(), first[0]);
    }

    #[test]
    fn what_go_does_not_say_is_not_guessed() {
        for (text, said) in [
            (LISTED.replace("A/B", ""), "no build ID"),
            (LISTED.replace("package\te.com/dep\tA/B\n", ""), "did not list the package e.com/dep"),
        ] {
            assert!(packages(&text).digest("e.com/x").unwrap_err().to_string().contains(said), "{text}");
        }
        assert!(packages(LISTED).digest("e.com/z").unwrap_err().to_string().contains("command e.com/z"));
        assert!(Packages::parse("what?\n").unwrap_err().to_string().contains("another way"));
    }
}
