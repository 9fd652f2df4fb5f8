//! Results of earlier runs, found by their folder: of a run directory, of a part of one, or a record by itself.

use std::path::{Path, PathBuf};

use kit::{
    Cause, Context, Error, Outcome, Platform, Result,
    record::{Record, Results},
    rundir,
};

use crate::report::PACKAGE;

/// `<run>/<component>/<os-arch>/<cluster>/<kind>/results.json`: no record lies deeper.
const DEPTH: usize = 4;
/// No run has as many.
const LIMIT: usize = 1000;

/// A record and where it lies.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its file.
    pub path: PathBuf,
    /// Digest of its bytes.
    pub digest: String,
    /// What it says.
    pub results: Results,
}

impl Found {
    /// Whether it failed before it came to any test: the cluster was away, held by another run, or nothing compiled.
    #[must_use]
    pub fn never_began(&self) -> bool {
        let Results { head, tests, .. } = &self.results;
        head.outcome == Outcome::Failed && tests.iter().all(|test| test.name == PACKAGE)
    }
}

/// Which records are meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Of this component; of any without.
    pub component: Option<&'a str>,
    /// Of this kind.
    pub kind: Option<&'a str>,
    /// Of this platform.
    pub platform: Option<&'a Platform>,
}

/// The name of a record in its folder: that of shard i of n says so.
#[must_use]
pub fn file_name((number, of): (u32, u32)) -> String {
    if of <= 1 { Results::FILE.into() } else { format!("results.{number}-of-{of}.json") }
}

fn is_record(name: &str) -> bool {
    name == Results::FILE || (name.starts_with("results.") && name.ends_with(".json"))
}

/// The records at `place` that are wanted, sorted by their path.
///
/// # Errors
/// [`Cause::Usage`] if there is none, or one that cannot be read.
pub fn find(place: &Path, wanted: Wanted<'_>) -> Result<Vec<Found>> {
    let mut paths = Vec::new();
    if place.is_dir() {
        walk(place, DEPTH, &mut paths).cause(Cause::Usage, || format!("cannot read {}", place.display()))?;
    } else {
        paths.push(place.to_path_buf());
    }
    if paths.len() > LIMIT {
        let what = format!("{} holds more than {LIMIT} records of results", place.display());
        return Err(Error::new(Cause::Usage, what).next("name the folder of one run"));
    }
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let (results, digest) = rundir::read_json::<Results>(&path)?;
        let fits = wanted.component.is_none_or(|component| results.component == component)
            && wanted.kind.is_none_or(|kind| results.kind == kind)
            && wanted.platform.is_none_or(|platform| results.platform == *platform);
        if fits {
            found.push(Found { path, digest, results });
        }
    }
    if found.is_empty() {
        let of = wanted.component.map(|component| format!(" of {component}")).unwrap_or_default();
        let kind = wanted.kind.map(|kind| format!(" of kind {kind}")).unwrap_or_default();
        return Err(Error::new(Cause::Usage, format!("{} holds no results{of}{kind}", place.display()))
            .next("name a run directory in which tests have run, as in target/runs, or a results.json"));
    }
    Ok(found)
}

fn walk(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        let name = name.to_string_lossy();
        // Symbolic links lead elsewhere, and logs are no records.
        if kind.is_file() && is_record(&name) {
            paths.push(entry.path());
        } else if kind.is_dir() && depth > 0 && name != "logs" && name != "evidence" && paths.len() <= LIMIT {
            walk(&entry.path(), depth - 1, paths)?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report;
    use kit::record::{Conditions, Head, Nature, Status, Test};

    /// A record of these tests.
    pub(crate) fn results(component: &str, platform: &str, tests: Vec<Test>) -> Results {
        let (counts, all_counts) = report::count(&tests);
        Results {
            head: Head::new("e2e-runner", "0", "r", jiff::Timestamp::UNIX_EPOCH),
            component: component.into(),
            version: "v1".into(),
            kind: "e2e".into(),
            suite: "smoke".into(),
            platform: platform.parse().unwrap(),
            nature: Nature::Native,
            cluster: "u".into(),
            release: None,
            counts,
            all_counts,
            conditions: Conditions::default(),
            tests,
            shard: (1, 1),
            whole: None,
            evidence: None,
        }
    }

    #[test]
    fn records_are_found_where_tools_put_them() {
        let run = tempfile::tempdir().unwrap();
        let good = || vec![report::row("TestA", "p", Status::Passed)];
        let cell = run.path().join("a/linux-amd64/c");
        rundir::write_record(&cell, &results("a", "linux/amd64", good())).unwrap();
        let mut unit = results("a", "linux/amd64", good());
        unit.kind = "unit".into();
        rundir::write_record(&cell.join("unit"), &unit).unwrap();
        let part = run.path().join("b/linux-s390x/c").join(file_name((2, 3)));
        rundir::write_json(&part, &results("b", "linux/s390x", good())).unwrap();
        rundir::write(&cell.join("logs/results.json"), b"a test may write anything").unwrap();
        std::os::unix::fs::symlink("/", run.path().join("a/elsewhere")).unwrap();
        let number = |wanted| find(run.path(), wanted).map(|found| found.len());
        assert_eq!(number(Wanted::default()).unwrap(), 3);
        assert_eq!(number(Wanted { component: Some("a"), ..Wanted::default() }).unwrap(), 2);
        assert_eq!(number(Wanted { component: Some("a"), kind: Some("e2e"), ..Wanted::default() }).unwrap(), 1);
        let s390x = "linux/s390x".parse().unwrap();
        assert_eq!(number(Wanted { platform: Some(&s390x), ..Wanted::default() }).unwrap(), 1);
        assert_eq!(find(&part, Wanted::default()).unwrap()[0].results.component, "b");
        let error = number(Wanted { component: Some("z"), ..Wanted::default() }).unwrap_err();
        assert!(error.cause == Cause::Usage && error.to_string().contains("holds no results of z"), "{error}");
        assert_eq!(find(&run.path().join("gone"), Wanted::default()).unwrap_err().cause, Cause::Usage);
    }
}
