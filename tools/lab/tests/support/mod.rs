//! A lab of a test, and what it leaves.

#![allow(missing_docs, dead_code, unreachable_pub, reason = "shared by tests, of which none uses everything")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kit::{Process, process::Finished};
use serde_json::Value;

/// A lab of a test, purged when the test ends, whichever way.
pub struct Lab {
    pub name: String,
    cache: PathBuf,
}

impl Lab {
    /// A name that no other test and no other run of the tests has.
    pub fn new(letter: char) -> Self {
        Self::named(&format!("t{}{letter}", std::process::id()))
    }

    fn named(name: &str) -> Self {
        Self { name: name.into(), cache: kit::dirs::cache().unwrap() }
    }

    /// One in another cache, which uses the programs that are built already.
    pub fn in_cache(name: &str, cache: &Path) -> Self {
        std::os::unix::fs::symlink(kit::dirs::cache().unwrap().join("bin"), cache.join("bin")).unwrap();
        Self::open(name, cache)
    }

    /// One in a cache as it is.
    pub fn open(name: &str, cache: &Path) -> Self {
        Self { name: name.into(), cache: cache.into() }
    }

    pub fn command(&self, arguments: &[&str]) -> Process<'static> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.env("OTHER_ARCH_CACHE", &self.cache).args(["--name", &self.name]).args(arguments);
        Process::new(format!("lab {}", arguments.join(" ")), command).limit(Duration::from_secs(900))
    }

    pub fn run(&self, arguments: &[&str]) -> String {
        self.command(arguments).read().unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn fails(&self, arguments: &[&str]) -> Finished {
        self.command(arguments).finish().unwrap()
    }

    /// What `up` says of the lab.
    pub fn up(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[&["up", "--output", "json"], arguments].concat())).unwrap()
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.run(&["status", "--output", "json"])).unwrap()
    }

    /// What an instruction to the guest in pod `guest` comes to, good or not.
    pub fn guest(&self, verb: &str, what: &str) -> String {
        let mut said = String::new();
        let run = self.command(&["kubectl", "exec", "guest", "--", "/guest", verb, what]);
        run.on_line(|stream, line| {
            if stream == kit::Stream::Out {
                said.push_str(line);
            }
        })
        .finish()
        .unwrap();
        said
    }

    pub fn folder(&self) -> PathBuf {
        self.cache.join("labs").join(&self.name)
    }

    /// What belongs to the lab on this machine, of whatever kind.
    pub fn leftovers(&self) -> Vec<String> {
        self.run(&["leftovers", "--of", &self.name]).lines().map(String::from).collect()
    }

    /// Nothing of the lab is there, at once. `before` is what [`machine`] said before the lab was.
    pub fn expect_nothing_left(&self, before: &[String]) {
        assert_eq!(self.leftovers(), Vec::<String>::new(), "left behind");
        assert_eq!(machine(), before, "left on the machine");
    }

    /// The number of the lab's first process on this machine.
    pub fn supervisor(&self) -> i32 {
        let words = format!("--name {} supervise", self.name);
        let lines = self.leftovers();
        let found = lines.iter().find(|line| line.contains(&words) && !line.contains(" unshare "));
        found.and_then(|line| line.split(' ').nth(2)?.parse().ok()).unwrap_or_else(|| panic!("none in {lines:?}"))
    }
}

/// What no lab may change on the machine: rules of its packet filter, files outside the cache. (Of processes, mounts
/// and the like there are others that come and go.)
pub fn machine() -> Vec<String> {
    let lines = Lab::named("none").run(&["leftovers"]);
    lines
        .lines()
        .filter(|line| ["rule - ", "file - "].iter().any(|kind| line.starts_with(kind)))
        .map(String::from)
        .collect()
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("lab {}:\n{}", self.name, self.command(&["logs", "supervisor"]).read().unwrap_or_default());
        }
        if self.name == "none" {
            return;
        }
        let purged = self.command(&["down", "--purge"]).run();
        if let Err(error) = purged {
            eprintln!("{error}");
        }
    }
}

pub fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

pub fn kill(pid: i32) {
    signal(pid, rustix::process::Signal::KILL);
}
