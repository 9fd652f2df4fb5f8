//! `run --kind unit`: a component's unit tests on the wanted architecture. Each package's test program is compiled here
//! for the nodes, put into an image together with the sources, and runs as a pod in the package's folder.
//!
//! What follows is as with any other tests: `in-pod` stands in for the program and passes on what it prints.

mod follow;
mod image;
mod packages;
mod pod;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kit::{
    Cause, Context, Done, Error, Output, Platform, Result, Ui,
    ci::{Skip, Suite, Unit, parse_duration},
    process::Stopper,
    record::{Input, Results},
    source,
};

use crate::{
    attempts,
    cause::Judge,
    compare::SOURCES,
    diagnose,
    environment::{self, Values},
    health::Watch,
    hung::Limits,
    pace::Pace,
    parse::log::Allowance,
    passes::{self, Ran, Runner},
    place::Place,
    plan::{self, Plan},
    program::{self, Program},
    report::{self, PACKAGE},
    rounds::{Attempts, Before, Came},
    select::{self, Choice, Selection},
    session::{self, At},
    settle,
    turns::Turns,
};
use packages::Package;
pub use pod::{InPodArgs, in_pod};

/// How long the tests of a package may take, unless its component says otherwise: as `go test` has it.
const LIMIT: Duration = Duration::from_mins(10);
/// How long they may print nothing.
const SILENCE: Duration = Duration::from_mins(10);
/// How much longer than its program and its beginning may take a pod is let alone, before the cluster ends it.
const LATE: Duration = Duration::from_mins(2);
/// Where the program lies in its image.
const PROGRAM: &str = "/unit.test";
/// Where in its image what starts it lies.
const START: &str = "/start";
/// Who the program runs as, and whose its sources are there.
const USER: u64 = 65532;

/// The unit tests' section of a component, and its name.
///
/// # Errors
/// [`Cause::NothingRan`] if it has none, [`Cause::Usage`] for options that are not for it.
pub(crate) fn section<'p>(plan: &'p Plan<'_>) -> Result<(String, &'p Unit)> {
    let name = &plan.args.component;
    let unit = plan.component.unit.as_ref().ok_or_else(|| {
        Error::new(Cause::NothingRan, format!("component '{name}' has no unit tests"))
            .next(format!("add [{name}.unit] to {}", plan.ci.folder().join("components.toml").display()))
    })?;
    Ok(("unit".into(), unit))
}

/// The packages that are asked for, with the tests of each; those without any wanted test are left out.
fn chosen(plan: &Plan<'_>, platform: &Platform, ui: &Ui) -> Result<(source::Checkout, Vec<(Package, Selection)>)> {
    let (_, unit) = section(plan)?;
    let checkout = source::checkout(&plan.ci, &plan.component, ui)?;
    let patterns = if plan.args.package.is_empty() { &unit.packages } else { &plan.args.package };
    let packages = packages::list(&checkout, patterns, &unit.tags, platform)?;
    let (skips, suite) = (plan.ci.skips()?.skip, Suite { all: true, ..Suite::default() });
    let today = plan::today();
    let choose = |package: &Package| {
        let choice = Choice {
            component: &plan.args.component,
            version: plan.component.version(),
            suite_name: "unit",
            suite: &suite,
            skips: &skips,
            platform,
            lab: false,
            wanted: &plan.wanted,
            today,
        };
        select::among(&choice, &package.tests)
    };
    let (mut chosen, mut unknown) = (Vec::new(), None);
    for package in packages {
        let selection = choose(&package)?;
        let of_it: BTreeSet<String> = selection.unknown.iter().cloned().collect();
        unknown = Some(unknown.map_or(of_it.clone(), |others: BTreeSet<String>| &others & &of_it));
        let left_out = !(selection.excluded.is_empty() && selection.expired.is_empty());
        if left_out || !selection.asked.is_empty() {
            chosen.push((package, selection));
        }
    }
    let names_unit = |skip: &Skip| skip.suites.iter().any(|suite| suite == "unit");
    let of_unit: Vec<_> = skips.iter().filter(|skip| names_unit(skip)).flat_map(|skip| &skip.tests).collect();
    // An entry without a suite may be about tests of another kind, and one package does not have another one's tests.
    let unknown = unknown.unwrap_or_default().into_iter().filter(|name| of_unit.contains(&name));
    for name in unknown.filter(|_| plan.args.package.is_empty()) {
        ui.warn(format!("ci/skips.toml: no package of {} has a test {name}", plan.args.component));
    }
    if chosen.iter().all(|(_, selection)| selection.asked.is_empty()) {
        let what = format!("no unit tests selected in {}", patterns.join(" "));
        return Err(Error::new(Cause::NothingRan, what).next("see --tests, --package and ci/components.toml"));
    }
    Ok((checkout, chosen))
}

/// Says what would run: nothing is compiled or opened.
///
/// # Errors
/// What is wrong with the call or the sources.
pub(crate) fn dry_run(plan: &Plan<'_>, ui: &Ui) -> Result<Done> {
    let platform = plan.args.platform.clone().unwrap_or_else(Platform::host);
    let (checkout, chosen) = chosen(plan, &platform, ui)?;
    let (_, unit) = section(plan)?;
    let values = plan.values("KUBECONFIG-OF-THE-CLUSTER".into(), &platform, Some("REGISTRY".into()));
    let env = variables(plan, unit, &values)?;
    let programs: Vec<_> = chosen
        .iter()
        .map(|(package, selection)| Ok((package, selection, selection.arguments(&selection.asked)?)))
        .collect::<Result<_>>()?;
    let rows = programs.iter().map(|(package, selection, arguments)| {
        serde_json::json!({
            "package": package.path, "folder": checkout.dir.join(&package.folder), "asked": selection.asked,
            "excluded": selection.excluded, "arguments": arguments,
        })
    });
    let shown: BTreeMap<_, _> = env.iter().map(|(name, value)| (name, kit::secrets::shown(name, value))).collect();
    match ui.output {
        Output::Json => ui.json(&serde_json::json!({
            "component": plan.args.component, "kind": "unit", "platform": platform.to_string(),
            "environment": shown, "base": unit.base, "packages": rows.collect::<Vec<_>>(),
        }))?,
        Output::Text => {
            let mut text =
                format!("# unit tests as pods on {platform}, in {}\n", unit.base.as_deref().unwrap_or("no base"));
            text.push_str(&in_words(&env));
            for (package, selection, arguments) in &programs {
                let folder = checkout.dir.join(&package.folder).display().to_string();
                let words: Vec<_> = arguments.iter().map(|word| kit::process::quote(word)).collect();
                text.push_str(&format!("# {} tests of {}:\n", selection.asked.len(), package.path));
                text.extend(
                    selection.excluded.iter().map(|(test, reason)| format!("#   left out: {test}: {reason}\n")),
                );
                if selection.asked.is_empty() {
                    continue;
                }
                text.push_str(&format!("cd {}\n{PROGRAM} {}\n", kit::process::quote(&folder), words.join(" ")));
            }
            ui.result(text.trim_end())?;
        }
    }
    Ok(Done::good())
}

/// What the tests get in their environment.
fn variables(plan: &Plan<'_>, unit: &Unit, values: &Values) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::from([("HOME".to_owned(), "/tmp".to_owned())]);
    for (name, value) in &unit.env {
        all.insert(name.clone(), values.fill(value)?);
    }
    all.extend(plan.args.env.iter().cloned());
    Ok(all)
}

/// How long each test may take. While the connection is away nothing is heard of the tests, which go on.
fn test_limits(plan: &Plan<'_>, pace: &Pace) -> Limits {
    let limits = plan.test_limits(None, pace);
    if plan.args.test_timeout.is_some() { limits } else { limits.and(pod::AWAY) }
}

/// The environment as one could type it, but for secrets.
fn in_words(env: &BTreeMap<String, String>) -> String {
    let export = |(name, value): (&String, &String)| {
        format!("export {name}={}\n", kit::process::quote(&kit::secrets::shown(name, value)))
    };
    env.iter().map(export).collect()
}

/// Runs them on a cluster.
///
/// # Errors
/// What kept them from running, or the signal that ended them.
pub(crate) fn in_place(plan: &mut Plan<'_>, place: &mut Place, at: &At<'_>, results: &mut Results) -> Result<Done> {
    let (installed, pace) = session::begin(plan, place, at, results)?;
    let registry = place.opened.lab.as_ref().map(|lab| lab.registry.clone());
    let values = plan.values(place.opened.kubeconfig.clone(), &place.platform, registry);
    let repo = values.repo.clone().ok_or_else(|| {
        Error::new(Cause::Usage, "the nodes get the tests as an image, and no registry is named")
            .next("add --repo REGISTRY/PATH, which this machine can push to and the nodes can pull from")
    })?;
    let (checkout, chosen) = chosen(plan, &place.platform, at.ui)?;
    results.head.inputs.push(Input { name: SOURCES.into(), digest: program::sources(&checkout.source) });
    results.conditions.stretch = session::stretch(&pace, &[]);
    results.conditions.test_limit = Some(test_limits(plan, &pace).record());
    // The pods go on without an API server, and wait for it longer than tests do that need one.
    let watch = async { Watch::start(place.opened.client.clone(), &place.platform, Stopper::default()).only_nodes() };
    let watch = at.runtime.block_on(watch);
    let allowance = Arc::default();
    let work = Work { plan, place, at, pace, values, repo, checkout, allowance, watch: &watch };
    let mut came = Came::default();
    at.runtime.block_on(cluster::interruptible(pod::forget(&place.opened.client)))?;
    passes::clear(&at.home.logs())?;
    kit::rundir::write(&at.home.logs().join("_environment.txt"), work.environment_in_words()?.as_bytes())?;
    let starter = packages::starter(&work.place.platform)?;
    let images =
        image::Images::new(&work.checkout.dir, &starter, &work.place.platform, &work.repo, &plan.args.component)?;
    for (package, selection) in chosen.iter().filter(|(_, selection)| !selection.asked.is_empty()) {
        if came.signal.is_some() || work.enough(&came) {
            let ran = Ran { stopped: Some(work.why(&came)), ..Ran::default() };
            came.rows.extend(attempts::never_began(&selection.asked, &[], &package.path, &ran, &[vec![]]));
            continue;
        }
        match work.package(package, selection, &images, &came) {
            Ok((rows, signal)) => {
                if attempts::too_many(&rows) && signal.is_none() && came.diagnosis.is_empty() {
                    came.diagnosis = diagnose::ask(&rows, work.place, None, at.runtime, at.ui);
                }
                came.rows.extend(rows);
                came.signal = signal;
            }
            // One that does not compile says nothing of the others.
            Err(error) if error.signal.is_none() => came.rows.extend(failed(package, selection, &error)),
            Err(error) => {
                came.signal = error.signal;
                let ran = Ran { stopped: Some(work.why(&came)), ..Ran::default() };
                came.rows.extend(attempts::never_began(&selection.asked, &[], &package.path, &ran, &[vec![]]));
            }
        }
    }
    let left_out = |(package, selection): &(Package, Selection)| attempts::left_out(selection, &package.path);
    came.rows.extend(chosen.iter().flat_map(left_out));
    session::say_cut(results, &work.allowance, at.ui);
    settle::settle(&mut came, place, watch, at.runtime, at.ui);
    session::conclude(plan, results, came, at, &installed)
}

/// The rows of a package that did not come to run: its own, and those of its tests.
fn failed(package: &Package, selection: &Selection, error: &Error) -> Vec<report::Row> {
    let mut test = report::row(PACKAGE, &package.path, kit::record::Status::Failed);
    (test.cause, test.line) = (Some(error.cause), Some(error.summary()));
    let excerpt = error.line.iter().flat_map(|line| line.lines()).take(40).map(String::from).collect();
    let mut rows = vec![report::Row { test, excerpt, ran: None }];
    rows.extend(attempts::never_began(&selection.asked, &rows, &package.path, &Ran::default(), &[]));
    rows
}

struct Work<'a> {
    plan: &'a Plan<'a>,
    place: &'a Place,
    at: &'a At<'a>,
    pace: Pace,
    values: Values,
    repo: String,
    checkout: source::Checkout,
    /// Of the logs of all packages.
    allowance: Arc<Allowance>,
    watch: &'a Watch,
}

impl Work<'_> {
    fn unit(&self) -> Result<&Unit> {
        section(self.plan).map(|(_, unit)| unit)
    }

    fn environment_in_words(&self) -> Result<String> {
        let all = variables(self.plan, self.unit()?, &self.values)?;
        Ok(in_words(&all))
    }

    fn failures(&self, came: &Came) -> u32 {
        let failed =
            |row: &&report::Row| row.test.status == kit::record::Status::Failed && !row.test.name.contains('/');
        u32::try_from(came.rows.iter().filter(failed).count()).unwrap_or(u32::MAX)
    }

    /// How many failures end it.
    fn most(&self) -> Option<u32> {
        if self.plan.args.fail_fast { Some(1) } else { self.plan.args.max_failures }
    }

    fn enough(&self, came: &Came) -> bool {
        self.most().is_some_and(|most| self.failures(came) >= most)
    }

    fn why(&self, came: &Came) -> passes::Stopped {
        match came.signal {
            Some(number) => {
                passes::Stopped { cause: Some(Cause::Interrupted), why: format!("stopped by signal {number}") }
            }
            None => passes::Stopped {
                cause: None,
                why: format!("{} tests had failed before (--fail-fast, --max-failures)", self.failures(came)),
            },
        }
    }

    /// Compiles, sends and runs one package's tests; what failed runs a second time.
    fn package(
        &self,
        package: &Package,
        selection: &Selection,
        images: &image::Images,
        came: &Came,
    ) -> Result<(Vec<report::Row>, Option<i32>)> {
        let (unit, ui) = (self.unit()?, self.at.ui);
        let go = packages::compile(&self.checkout, package, &unit.tags, &self.place.platform, ui)?;
        let base = unit.base.as_deref().map(|base| self.values.fill(base)).transpose()?;
        let image = images.push(&go.file, base.as_deref(), &package.path, ui)?;
        let program = Program {
            path: PROGRAM.into(),
            folder: self.checkout.dir.join(&package.folder),
            package: package.path.clone(),
            go_bin: PathBuf::new(),
            test2json: go.test2json,
            compiled: true,
            changes: Vec::new(),
            sources: String::new(),
        };
        let limit = self.plan.args.timeout.map_or_else(
            || -> Result<Duration> {
                let said = unit.time_limit.as_deref().map(parse_duration).transpose()?;
                Ok(self.pace.stretch(said.unwrap_or(LIMIT)))
            },
            Ok,
        )?;
        let env = variables(self.plan, unit, &self.values)?;
        let runner = Runner {
            program: &program,
            selection,
            launcher: self.launcher(&image, &program, &env, limit)?,
            arguments: unit.args.iter().map(|word| self.values.fill(word)).collect::<Result<_>>()?,
            passes: vec![vec![]],
            parallel: None,
            environment: self.own_environment(&env)?,
            logs: self.at.home.logs(),
            allowance: Arc::clone(&self.allowance),
            deadline: Some(Instant::now() + limit + pod::START),
            limit: Some(limit),
            silence: self.plan.args.silence.unwrap_or_else(|| self.pace.stretch(SILENCE)),
            limits: test_limits(self.plan, &self.pace),
            max_failures: self.most().map(|most| most.saturating_sub(self.failures(came)).max(1)),
            stopper: Stopper::default(),
            judge: Judge::default().of_launcher().of_units(),
            turns: Turns::default(),
        };
        let args = self.plan.args;
        let attempts = Attempts {
            runner: &runner,
            name: &package.path,
            before: Before::default(),
            second_attempt: !args.no_second_attempt && !args.fail_fast,
            by_leaves: false,
            judge: &|rows| attempts::lay_over(rows, &self.watch.outages(), Timestamp::now()),
            // Its pods wait by themselves.
            comes_back: &|| Ok(false),
            runtime: self.at.runtime,
            ui,
        };
        let title = format!("{} on {}", package.path, self.place.platform);
        let (rows, ran) = attempts.run(&selection.asked, &title)?;
        Ok((rows, ran.signal))
    }

    /// The command that stands in for the program: this one, which runs it in a pod.
    fn launcher(
        &self,
        image: &str,
        program: &Program,
        env: &BTreeMap<String, String>,
        limit: Duration,
    ) -> Result<Vec<String>> {
        let me = std::env::current_exe().cause(Cause::Internal, || "cannot find this program's own file")?;
        let cluster = match &self.plan.args.cluster.lab {
            Some(lab) => vec!["--lab".to_owned(), lab.clone()],
            None if self.place.opened.lab.is_some() => Vec::new(),
            None => vec!["--kubeconfig".to_owned(), self.place.opened.kubeconfig.display().to_string()],
        };
        let mut words = vec![me.display().to_string(), "in-pod".into()];
        words.extend(cluster);
        words.extend(["--image".into(), image.to_owned(), "--platform".into(), self.place.platform.to_string()]);
        words.extend(["--folder".into(), program.folder.display().to_string()]);
        words.extend(["--limit".into(), (limit + pod::START + LATE).as_secs().to_string()]);
        words.extend(env.keys().flat_map(|name| ["--pass".to_owned(), name.clone()]));
        words.extend(["--".into(), START.into()]);
        Ok(words)
    }

    /// What `in-pod` needs itself, and what it passes on under the names with which the tests get it.
    fn own_environment(&self, env: &BTreeMap<String, String>) -> Result<BTreeMap<String, OsString>> {
        let none = BTreeMap::new();
        let folder = self.checkout.dir.clone();
        let mut all = environment::variables(&none, &self.values, &[], &[], &PathBuf::new(), &folder)?;
        for name in ["OTHER_ARCH_CACHE", "XDG_CACHE_HOME", "HTTPS_PROXY", "NO_PROXY", "https_proxy", "no_proxy"] {
            all.extend(std::env::var_os(name).map(|value| (name.to_owned(), value)));
        }
        all.extend(env.iter().map(|(name, value)| (pod::passed(name), value.into())));
        Ok(all)
    }
}
