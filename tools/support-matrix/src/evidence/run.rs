//! A bundle's records, read and checked.

use jiff::Timestamp;
use kit::{
    Cause, Context, Error, Result,
    bundle::Closed,
    record::{BundleFile, Cleanup, Counts, Head, Images, Install, Record, Results, RunRecord, Stages, Status},
    rundir,
};

/// The file with the address of the run in the Tekton Dashboard.
pub(crate) const DASHBOARD: &str = "dashboard";
/// Bytes of a record: one of a whole cluster's objects is the largest that is read.
const RECORD_LIMIT: u64 = 64 << 20;

/// A record and the digest of its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Found<R> {
    pub(crate) record: R,
    pub(crate) digest: String,
}

/// What was left in one cell's folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tried {
    /// The folder, with a `/` at its end.
    pub(crate) folder: String,
    pub(crate) install: Option<Found<Install>>,
    pub(crate) results: Vec<Found<Results>>,
    pub(crate) cleanup: Option<Found<Cleanup>>,
}

/// A closed run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) closed: Closed,
    pub(crate) asked: Option<RunRecord>,
    pub(crate) stages: Option<Stages>,
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
/// what is no platform, and if there is none at all.
pub(crate) fn read(closed: Closed) -> Result<Run> {
    let mut run = Run {
        asked: only(&closed)?,
        stages: only(&closed)?,
        builds: Vec::new(),
        tried: Vec::new(),
        dashboard: dashboard(&closed)?,
        started: Timestamp::MAX,
        finished: Timestamp::MIN,
        closed,
    };
    let closed = run.closed.clone();
    for file in closed.files() {
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        match (name, folder.matches('/').count()) {
            (Images::FILE, 0) => run.builds.push(parse(&closed, file)?),
            (Install::FILE, 2) => run.tried(folder).install = Some(parse(&closed, file)?),
            (Cleanup::FILE, 2) => run.tried(folder).cleanup = Some(parse(&closed, file)?),
            (_, 2) if is_results(name) => {
                let found: Found<Results> = parse(&closed, file)?;
                check_counts(&found.record).map_err(|error| error.within(file.path.clone()))?;
                run.tried(folder).results.push(found);
            }
            // A baseline alone says that a cluster was looked at.
            ("baseline.json", 2) => drop(run.tried(folder)),
            _ => {}
        }
    }
    super::platforms::check(&run)?;
    run.date()?;
    Ok(run)
}

/// Checks every file that [`read`] reads: nothing else of a bundle decides anything.
///
/// # Errors
/// As [`Closed::read`], for the first that is not what the list says.
pub(crate) fn verify(closed: &Closed) -> Result<()> {
    let ours = [RunRecord::FILE, Stages::FILE, Images::FILE, Install::FILE, Cleanup::FILE, DASHBOARD];
    let name = |path: &str| path.rsplit_once('/').map_or(path, |(_, name)| name).to_owned();
    let read = |file: &&BundleFile| ours.contains(&name(&file.path).as_str()) || is_results(&name(&file.path));
    closed.files().iter().filter(read).try_for_each(|file| closed.read(&file.path, RECORD_LIMIT).map(drop))
}

impl Run {
    /// Whether it came to its own end.
    pub(crate) fn is_complete(&self) -> bool {
        self.asked.is_none() || self.stages.is_some()
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
            let results = tried.results.iter().map(|found| found.record.head());
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

fn only<R: Record>(closed: &Closed) -> Result<Option<R>> {
    closed.file(R::FILE).map(|file| parse(closed, file).map(|found: Found<R>| found.record)).transpose()
}

fn parse<R: Record>(closed: &Closed, file: &BundleFile) -> Result<Found<R>> {
    let bytes = closed.read(&file.path, RECORD_LIMIT)?;
    let record = rundir::parse(&bytes, &closed.folder().join(&file.path).display().to_string())?;
    Ok(Found { record, digest: file.digest.clone() })
}

/// Refuses totals that do not add up or do not agree with the tests: nobody knows what such a record means.
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
    Ok(())
}
