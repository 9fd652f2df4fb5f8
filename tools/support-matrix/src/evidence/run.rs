//! A bundle's records, read and checked.

use jiff::{SignedDuration, Timestamp};
use kit::{
    Cause, Context, Error, Result,
    bundle::Closed,
    record::{BundleFile, Cleanup, Counts, Head, Images, Install, Record, Results, RunRecord, Stage, Stages, Status},
    rundir, stage,
};

use super::{limits, platforms};
use crate::text::when;

/// The file with the address of the run in the Tekton Dashboard.
pub(crate) const DASHBOARD: &str = "dashboard";
/// Bytes of all records of a bundle together that are read: nobody knows how much memory they take until they are.
const MAX_RECORDS: u64 = 64 << 20;
/// Kinds of tests with a folder of their own in a cell's, which has their name.
const KINDS: &[&str] = &["unit", "examples", "upgrade", "script"];
/// Part of a suite: as many as `e2e-runner run --shard` makes.
const MAX_PARTS: u32 = 1_000;

/// By so much the clocks of two machines may differ.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A record and the digest of its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Found<R> {
    pub(crate) record: R,
    pub(crate) digest: String,
}

/// Results, and where what they name lies.
#[derive(Debug, Clone)]
pub(crate) struct Tests {
    /// Their folder, with a `/` at its end.
    pub(crate) folder: String,
    pub(crate) found: Found<Results>,
}

/// What was left in one cell's folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tried {
    /// The folder, with a `/` at its end.
    pub(crate) folder: String,
    pub(crate) install: Option<Found<Install>>,
    /// Also those of kinds with a folder of their own.
    pub(crate) results: Vec<Tests>,
    pub(crate) cleanup: Option<Found<Cleanup>>,
}

/// A closed run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) closed: Closed,
    pub(crate) asked: Option<RunRecord>,
    pub(crate) stages: Option<Stages>,
    /// What single stages left, where nobody has put it together.
    pub(crate) heard: Vec<Stage>,
    pub(crate) builds: Vec<Found<Images>>,
    pub(crate) tried: Vec<Tried>,
    /// Where the Tekton Dashboard shows it.
    pub(crate) dashboard: Option<String>,
    /// When its first work began.
    pub(crate) started: Timestamp,
    /// When its last record was written.
    pub(crate) finished: Timestamp,
}

/// Reads every record that says something about support.
///
/// # Errors
/// [`Cause::Usage`], naming the file, if one is damaged, of a newer schema, or contradicts itself; also if one speaks of
/// what is no platform, if there is none at all, or more than any run has.
pub(crate) fn read(closed: Closed) -> Result<Run> {
    let mut reader = Reader { closed: &closed, left: MAX_RECORDS };
    let mut run = Run {
        asked: reader.only()?,
        stages: reader.only()?,
        heard: Vec::new(),
        builds: Vec::new(),
        tried: Vec::new(),
        dashboard: dashboard(&closed)?,
        started: Timestamp::MAX,
        finished: Timestamp::MIN,
        closed: closed.clone(),
    };
    for file in closed.files() {
        match Place::of(&file.path) {
            Some(Place::Stage) if run.stages.is_none() => run.heard.push(reader.parse(file)?),
            Some(Place::Images) => run.builds.push(reader.found(file)?),
            Some(Place::Install(cell)) => run.tried(cell).install = Some(reader.found(file)?),
            Some(Place::Cleanup(cell)) => run.tried(cell).cleanup = Some(reader.found(file)?),
            Some(Place::Results(cell, kind)) => {
                let tests = reader.tests(file)?;
                if kind.is_some_and(|kind| tests.found.record.kind != kind) {
                    let what = format!("{}: its tests are not of the kind of its folder", file.path);
                    return Err(Error::new(Cause::Usage, what).line(tests.found.record.kind));
                }
                run.tried(cell).results.push(tests);
            }
            Some(Place::Baseline(cell)) => drop(run.tried(cell)),
            Some(Place::Stage) | None => {}
        }
        limits::check_folders(&run)?;
    }
    limits::check(&run)?;
    platforms::check(&run)?;
    run.date()?;
    Ok(run)
}

/// Checks every file that [`read`] reads: nothing else of a bundle decides anything.
///
/// # Errors
/// As [`Closed::read`], for the first that is not what the list says.
pub(crate) fn verify(closed: &Closed) -> Result<()> {
    let single = closed.file(Stages::FILE).is_none();
    let read = |file: &&BundleFile| match Place::of(&file.path) {
        Some(Place::Baseline(_)) | None => [RunRecord::FILE, Stages::FILE, DASHBOARD].contains(&file.path.as_str()),
        Some(Place::Stage) => single,
        Some(_) => true,
    };
    closed.files().iter().filter(read).try_for_each(|file| closed.read(&file.path, MAX_RECORDS).map(drop))
}

/// What a file of a bundle is, by its path.
enum Place<'a> {
    /// What a single stage left.
    Stage,
    Images,
    Install(&'a str),
    Cleanup(&'a str),
    /// The folder of the cell, and the kind of tests that has a folder of its own there.
    Results(&'a str, Option<&'a str>),
    /// It is not read: that it is there says that a cluster was looked at.
    Baseline(&'a str),
}

impl<'a> Place<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let place = match (name, folder.matches('/').count()) {
            (_, 0) if folder == stage::FOLDER => name.ends_with(".json").then_some(Self::Stage)?,
            (Images::FILE, 0) => Self::Images,
            (Install::FILE, 2) => Self::Install(folder),
            (Cleanup::FILE, 2) => Self::Cleanup(folder),
            (_, 2) if is_results(name) => Self::Results(folder, None),
            (_, 3) if is_results(name) => {
                // Beside them lie logs and evidence, in which a test may write anything.
                let (cell, kind) = folder.rsplit_once('/').filter(|(_, kind)| KINDS.contains(kind))?;
                Self::Results(cell, Some(kind))
            }
            ("baseline.json", 2) => Self::Baseline(folder),
            _ => return None,
        };
        Some(place)
    }
}

/// Reads records of one bundle, all together at most [`MAX_RECORDS`].
struct Reader<'a> {
    closed: &'a Closed,
    left: u64,
}

impl Reader<'_> {
    fn parse<T: serde::de::DeserializeOwned>(&mut self, file: &BundleFile) -> Result<T> {
        let Some(left) = self.left.checked_sub(file.size) else {
            let what = format!("{}: the records of this run have more than {} MiB", file.path, MAX_RECORDS >> 20);
            return Err(Error::new(Cause::Usage, what));
        };
        self.left = left;
        let bytes = self.closed.read(&file.path, MAX_RECORDS)?;
        rundir::parse(&bytes, &self.closed.folder().join(&file.path).display().to_string())
    }

    fn found<R: Record>(&mut self, file: &BundleFile) -> Result<Found<R>> {
        Ok(Found { record: self.parse(file)?, digest: file.digest.clone() })
    }

    fn only<R: Record>(&mut self) -> Result<Option<R>> {
        let closed = self.closed;
        closed.file(R::FILE).map(|file| self.parse(file)).transpose()
    }

    fn tests(&mut self, file: &BundleFile) -> Result<Tests> {
        let found: Found<Results> = self.found(file)?;
        check_counts(&found.record).map_err(|error| error.within(file.path.clone()))?;
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Ok(Tests { folder: format!("{folder}/"), found })
    }
}

impl Run {
    /// Whether it came to its own end. Whoever was asked something or calls tools as stages says so at the end.
    pub(crate) fn is_complete(&self) -> bool {
        self.stages.is_some() || (self.asked.is_none() && self.heard.is_empty())
    }

    /// How its stages ended, as far as anybody knows.
    pub(crate) fn stages(&self) -> &[Stage] {
        self.stages.as_ref().map_or(&self.heard, |record| &record.stages)
    }

    fn tried(&mut self, folder: &str) -> &mut Tried {
        let folder = format!("{folder}/");
        let index = self.tried.iter().position(|tried| tried.folder == folder).unwrap_or_else(|| {
            self.tried.push(Tried { folder, ..Tried::default() });
            self.tried.len() - 1
        });
        &mut self.tried[index]
    }

    fn heads(&self) -> Vec<&Head> {
        let whole = [self.asked.as_ref().map(Record::head), self.stages.as_ref().map(Record::head)];
        let builds = self.builds.iter().map(|found| found.record.head());
        let cells = self.tried.iter().flat_map(|tried| {
            let install = tried.install.iter().map(|found| found.record.head());
            let results = tried.results.iter().map(|tests| tests.found.record.head());
            install.chain(results).chain(tried.cleanup.iter().map(|found| found.record.head()))
        });
        whole.into_iter().flatten().chain(builds).chain(cells).collect()
    }

    fn date(&mut self) -> Result<()> {
        let heads = self.heads();
        if let Some(head) = heads.iter().find(|head| head.finished < head.started) {
            return Err(Error::new(Cause::Usage, format!("a record of {} ends before it begins", head.tool)));
        }
        let (Some(first), Some(last)) =
            (heads.iter().map(|head| head.started).min(), heads.iter().map(|head| head.finished).max())
        else {
            return Err(Error::new(Cause::Usage, format!("{} holds no record", self.closed.folder().display()))
                .next("name the folder of a run, as in target/runs"));
        };
        // What a run goes on from is older than the run: its own beginning is what it was asked.
        self.started = self.asked.as_ref().map_or(first, |asked| asked.head.started);
        self.finished = last;
        Ok(())
    }
}

/// The link that `record --dashboard` left. Only what a browser opens as a page is one.
fn dashboard(closed: &Closed) -> Result<Option<String>> {
    if closed.file(DASHBOARD).is_none() {
        return Ok(None);
    }
    let text = String::from_utf8(closed.read(DASHBOARD, 4096)?).unwrap_or_default();
    Ok(Some(text.trim().to_owned()).filter(|link| is_link(link)))
}

/// Whether a run ended after `now`, by more than clocks differ.
pub(crate) fn is_ahead(finished: Timestamp, now: Timestamp) -> bool {
    finished.duration_since(now) > SKEW
}

/// Refuses a run that nobody can have seen yet.
///
/// # Errors
/// [`Cause::Usage`] if it ended in the future.
pub(crate) fn check_date(finished: Timestamp) -> Result<()> {
    if !is_ahead(finished, Timestamp::now()) {
        return Ok(());
    }
    let error = Error::new(Cause::Usage, format!("it ended on {}, in the future", when(finished)));
    Err(error.next("set the clock of the machine that it ran on, or of this one"))
}

/// Whether a text is an address of a page and nothing else.
pub(crate) fn is_link(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '<' | '>' | '`' | '\\');
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        && text.len() <= 2_000
        && text.chars().all(plain)
}

fn is_results(name: &str) -> bool {
    name == Results::FILE || (name.starts_with("results.") && name.ends_with(".json"))
}

/// Refuses totals that do not add up or do not agree with the tests, and a part that cannot be one: nobody knows what
/// such a record means.
fn check_counts(results: &Results) -> Result<()> {
    let Counts { asked, passed, failed, flaky, skipped, excluded, not_run } = results.counts;
    let parts = [passed, failed, flaky, skipped, excluded, not_run];
    let sum = parts.into_iter().try_fold(0_usize, usize::checked_add);
    if sum != Some(asked) {
        let error = Err::<(), _>(format!("{asked} tests asked for, {parts:?} ended"));
        return error.cause(Cause::Usage, || "its totals do not add up");
    }
    let top = |status| results.tests.iter().filter(|test| !test.name.contains('/') && test.status == status).count();
    if failed == 0 && top(Status::Failed) > 0 {
        return Err(Error::new(Cause::Usage, "it says that no test failed, and lists tests that did"));
    }
    let (number, of) = results.shard;
    if !(1..=MAX_PARTS).contains(&of) || !(1..=of).contains(&number) {
        return Err(Error::new(Cause::Usage, format!("there is no shard {number} of {of}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_records_together_have_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let run = kit::RunDir::create(folder.path().join("r")).unwrap();
        let text = b"{\"schemaVersion\": \"1.0\"}          ";
        for name in ["a.json", "b.json"] {
            rundir::write(&run.path().join(name), text).unwrap();
        }
        let closed = kit::bundle::seal(&run).unwrap();
        let size = text.len() as u64;
        let mut reader = Reader { closed: &closed, left: 2 * size - 1 };
        let mut parse = |name: &str| reader.parse::<serde_json::Value>(closed.file(name).unwrap()).map(drop);
        parse("a.json").unwrap();
        let error = parse("b.json").unwrap_err();
        assert!(error.cause == Cause::Usage && error.to_string().contains("b.json: the records"), "{error}");
    }

    #[test]
    fn clocks_may_differ_and_runs_of_tomorrow_are_none() {
        let now = Timestamp::now();
        check_date(now + SignedDuration::from_mins(4)).unwrap();
        assert_eq!(check_date(now + SignedDuration::from_mins(7)).unwrap_err().cause, Cause::Usage);
    }

    #[test]
    fn what_is_read_is_verified() {
        let read = [
            "run.json",
            "dashboard",
            "c/images.json",
            "stages/test.json",
            "c/linux-s390x/lab/install.json",
            "c/linux-s390x/lab/cleanup.json",
            "c/linux-s390x/lab/results.1-of-2.json",
            "c/linux-s390x/lab/unit/results.json",
        ];
        let other = ["c/linux-s390x/lab/baseline.json", "c/linux-s390x/lab/logs/results.json", "stages/test.log"];
        let verify = |changed: &str| {
            let folder = tempfile::tempdir().unwrap();
            let run = kit::RunDir::create(folder.path().join("r")).unwrap();
            for name in read.iter().chain(&other) {
                let path = run.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                rundir::write(&path, b"{\"schemaVersion\": \"1.0\"}").unwrap();
            }
            let closed = kit::bundle::seal(&run).unwrap();
            std::fs::write(run.path().join(changed), b"{\"schemaVersion\": \"1.1\"}").unwrap();
            super::verify(&closed)
        };
        for name in read {
            assert!(verify(name).is_err(), "{name}");
        }
        for name in other {
            verify(name).unwrap();
        }
    }
}
