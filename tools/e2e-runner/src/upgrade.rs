//! `run --kind upgrade`: what was made while an older release was installed is still there, and still works, when a newer
//! one is.
//!
//! Somebody else installs. Between the two installations `--phase prepare` makes objects and remembers them in
//! `upgrade.json`; after the second one `--phase check` looks at each again, makes others like them, and runs a suite.

mod check;
mod make;
mod same;

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use kit::{
    Cause, Done, Error, Output, Result, Ui,
    ci::{self, parse_duration},
    digest,
    process::{Stopper, quote},
    record::{Head, Input, ObjectKey, Record, Results, Status, Upgrade},
    rundir,
};

use crate::{
    TOOL, VERSION, attempts,
    evidence::Evidence,
    health::Watch,
    options::Phase,
    pace::Pace,
    parse::log,
    passes,
    place::{Installed, Place},
    plan::Plan,
    report::{self, Row},
    rounds::Came,
    session::{self, At},
};
use make::Wanted;

/// What stands for the package of these tests.
pub(crate) const PACKAGE: &str = "upgrade";
/// The test of which each object is a subtest.
const TEST: &str = "Upgrade";
/// How long objects may take to come to their end, unless their component says otherwise.
const LIMIT: Duration = Duration::from_mins(5);

/// What a component says of upgrades.
///
/// # Errors
/// [`Cause::Usage`] if it says nothing, or for options that do not fit.
pub(crate) fn section<'p>(plan: &'p Plan<'_>) -> Result<&'p ci::Upgrade> {
    let (args, name) = (plan.args, &plan.args.component);
    let section = plan.component.upgrade.as_ref().ok_or_else(|| {
        Error::new(Cause::Usage, format!("component '{name}' has nothing to make before an upgrade"))
            .next(format!("add [{name}.upgrade] to {}", plan.ci.folder().join("components.toml").display()))
    })?;
    // What is not done must not look as if it were.
    let prepares = args.phase == Some(Phase::Prepare);
    let given = [
        (prepares && args.suite.is_some(), "--suite is not for --phase prepare, which runs no tests"),
        (prepares && !args.tests.is_empty(), "--tests is not for --phase prepare, which runs no tests"),
        (prepares && !args.skip.is_empty(), "--skip is not for --phase prepare, which runs no tests"),
        (prepares && !args.tags.is_empty(), "--tags is not for --phase prepare, which runs no tests"),
        (!prepares && args.run_dir.is_none() && !args.dry_run, "--phase check needs the --run-dir of --phase prepare"),
    ];
    match given.into_iter().find(|(given, _)| *given) {
        Some((_, why)) => Err(Error::new(Cause::Usage, why)),
        None => Ok(section),
    }
}

/// Says what would be made, and what is tested afterwards: no cluster is opened.
///
/// # Errors
/// What is wrong with the call or the manifests.
pub(crate) fn dry_run(plan: &Plan<'_>, ui: &Ui) -> Result<Done> {
    let wanted = make::wanted(plan, ui)?;
    match ui.output {
        Output::Json => {
            let object = |one: &Wanted| serde_json::json!({"object": one.object.key, "reach": one.reach});
            ui.json(&serde_json::json!({
                "component": plan.args.component, "kind": "upgrade", "phase": plan.args.phase.map(Phase::name),
                "suite": plan.suite_name(), "objects": wanted.iter().map(object).collect::<Vec<_>>(),
            }))?;
        }
        Output::Text => {
            let mut text = "# made in a namespace of its own, and looked at again after the upgrade:\n".to_owned();
            for one in &wanted {
                let reach = one.reach.as_ref().map(|reach| format!(", which reaches {reach}")).unwrap_or_default();
                text.push_str(&format!("#   {}{reach}\n", one.object.key));
            }
            ui.result(&format!("{text}# tested again: {}", plan.suite_name()))?;
        }
    }
    Ok(Done::good())
}

/// Does the phase that was asked for.
///
/// # Errors
/// What kept it from its end, or the signal that ended it.
pub(crate) fn in_place(plan: &mut Plan<'_>, place: &mut Place, at: &At<'_>, results: &mut Results) -> Result<Done> {
    let installed = place.installed(at.cell)?;
    if installed.release.is_none() {
        let what = format!("nobody says what is installed: there is no install.json in {}", at.cell.display());
        return Err(Error::new(Cause::Usage, what).next("install the component first, with this run directory"));
    }
    match plan.args.phase {
        Some(Phase::Check) => look_again(plan, place, at, results, &installed),
        _ => prepare(plan, place, at, results, installed),
    }
}

/// How long objects may take, on nodes of that pace.
fn limit(plan: &Plan<'_>, installed: &Installed) -> Result<Duration> {
    let said = section(plan)?.time_limit.as_deref().map(parse_duration).transpose()?;
    Ok(Pace::new(plan.args.slowdown, installed.slowdown).stretch(said.unwrap_or(LIMIT)))
}

fn prepare(
    plan: &Plan<'_>,
    place: &mut Place,
    at: &At<'_>,
    results: &mut Results,
    installed: Installed,
) -> Result<Done> {
    let wanted = make::wanted(plan, at.ui)?;
    let limit = limit(plan, &installed)?;
    let (_, pace) = session::begin(plan, place, at, results)?;
    results.conditions.stretch = session::stretch(&pace, &[]);
    let mut record = Upgrade {
        head: Head::new(TOOL, VERSION, &results.head.run, results.head.started),
        component: plan.args.component.clone(),
        version: installed.version.clone().unwrap_or_default(),
        release: installed.release.clone().unwrap_or_default(),
        platform: place.platform.clone(),
        cluster: place.id.uid.clone(),
        namespace: format!("upgrade-{}", salt()),
        namespace_uid: String::new(),
        objects: Vec::new(),
    };
    record.head.inputs.extend(installed.inputs.iter().cloned());
    let client = place.opened.client.clone();
    if let Some((known, digest)) = earlier(at.cell, &record)
        && at.runtime.block_on(cluster::interruptible(check::is_there(&client, &known)))?
    {
        at.ui.note(format!("made already, and still there: namespace {}", known.namespace));
        return said(plan, &known, digest, at);
    }
    passes::clear(&at.home.logs())?;
    let came = session::observed(plan, place, at, results, None, |evidence| {
        let namespace = record.namespace.clone();
        let made = make::make(&client, &wanted, &mut record, limit);
        let rows = rows(place, at, evidence, &namespace, made)?;
        Ok(Came { rows, ..Came::default() })
    })?;
    if came.signal.is_some() || came.rows.iter().any(|row| row.test.cause.is_some()) {
        // What does not work before the upgrade says nothing of the upgrade.
        return session::conclude(plan, results, came, at, &installed);
    }
    record.head.finished = Timestamp::now();
    let digest = rundir::write_record(at.cell, &record)?;
    said(plan, &record, digest, at)
}

/// What was remembered of the same release on the same cluster.
fn earlier(cell: &Path, now: &Upgrade) -> Option<(Upgrade, String)> {
    let (known, digest) = rundir::read_record::<Upgrade>(cell).ok()?;
    (known.release == now.release && known.cluster == now.cluster).then_some((known, digest))
}

fn said(plan: &Plan<'_>, record: &Upgrade, digest: String, at: &At<'_>) -> Result<Done> {
    match at.ui.output {
        Output::Json => at.ui.json(record)?,
        Output::Text => at.ui.result(&format!(
            "remembered of {} {} in namespace {}: {} objects\n{}",
            record.component,
            record.version,
            record.namespace,
            record.objects.len(),
            record.objects.iter().map(|one| format!("  {}\n", one.key)).collect::<String>()
        ))?,
    }
    let run = plan.args.run_dir.as_ref().map(|run| format!(" --run-dir {}", quote(&run.display().to_string())));
    let run = run.unwrap_or_default();
    at.ui.note(format!("now install the newer release{run}; then run --kind upgrade --phase check{run}"));
    Ok(Done::good().digest(digest))
}

fn look_again(
    plan: &mut Plan<'_>,
    place: &mut Place,
    at: &At<'_>,
    results: &mut Results,
    installed: &Installed,
) -> Result<Done> {
    let wrong = |what: String, next: &str| Err(Error::new(Cause::Usage, what).next(next));
    let path = at.cell.join(Upgrade::FILE);
    if !path.is_file() {
        let next = "run --phase prepare with this run directory while the older release is installed";
        return wrong(format!("nothing was prepared: there is no {}", path.display()), next);
    }
    let (record, digest) = rundir::read_record::<Upgrade>(at.cell)?;
    if record.cluster != place.id.uid {
        let (path, uid) = (path.display(), &place.id.uid);
        let what =
            format!("{path} is of the cluster with uid {}, and this is {} (uid {uid})", record.cluster, place.id.name);
        return wrong(what, "name the cluster that it was prepared on, or prepare anew");
    }
    if installed.release.as_ref() == Some(&record.release) {
        let what = format!("nothing was upgraded: install.json still says release {}", record.release);
        return wrong(what, "install the newer release, with this run directory");
    }
    let client = place.opened.client.clone();
    let (namespace, uid) = (record.namespace.clone(), record.namespace_uid.clone());
    if !at.runtime.block_on(cluster::interruptible(check::has_namespace(&client, &record)))? {
        let what = format!("what was prepared is gone, with its namespace {namespace}");
        return wrong(what, "install the older release and run --phase prepare again");
    }
    results.head.inputs.push(Input { name: Upgrade::FILE.into(), digest });
    let check = Check { limit: limit(plan, installed)?, record };
    let from = &check.record;
    at.ui.note(format!("upgraded from {} ({}); now: {}", from.version, from.release, describe(installed)));
    let done = if plan.component.tests.is_some() {
        session::in_place(plan, place, at, results, Some(&check))?
    } else {
        let (installed, pace) = session::begin(plan, place, at, results)?;
        results.conditions.stretch = session::stretch(&pace, &[]);
        passes::clear(&at.home.logs())?;
        let came = session::observed(plan, place, at, results, Some(&namespace), |evidence| {
            Ok(Came { rows: check.rows(place, at, evidence)?, ..Came::default() })
        })?;
        session::conclude(plan, results, came, at, &installed)?
    };
    let lost = results.tests.iter().any(|test| test.package == PACKAGE && test.status == Status::Failed);
    if lost {
        at.ui.note(format!("kept to be looked at, until cleanup or another --phase prepare: namespace {namespace}"));
    } else if let Err(error) = at.runtime.block_on(cluster::interruptible(make::remove(&client, &namespace, &uid))) {
        at.ui.warn(format!("cleanup has to remove it: {error}"));
    }
    Ok(done)
}

fn describe(installed: &Installed) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{} ({})", text(&installed.version), text(&installed.release))
}

/// The look at what was made before.
pub(crate) struct Check {
    record: Upgrade,
    limit: Duration,
}

impl Check {
    /// The namespace of what was made.
    pub(crate) fn namespace(&self) -> &str {
        &self.record.namespace
    }

    /// A row for each object.
    ///
    /// # Errors
    /// What kept it from looking; what is lost or changed is no error.
    pub(crate) fn rows(&self, place: &Place, at: &At<'_>, evidence: &Evidence) -> Result<Vec<Row>> {
        let step = at.ui.step(format!("{} objects of before the upgrade", self.record.objects.len()));
        let looked = check::check(&place.opened.client, &self.record, self.limit);
        let rows = rows(place, at, evidence, self.namespace(), looked)?;
        let bad = rows.iter().filter(|row| row.test.name != TEST && row.test.status == Status::Failed).count();
        if bad == 0 {
            step.done("all as they were")
        } else {
            step.failed(format!("{bad} are not as they were"))
        }
        Ok(rows)
    }
}

/// What was seen of an object.
struct Seen {
    key: ObjectKey,
    log: Vec<String>,
    fault: Option<(Cause, String)>,
    /// Whether the fault is that something did not come to its end, for which a pod may be the reason.
    waited: bool,
    began: Timestamp,
    ended: Timestamp,
}

impl Seen {
    fn new(key: &ObjectKey) -> Self {
        let now = Timestamp::now();
        Self { key: key.clone(), log: Vec::new(), fault: None, waited: false, began: now, ended: now }
    }

    fn say(&mut self, line: impl Into<String>) {
        self.log.push(line.into());
        self.ended = Timestamp::now();
    }

    /// The first fault decides.
    fn fail(&mut self, cause: Cause, line: impl Into<String>) {
        let line = line.into();
        self.say(format!("NOT GOOD [{cause}]: {line}"));
        self.fault.get_or_insert((cause, line));
    }

    fn fail_waiting(&mut self, line: impl Into<String>) {
        self.waited |= self.fault.is_none();
        self.fail(Cause::Product, line);
    }

    /// Its row; the log lies in `logs`.
    fn row(&self, logs: &Path) -> Result<Row> {
        let status = if self.fault.is_some() { Status::Failed } else { Status::Passed };
        let mut test = report::row(format!("{TEST}/{}/{}", self.key.kind, self.key.name), PACKAGE, status);
        (test.cause, test.line) = self.fault.clone().unzip();
        test.log = Some(write_log(logs, &test.name, &self.log)?);
        test.seconds = seconds(self.began, self.ended);
        Ok(Row { test, excerpt: Vec::new(), ran: Some((self.began, self.ended)) })
    }
}

fn seconds(began: Timestamp, ended: Timestamp) -> f64 {
    (ended.duration_since(began).as_secs_f64() * 1000.0).round() / 1000.0
}

fn write_log(logs: &Path, test: &str, lines: &[String]) -> Result<String> {
    let name = format!("{}.log", log::file_name(test));
    rundir::write(&logs.join(&name), (lines.join("\n") + "\n").as_bytes())?;
    Ok(format!("logs/{name}"))
}

/// Rows of what was seen, with the causes that only the cluster knows; the last one is for all of them.
fn rows(
    place: &Place,
    at: &At<'_>,
    evidence: &Evidence,
    namespace: &str,
    work: impl Future<Output = Result<Vec<Seen>>>,
) -> Result<Vec<Row>> {
    let began = Timestamp::now();
    let (seen, outages) = at.runtime.block_on(cluster::interruptible(async {
        let watch = Watch::start(place.opened.client.clone(), &place.platform, Stopper::default());
        let seen = work.await?;
        Ok((seen, watch.finish().await))
    }))?;
    let (logs, ended) = (at.home.logs(), Timestamp::now());
    let mut lines = vec![format!("namespace {namespace}")];
    for one in &seen {
        lines.extend(one.log.iter().map(|line| format!("{}: {line}", one.key)));
    }
    let failed = seen.iter().any(|one| one.fault.is_some());
    let mut test = report::row(TEST, PACKAGE, if failed { Status::Failed } else { Status::Passed });
    test.log = Some(write_log(&logs, TEST, &lines)?);
    test.seconds = seconds(began, ended);
    let mut rows = vec![Row { test, excerpt: Vec::new(), ran: Some((began, ended)) }];
    // What is gone or changed no pod is to blame for.
    let (waited, others): (Vec<_>, Vec<_>) = seen.iter().partition(|one| one.waited);
    rows.extend(waited.iter().map(|one| one.row(&logs)).collect::<Result<Vec<_>>>()?);
    evidence.judge(&mut rows, &logs);
    rows.extend(others.iter().map(|one| one.row(&logs)).collect::<Result<Vec<_>>>()?);
    attempts::lay_over(&mut rows[1..], &outages, ended);
    let (_, cause) = report::verdict(rows.iter().map(|row| &row.test));
    let line = rows.iter().find(|row| cause.is_some() && row.test.cause == cause).and_then(|row| row.test.line.clone());
    (rows[0].test.cause, rows[0].test.line) = (cause, line);
    rows.rotate_left(1);
    Ok(rows)
}

/// Something that makes a name new.
fn salt() -> String {
    rundir::new_run_id().rsplit('-').next().unwrap_or_default().to_owned()
}

/// By which a run knows its namespaces of a component on a platform again.
fn mark(record: &Upgrade) -> String {
    let of = format!("{}\n{}\n{}", record.head.run, record.component, record.platform);
    digest::hex(of.as_bytes())[..16].to_owned()
}
