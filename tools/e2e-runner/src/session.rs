//! `e2e-runner run`: from a component's name to its results on a cluster.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use jiff::Timestamp;
use kit::{
    Cause, Context, Done, Error, Outcome, Output, Platform, Result, RunDir, Ui,
    ci::{Ci, Component, Round, Suite},
    dirs,
    process::Stopper,
    record::{Conditions, Counts, Head, Nature, Results},
    rundir, ui,
};
use tokio::runtime::Runtime;

use crate::{
    TOOL, VERSION,
    cause::Judge,
    environment::{self, Values},
    junit,
    options::{PrepareArgs, RunArgs},
    passes::Runner,
    place::{Installed, Place},
    program::{self, Program},
    report,
    rounds::{Came, Rounds},
    select::{self, Choice, Selection, Wanted},
    settings::Settings,
};

/// Compiles the tests of a component, so that a later run finds them.
///
/// # Errors
/// As [`program::prepare`].
pub fn prepare(args: &PrepareArgs, ui: &Ui) -> Result<Done> {
    let ci = args.ci.open()?;
    let component = ci.component(&args.component)?;
    let program = program::prepare(&ci, &args.component, &component, ui)?;
    let tests = program.list()?;
    match ui.output {
        Output::Json => ui.json(&serde_json::json!({
            "component": args.component, "program": program.path, "package": program.package,
            "compiled": program.compiled, "tests": tests,
        }))?,
        Output::Text => ui.result(&program.path.display().to_string())?,
    }
    Ok(Done::good())
}

/// What is known before a cluster is opened.
struct Plan<'a> {
    args: &'a RunArgs,
    ci: Ci,
    component: Component,
    wanted: Wanted,
    suite_name: String,
    suite: Suite,
    started: Timestamp,
}

impl<'a> Plan<'a> {
    fn new(args: &'a RunArgs) -> Result<Self> {
        // What can be wrong with the call is said before anything is built or opened.
        let wanted = Wanted::new(&args.tests)?;
        let ci = args.ci.open()?;
        let component = ci.component(&args.component)?;
        program::section(&ci, &args.component, &component)?;
        let (name, named) = component.suite(args.suite.as_deref())?;
        // Tests that are named need not be in the default suite.
        let everything = args.suite.is_none() && !wanted.is_empty();
        let suite = if everything { Suite { all: true, ..Suite::default() } } else { named.clone() };
        let suite_name = name.to_owned();
        Ok(Self { args, ci, component, wanted, suite_name, suite, started: Timestamp::now() })
    }

    /// The name for records: what `--tests` chose is not the suite.
    fn suite_name(&self) -> &str {
        if self.wanted.is_empty() { &self.suite_name } else { "selection" }
    }

    /// Where the component lives.
    fn namespace(&self) -> Option<&str> {
        self.component.tests.as_ref().and_then(|tests| tests.namespace.as_deref())
    }

    /// The command that runs this again.
    fn again(&self, test: Option<&str>) -> String {
        self.args.again(test, self.suite.changes_settings().then_some(self.suite_name.as_str()))
    }

    fn select(&self, program: &Program, platform: &Platform, lab: bool, ui: &Ui) -> Result<Selection> {
        let skips = self.ci.skips()?.skip;
        let today = jiff::Zoned::now().date();
        let (component, suite_name, wanted) = (&self.args.component, &self.suite_name, &self.wanted);
        let choice = Choice { component, suite_name, suite: &self.suite, skips: &skips, platform, lab, wanted, today };
        let selection = select::choose(&choice, &program.list()?)?;
        for unknown in &selection.unknown {
            ui.warn(format!("ci/skips.toml: {component} has no test {unknown}"));
        }
        for expired in &selection.expired {
            ui.warn(format!("ci/skips.toml: its time is over: {expired}"));
        }
        Ok(selection)
    }

    fn runner<'r>(
        &self,
        program: &'r Program,
        selection: &'r Selection,
        values: &Values,
        logs: PathBuf,
        server: Option<&str>,
    ) -> Result<Runner<'r>> {
        let tests = program::section(&self.ci, &self.args.component, &self.component)?;
        let fill = |words: &[String]| words.iter().map(|word| values.fill(word)).collect::<Result<Vec<_>>>();
        let programs = environment::programs(&self.component)?;
        let chosen = &self.args.env;
        let limit = self.args.timeout.or(self.suite.limit()?.filter(|_| self.wanted.is_empty()));
        Ok(Runner {
            program,
            selection,
            arguments: fill(&tests.args)?,
            passes: tests.passes.iter().map(|pass| fill(pass)).collect::<Result<_>>()?,
            parallel: tests.parallel,
            environment: environment::variables(
                &tests.env,
                values,
                chosen,
                &programs,
                &program.go_bin,
                &program.folder,
            )?,
            logs,
            deadline: limit.map(|limit| Instant::now() + limit),
            silence: self.args.silence,
            fail_fast: self.args.fail_fast,
            stopper: Stopper::default(),
            judge: Judge::new(server),
        })
    }

    fn values(&self, kubeconfig: PathBuf, platform: &Platform, registry: Option<String>) -> Values {
        let repo = self.args.repo.clone();
        let host = repo.as_ref().and_then(|repo| repo.split('/').next()).map(String::from);
        let namespace = self.namespace().map(String::from);
        Values {
            kubeconfig,
            platform: platform.clone(),
            repo: repo.or_else(|| registry.clone()),
            registry: registry.or(host),
            namespace,
        }
    }

    fn empty(&self, run: &str) -> Results {
        Results {
            head: Head::new(TOOL, VERSION, run, self.started),
            component: self.args.component.clone(),
            version: self.component.version().to_owned(),
            kind: "e2e".into(),
            suite: self.suite_name().to_owned(),
            platform: self.args.platform.clone().unwrap_or_else(Platform::host),
            nature: Nature::Unknown,
            cluster: String::new(),
            release: None,
            counts: Counts::default(),
            all_counts: Counts::default(),
            conditions: Conditions::default(),
            tests: Vec::new(),
            shard: (1, 1),
        }
    }
}

/// Runs the tests and leaves their results in the run directory, whatever becomes of them.
///
/// # Errors
/// What kept the tests from running, or the signal that ended them. Tests that fail are no error.
pub fn run(args: &RunArgs, ui: &Ui) -> Result<Done> {
    let plan = Plan::new(args)?;
    if args.dry_run {
        return dry_run(&plan, ui);
    }
    let folder = match &args.run_dir {
        Some(folder) => folder.clone(),
        None => dirs::workspace()?.join("target/runs").join(rundir::new_run_id()),
    };
    let run_dir = RunDir::create(folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.cause(Cause::Internal, || "cannot start the runtime")?;
    let mut results = plan.empty(&run_dir.id());
    let place = runtime.block_on(cluster::interruptible(Place::open(&args.cluster, args.platform.as_ref(), ui)));
    let name = match &place {
        Ok(place) => place.opened.name.clone(),
        Err(_) => args.cluster.name().unwrap_or_else(|| "unknown".into()),
    };
    if let Ok(place) = &place {
        (results.platform, results.nature) = (place.platform.clone(), place.nature);
        results.cluster.clone_from(&place.id.uid);
    }
    let cell = run_dir.cell(&args.component, &results.platform, &name);
    let done = place.and_then(|mut place| {
        let done = in_place(&plan, &mut place, &runtime, &cell, &mut results, ui);
        runtime.block_on(place.give_back(ui));
        done
    });
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    let error = match done {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    // With a wrong call there is nothing to say about the component.
    if error.cause != Cause::Usage && !error.what.iter().any(|what| what == RECORDED) {
        results.head = results.head.clone().failed(&error).reproduce(plan.again(None));
        results.head.finished = Timestamp::now();
        rundir::write_record(&cell, &results)?;
    }
    Err(error)
}

/// Marks an error whose record is written.
const RECORDED: &str = "the tests were stopped";

fn in_place(
    plan: &Plan<'_>,
    place: &mut Place,
    runtime: &Runtime,
    cell: &Path,
    results: &mut Results,
    ui: &Ui,
) -> Result<Done> {
    let installed = place.installed(cell)?;
    results.release.clone_from(&installed.release);
    results.head.inputs.extend(installed.input.clone());
    let run = results.head.run.clone();
    runtime.block_on(cluster::interruptible(place.hold(&run)))?;
    let program = program::prepare(&plan.ci, &plan.args.component, &plan.component, ui)?;
    let selection = plan.select(&program, &place.platform, place.opened.lab.is_some(), ui)?;
    let registry = place.opened.lab.as_ref().map(|lab| lab.registry.clone());
    let values = plan.values(place.opened.kubeconfig.clone(), &place.platform, registry);
    let server = place.opened.server.trim_end_matches('/').rsplit("//").next().map(String::from);
    let runner = plan.runner(&program, &selection, &values, cell.join("logs"), server.as_deref())?;
    let manifests = plan.component.tests.as_ref().map(|tests| tests.manifests.clone()).unwrap_or_default();
    if !manifests.is_empty() {
        let root = kit::source::checkout(&plan.ci, &plan.component, ui)?.dir;
        runtime.block_on(cluster::interruptible(place.apply(&root, &manifests, ui)))?;
    }
    recover(plan, place, runtime, ui)?;
    runner.record(&selection.asked)?;
    let rounds = Rounds {
        runner: &runner,
        selection: &selection,
        suite: &plan.suite,
        namespace: plan.namespace(),
        second_attempt: !plan.args.no_second_attempt && !plan.args.fail_fast,
        name: &format!("{} {} on {}", plan.args.component, plan.suite_name(), place.opened.name),
        runtime,
        ui,
    };
    let came = rounds.run(place)?;
    conclude(plan, results, came, cell, &installed, ui)
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
fn conclude(
    plan: &Plan<'_>,
    results: &mut Results,
    came: Came,
    cell: &Path,
    installed: &Installed,
    ui: &Ui,
) -> Result<Done> {
    let Came { mut rows, rounds, signal } = came;
    for row in &mut rows {
        let top = crate::parse::event::top(&row.test.name).to_owned();
        let again = (row.test.name != report::PACKAGE).then_some(top.as_str());
        row.test.reproduce = row.test.cause.map(|_| plan.again(again));
    }
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
    let written = junit::write(&cell.join("junit.xml"), results, &rows);
    let written = written.and_then(|()| rundir::write_record(cell, results));
    // Who cannot keep the results gets to see them all the same.
    match ui.output {
        Output::Json => ui.json(&results)?,
        Output::Text => ui.result(&report::summary(results, &rows, cell))?,
    }
    let digest = written?;
    let release = installed.release.as_deref().unwrap_or("no install.json");
    let took = results.head.finished.duration_since(results.head.started);
    let took = ui::duration(took.try_into().unwrap_or_default());
    ui.note(format!("{} in {took}; release: {release}", cell.join("results.json").display()));
    match interrupted {
        Some(error) => Err(error),
        None => Ok(Done { cause, exit: Some(exit), digest: Some(digest) }),
    }
}

/// What would run: nothing is opened, and `{kubeconfig}` stays a placeholder.
fn dry_run(plan: &Plan<'_>, ui: &Ui) -> Result<Done> {
    let program = program::prepare(&plan.ci, &plan.args.component, &plan.component, ui)?;
    let platform = plan.args.platform.clone().unwrap_or_else(Platform::host);
    let lab = matches!(plan.args.cluster.source(), Ok(cluster::Source::Lab(_)));
    let selection = plan.select(&program, &platform, lab, ui)?;
    let values = plan.values("KUBECONFIG-OF-THE-CLUSTER".into(), &platform, Some("REGISTRY".into()));
    let runner = plan.runner(&program, &selection, &values, PathBuf::new(), None)?;
    let round =
        |round: &Round| serde_json::json!({"name": round.name, "settings": plan.suite.settings_of(Some(round))});
    let rounds: Vec<_> = plan.suite.rounds.iter().map(round).collect();
    match ui.output {
        Output::Json => ui.json(&serde_json::json!({
            "component": plan.args.component, "suite": plan.suite_name(), "platform": platform.to_string(),
            "asked": selection.asked, "excluded": selection.excluded, "settings": plan.suite.settings,
            "rounds": rounds, "script": runner.describe(&selection.asked),
        }))?,
        Output::Text => {
            let mut text = format!("# {} tests of {}:\n", selection.asked.len(), plan.suite_name());
            text.extend(selection.asked.iter().map(|test| format!("#   {test}\n")));
            text.push_str(&format!("# left out: {}\n", selection.excluded.len()));
            text.extend(selection.excluded.iter().map(|(test, reason)| format!("#   {test}: {reason}\n")));
            text.push_str(&settings_in_words(&plan.suite));
            ui.result(&(text + &runner.describe(&selection.asked)))?;
        }
    }
    Ok(Done::good())
}

fn settings_in_words(suite: &Suite) -> String {
    let mut text = String::new();
    for round in std::iter::once(None).chain(suite.rounds.iter().map(Some)) {
        let set = suite.settings_of(round);
        let set =
            set.iter().flat_map(|(map, values)| values.iter().map(move |(key, value)| format!("{map}/{key}={value}")));
        let set: Vec<_> = set.collect();
        match round {
            None if set.is_empty() => {}
            None => text.push_str(&format!("# set for all: {}\n", set.join(", "))),
            Some(round) => text.push_str(&format!(
                "# those that skip themselves, once more with {}: {}\n",
                round.name,
                set.join(", ")
            )),
        }
    }
    text
}
