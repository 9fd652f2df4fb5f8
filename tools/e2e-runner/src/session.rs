//! `e2e-runner run`: from a component's name to its results on a cluster.

use std::{collections::BTreeSet, path::Path, time::Duration};

use jiff::Timestamp;
use kit::{
    Cause, Context, Done, Error, Outcome, Output, Platform, Result, RunDir, Ui, dirs,
    record::{Input, Nature, Results, SourceChange, Stretch},
    rundir, ui,
};
use tokio::runtime::Runtime;

use crate::{
    arrange::{self, Arranged},
    builds::Builds,
    compare::SOURCES,
    environment::Values,
    evidence::Evidence,
    home::Home,
    leaves,
    options::{Kind, PrepareArgs, RunArgs},
    pace::Pace,
    parse::{self, log::Allowance},
    place::{Installed, Place},
    plan::{self, Plan},
    program, report,
    rounds::{Came, Rounds},
    script,
    settings::Settings,
    unit, upgrade,
};

/// Compiles the tests of a component, so that a later run finds them.
///
/// # Errors
/// As [`program::prepare`].
pub fn prepare(args: &PrepareArgs, ui: &Ui) -> Result<Done> {
    let ci = args.ci.open()?;
    let component = plan::of_kind(ci.component(&args.component)?, args.kind, &args.tags);
    let pace = Pace::new(args.slowdown, None);
    // Without a default suite, or of examples, it is the tests' own package.
    let suite = match component.suite(args.suite.as_deref()) {
        Err(error) if args.suite.is_some() => return Err(error),
        suite => suite.map(|(_, suite)| suite.clone()).unwrap_or_default(),
    };
    let program = program::prepare(&ci, &args.component, args.kind, &component, &suite, &pace, ui)?;
    let builds = Builds::of(&ci, &args.component, &component, ui)?.make(ui)?;
    let tests = program.list()?;
    match ui.output {
        Output::Json => ui.json(&serde_json::json!({
            "component": args.component, "program": program.path, "package": program.package,
            "compiled": program.compiled, "changes": program.changes, "tests": tests, "builds": builds.paths(),
        }))?,
        Output::Text => ui.result(&program.path.display().to_string())?,
    }
    Ok(Done::good())
}

/// Runs the tests and leaves their results in the run directory, whatever becomes of them.
///
/// # Errors
/// What kept the tests from running, or the signal that ended them. Tests that fail are no error.
pub fn run(args: &RunArgs, ui: &Ui) -> Result<Done> {
    let mut plan = Plan::new(args)?;
    if args.dry_run {
        return match args.kind {
            Kind::E2e | Kind::Examples => plan::dry_run(&plan, ui),
            Kind::Unit => unit::dry_run(&plan, ui),
            Kind::Script => script::dry_run(&plan, ui),
            Kind::Upgrade => upgrade::dry_run(&plan, ui),
        };
    }
    let folder = match &args.run_dir {
        Some(folder) => folder.clone(),
        None => dirs::workspace()?.join("target/runs").join(rundir::new_run_id()),
    };
    let run_dir = RunDir::create(folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.cause(Cause::Internal, || "cannot start the runtime")?;
    let run = run_dir.id();
    let open = Place::open(&args.cluster, args.platform.as_ref(), &run, args.shard, ui);
    let place = runtime.block_on(cluster::interruptible(open));
    let mut results = plan.empty(&run);
    let name = match &place {
        Ok(place) => place.opened.name.clone(),
        Err(_) => args.cluster.name().unwrap_or_else(|| "unknown".into()),
    };
    if let Ok(place) = &place {
        (results.platform, results.nature) = (place.platform.clone(), place.nature);
        results.cluster.clone_from(&place.id.uid);
    }
    let cell = run_dir.cell(&args.component, &results.platform, &name);
    let home = Home::new(&cell, args.kind, args.shard);
    let done = place.and_then(|mut place| {
        let at = At { runtime: &runtime, run: &run_dir, cell: &cell, home: &home, ui };
        let done = match args.kind {
            Kind::E2e | Kind::Examples => in_place(&mut plan, &mut place, &at, &mut results, None),
            Kind::Unit => unit::in_place(&mut plan, &mut place, &at, &mut results),
            Kind::Script => script::in_place(&mut plan, &mut place, &at, &mut results),
            Kind::Upgrade => upgrade::in_place(&mut plan, &mut place, &at, &mut results),
        };
        runtime.block_on(place.give_back(ui));
        done
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    let error = match done {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    // With a wrong call there is nothing to say about the component.
    if error.cause != Cause::Usage && !error.what.iter().any(|what| what == RECORDED) {
        results.head = results.head.clone().failed(&error).reproduce(plan.again(None, &results));
        results.head.finished = Timestamp::now();
        home.write(&results)?;
    }
    Err(error)
}

/// What the work on a cluster has at hand.
pub(crate) struct At<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) run: &'a RunDir,
    /// The folder of the component on that platform of that cluster.
    pub(crate) cell: &'a Path,
    pub(crate) home: &'a Home,
    pub(crate) ui: &'a Ui,
}

/// Marks an error whose record is written.
const RECORDED: &str = "the tests were stopped";

/// What all kinds of tests need before they begin: who holds the cluster, what is installed, how slow nodes are.
pub(crate) fn begin(
    plan: &Plan<'_>,
    place: &mut Place,
    at: &At<'_>,
    results: &mut Results,
) -> Result<(Installed, Pace)> {
    let installed = if plan.component.config.is_some() {
        place.installed(at.cell)?
    } else {
        let (name, needs) = (&plan.args.component, &plan.component.needs);
        at.runtime.block_on(cluster::interruptible(place.installed_needs(name, needs, at.run)))?
    };
    results.nature = installed.nature.unwrap_or(place.nature);
    results.release.clone_from(&installed.release);
    results.head.inputs.extend(installed.inputs.iter().cloned());
    results.head.inputs.extend(plan.inputs.iter().cloned());
    let run = results.head.run.clone();
    if let Some(release) = &plan.args.release {
        let holds = place.holds(&plan.args.component, release, &installed);
        at.runtime.block_on(cluster::interruptible(holds))?;
    }
    at.runtime.block_on(cluster::interruptible(place.hold(&run)))?;
    let pace = Pace::new(plan.args.slowdown, installed.slowdown);
    Ok((installed, pace))
}

/// Runs a suite; before it, of an upgrade, the look at what was made before.
pub(crate) fn in_place(
    plan: &mut Plan<'_>,
    place: &mut Place,
    at: &At<'_>,
    results: &mut Results,
    check: Option<&upgrade::Check>,
) -> Result<Done> {
    let At { runtime, home, ui, .. } = *at;
    let (installed, pace) = begin(plan, place, at, results)?;
    plan.choose_suite(results.nature == Nature::Emulated)?;
    plan.suite_name().clone_into(&mut results.suite);
    let builds = plan.builds(ui)?.make(ui)?;
    let Plan { args, ci, component, suite, .. } = &*plan;
    let program = program::prepare(ci, &args.component, args.kind, component, suite, &pace, ui)?;
    results.head.inputs.push(Input { name: SOURCES.into(), digest: program.sources.clone() });
    results.conditions.stretch = stretch(&pace, &program.changes);
    // Emulated nodes are machines of their own, whose store nobody fills.
    let lab = place.opened.lab.is_some() && place.platform == Platform::host();
    let (selection, whole) = plan.select(&program, &place.platform, lab, ui)?;
    results.whole = whole;
    let registry = place.opened.lab.as_ref().map(|lab| lab.registry.clone());
    let values = plan.values(place.opened.kubeconfig.clone(), &place.platform, registry);
    let values = Values { builds: builds.paths(), ..values };
    let server = place.opened.server.trim_end_matches('/').rsplit("//").next().map(String::from);
    let mut runner = plan.runner(&program, &selection, &values, home.logs(), server.as_deref(), &pace)?;
    runner.turns = place.turns.clone();
    let manifests = plan.component.tests.as_ref().map(|tests| tests.manifests.clone()).unwrap_or_default();
    if !manifests.is_empty() {
        let root = kit::source::checkout(&plan.ci, &plan.component, ui)?.dir;
        runtime.block_on(cluster::interruptible(place.apply(&root, &manifests, ui)))?;
    }
    if place.here.is_first() {
        recover(plan, place, runtime, ui)?;
    }
    place.here.stay()?;
    results.conditions.test_limit = Some(runner.limits.record());
    runner.record(&selection.asked)?;
    let came = observed(plan, place, at, results, check.map(upgrade::Check::namespace), |evidence| {
        let mut before = check.map(|check| check.rows(place, at, evidence)).transpose()?.unwrap_or_default();
        let rounds = Rounds {
            runner: &runner,
            selection: &selection,
            suite: &plan.suite,
            namespace: plan.namespace(),
            others: plan.earlier,
            second_attempt: !plan.args.no_second_attempt && !plan.args.fail_fast,
            by_leaves: plan.args.kind == Kind::Examples,
            shadow: plan.args.shadow,
            evidence,
            name: &format!("{} {} on {}", plan.args.component, plan.suite_name(), place.opened.name),
            runtime,
            ui,
        };
        let came = rounds.run(place)?;
        before.extend(came.rows);
        Ok(Came { rows: before, ..came })
    })?;
    say_cut(results, &runner.allowance, ui);
    conclude(plan, results, came, at, &installed)
}

/// Does `work` while it is kept what the cluster holds, and nodes of other platforms take no pods. The namespace `known`
/// is the tests' although it is there already.
pub(crate) fn observed(
    plan: &Plan<'_>,
    place: &Place,
    at: &At<'_>,
    results: &mut Results,
    known: Option<&str>,
    work: impl FnOnce(&Evidence) -> Result<Came>,
) -> Result<Came> {
    let At { runtime, home, ui, .. } = *at;
    let evidence = Evidence::start(&place.opened.client, plan.namespace(), known, &place.platform, ui);
    let evidence = runtime.block_on(cluster::interruptible(evidence))?;
    let run = results.head.run.clone();
    let (mut came, Arranged { set_aside, seen, rows }) =
        arrange::around(place, &run, known, runtime, ui, || work(&evidence))?;
    came.rows.extend(rows);
    (results.conditions.set_aside, results.conditions.pods) = (set_aside, seen.platforms());
    if came.signal.is_none() {
        let collect = async { Ok(evidence.finish(&mut came.rows, home, ui).await) };
        match runtime.block_on(cluster::interruptible(collect)) {
            Ok(collected) => results.evidence = collected,
            Err(error) => came.signal = error.signal,
        }
    }
    Ok(came)
}

/// Says what is missing of the tests' logs, so that the run directory stays below a limit.
pub(crate) fn say_cut(results: &mut Results, allowance: &Allowance, ui: &Ui) {
    if let Some(cut) = allowance.cut() {
        ui.warn(&cut);
        results.evidence.get_or_insert_default().cut.push(cut);
    }
}

/// How limits are stretched, for the record.
pub(crate) fn stretch(pace: &Pace, changes: &[SourceChange]) -> Option<Stretch> {
    let stretch = Stretch {
        slowdown: pace.slowdown,
        source: pace.source.into(),
        factor: pace.factor(),
        changes: changes.to_vec(),
    };
    (pace.factor() > 1).then_some(stretch)
}

/// Puts back what a run that was killed has set.
fn recover(plan: &Plan<'_>, place: &Place, runtime: &Runtime, ui: &Ui) -> Result<()> {
    let Some(namespace) = plan.namespace() else { return Ok(()) };
    let settings = Settings::of(place.opened.client.clone(), namespace);
    for map in runtime.block_on(cluster::interruptible(settings.put_back()))? {
        ui.note(format!("put back as it was before a run that was killed: ConfigMap {namespace}/{map}"));
    }
    Ok(())
}

/// Writes the record, JUnit and the summary.
pub(crate) fn conclude(
    plan: &Plan<'_>,
    results: &mut Results,
    came: Came,
    at: &At<'_>,
    installed: &Installed,
) -> Result<Done> {
    let At { home, ui, .. } = *at;
    let Came { mut rows, rounds, signal, diagnosis } = came;
    // What failed as a whole need not be a package: a cluster, a file.
    let tests = rows.iter().filter(|row| row.test.name != report::PACKAGE);
    let packages: BTreeSet<_> = tests.map(|row| row.test.package.clone()).collect();
    for row in &mut rows {
        let name = &row.test.name;
        // An example runs by itself.
        let test =
            if plan.args.kind == Kind::Examples { leaves::exactly(name) } else { parse::event::top(name).to_owned() };
        let again = (name != report::PACKAGE).then_some(test.as_str());
        let package = packages.get(&row.test.package).map(String::as_str);
        let command = row.test.cause.map(|_| plan.again_in(again, package, results));
        row.test.reproduce = command;
        row.test.log = row.test.log.take().map(|log| home.seen(&log));
    }
    results.conditions.diagnosis = diagnosis;
    results.tests = rows.iter().map(|row| row.test.clone()).collect();
    (results.counts, results.all_counts) = report::count(&results.tests);
    results.conditions.rounds = if plan.suite.changes_settings() { rounds } else { Vec::new() };
    let (exit, cause) = report::verdict(&results.tests);
    let mut head = results.head.clone();
    head.finished = Timestamp::now();
    head.cause = cause;
    if let Some(cause) = cause.filter(|cause| *cause != Cause::Flaky) {
        head.outcome = Outcome::Failed;
        let first = results.tests.iter().find(|test| test.cause == Some(cause));
        head.line = first.and_then(|test| test.line.clone());
        head.reproduce = first.and_then(|test| test.reproduce.clone());
    }
    let interrupted = signal.map(|number| Error::interrupted(number).within(RECORDED));
    if let Some(error) = &interrupted {
        head = head.failed(error);
    }
    results.head = head;
    let written = home.write_junit(results, &rows).and_then(|()| home.write(results));
    // Who cannot keep the results gets to see them all the same.
    match ui.output {
        Output::Json => ui.json(&results)?,
        Output::Text => ui.result(&report::summary(results, &rows, home.folder()))?,
    }
    let digest = written?;
    let took = results.head.finished.duration_since(results.head.started);
    let took = ui::duration(took.try_into().unwrap_or_default());
    ui.note(format!("{} in {took}; release: {}", home.record().display(), installed.in_words()));
    match interrupted {
        Some(error) => Err(error),
        None => Ok(Done { cause, exit: Some(exit), digest: Some(digest), ..Done::default() }),
    }
}
