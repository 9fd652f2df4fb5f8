//! What is to be run, as far as it is known before a cluster is opened; and saying that instead of doing it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kit::{
    Cause, Done, Error, Outcome, Output, Platform, Result, Ui,
    ci::{Ci, Component, Round, Suite},
    process::Stopper,
    record::{Conditions, Counts, Head, Input, Nature, Record, Results, Whole},
};

use crate::{
    TOOL, VERSION,
    builds::Builds,
    cause::Judge,
    environment::{self, Values},
    hung::Limits,
    options::{Kind, Learnt, RunArgs},
    pace::Pace,
    passes::Runner,
    program::{self, Program},
    runs::{self, Found},
    script,
    select::{self, Choice, Selection, Wanted},
    shard,
    turns::Turns,
    unit, upgrade,
};

/// How long a suite may take that says nothing of it, and a script.
pub(crate) const LIMIT: Duration = Duration::from_hours(2);
/// How long tests may print nothing.
const SILENCE: Duration = Duration::from_mins(10);

/// The component with the tests of that kind as its tests, compiled with these build tags if there are any.
pub(crate) fn of_kind(component: Component, kind: Kind, tags: &[String]) -> Component {
    let mut component = if kind == Kind::Examples { component.of_examples() } else { component };
    if !tags.is_empty() {
        let tests = component.tests.as_mut().map(|tests| &mut tests.tags);
        let unit = component.unit.as_mut().map(|unit| &mut unit.tags);
        tests.into_iter().chain(unit).for_each(|of| *of = tags.to_vec());
    }
    component
}

/// The day, for entries of the ledger: the same on all machines.
pub(crate) fn today() -> jiff::civil::Date {
    Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

fn input(found: &Found) -> Input {
    Input { name: format!("{} of run {}", Results::FILE, found.results.head.run), digest: found.digest.clone() }
}

/// What is known before a cluster is opened.
pub(crate) struct Plan<'a> {
    pub(crate) args: &'a RunArgs,
    pub(crate) ci: Ci,
    pub(crate) component: Component,
    pub(crate) wanted: Wanted,
    /// The suite of the record that `--only-failed` names.
    failed_in: Option<String>,
    /// How many tests have passed there; of examples, subtests.
    pub(crate) earlier: usize,
    /// What `--durations` names.
    known: Vec<Found>,
    /// What was read of earlier runs.
    pub(crate) inputs: Vec<Input>,
    suite_name: String,
    pub(crate) suite: Suite,
    started: Timestamp,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(args: &'a RunArgs) -> Result<Self> {
        // What can be wrong with the call is said before anything is built or opened.
        args.check()?;
        let wanted = Wanted::new(&args.tests, &args.skip)?;
        let ci = args.ci.open()?;
        let component = of_kind(ci.component(&args.component)?, args.kind, &args.tags);
        if matches!(args.kind, Kind::E2e | Kind::Examples) {
            program::section(&ci, &args.component, args.kind, &component)?;
        }
        let mut plan = Self {
            args,
            ci,
            component,
            wanted,
            failed_in: None,
            earlier: 0,
            known: Vec::new(),
            inputs: Vec::new(),
            suite_name: String::new(),
            suite: Suite::default(),
            started: Timestamp::now(),
        };
        if (args.kind == Kind::Upgrade) != args.phase.is_some() {
            return Err(Error::new(Cause::Usage, "--kind upgrade and --phase belong together"));
        }
        if args.kind == Kind::Upgrade {
            upgrade::section(&plan)?;
        }
        plan.read_earlier()?;
        match args.kind {
            Kind::E2e | Kind::Examples => plan.choose_suite(false)?,
            Kind::Unit => plan.suite_name = unit::section(&plan)?.0,
            Kind::Script => plan.suite_name = script::section(&plan)?.0,
            Kind::Upgrade if plan.component.tests.is_some() => plan.choose_suite(false)?,
            Kind::Upgrade => plan.suite_name = Kind::Upgrade.name().into(),
        }
        Ok(plan)
    }

    /// What `--only-failed` and `--durations` name.
    fn read_earlier(&mut self) -> Result<()> {
        let find = |place: &Path, platform| {
            let (component, kind) = (Some(self.args.component.as_str()), Some(self.args.kind.name()));
            runs::find(place, runs::Wanted { component, kind, platform })
        };
        if let Some(place) = &self.args.only_failed {
            let found = find(place, self.args.platform.as_ref())?;
            let wanted = self.wanted.clone().failed(&found);
            let nothing = wanted.names().is_none_or(BTreeSet::is_empty);
            // What failed as a whole says of no test that it did not.
            let whole = found.iter().any(Found::never_began)
                || (nothing && found.iter().any(|found| found.results.head.outcome == Outcome::Failed));
            if nothing && !whole {
                let what = format!("nothing of {} failed in {}", self.args.component, place.display());
                return Err(Error::new(Cause::NothingRan, what).next("leave out --only-failed to run all of it"));
            }
            self.inputs.extend(found.iter().map(input));
            let passed = |found: &Found| {
                let Results { counts, all_counts, .. } = &found.results;
                // Examples are subtests.
                let counts = if self.args.kind == Kind::Examples { all_counts } else { counts };
                counts.passed + counts.flaky
            };
            self.earlier = found.iter().map(passed).sum();
            let suites: BTreeSet<_> = found.iter().map(|found| found.results.suite.clone()).collect();
            // Of a suite that sets something, what failed must run with that again.
            let mut known = suites.into_iter().filter(|suite| self.component.suites.contains_key(suite));
            self.failed_in = known.next();
            if !whole {
                self.wanted = wanted;
            }
        }
        if let Some(place) = &self.args.durations {
            let found = find(place, None)?;
            self.inputs.extend(found.iter().map(input));
            self.known = found;
        }
        Ok(())
    }

    /// The suite that is named, or the default one for nodes that are emulated or not.
    pub(crate) fn choose_suite(&mut self, emulated: bool) -> Result<()> {
        let named = self.args.suite.as_deref().or(self.failed_in.as_deref());
        let upgrade = self.component.upgrade.as_ref().filter(|_| self.args.kind == Kind::Upgrade);
        let named = named.or(upgrade.and_then(|upgrade| upgrade.suite.as_deref()).filter(|_| self.wanted.is_empty()));
        let (name, suite) = self.component.suite_on(named, emulated)?;
        // Tests that are named need not be in the default suite.
        let everything = named.is_none() && !self.wanted.is_empty();
        let package = suite.package.clone();
        let suite = if everything { Suite { all: true, package, ..Suite::default() } } else { suite.clone() };
        (self.suite_name, self.suite) = (name.to_owned(), suite);
        Ok(())
    }

    /// The name for records: what `--tests` and the like chose is not the suite.
    pub(crate) fn suite_name(&self) -> &str {
        let whole = self.wanted.is_everything() && self.args.tags.is_empty();
        if whole { &self.suite_name } else { "selection" }
    }

    /// Where the component lives.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.component.tests.as_ref().and_then(|tests| tests.namespace.as_deref())
    }

    /// The command that runs this again, of which these are the results.
    pub(crate) fn again(&self, test: Option<&str>, results: &Results) -> String {
        // A script runs as a whole.
        let test = test.filter(|_| self.args.kind != Kind::Script);
        self.args.again(test, self.suite_that_matters(), &Learnt::of(results))
    }

    /// The command that runs a test of a package again, of which only some kinds have several.
    pub(crate) fn again_in(&self, test: Option<&str>, package: Option<&str>, results: &Results) -> String {
        let mut args = self.args.clone();
        let learnt = Learnt::of(results);
        match (self.args.kind, package) {
            (Kind::Unit, Some(package)) => {
                args.package = vec![package.to_owned()];
                args.again(test, None, &learnt)
            }
            (Kind::Upgrade, Some(upgrade::PACKAGE)) => self.again(None, results),
            // A test of the suite needs nothing of what was made before.
            (Kind::Upgrade, _) if test.is_some() => {
                (args.kind, args.phase) = (Kind::E2e, None);
                args.again(test, self.suite_that_matters(), &learnt)
            }
            _ => self.again(test, results),
        }
    }

    /// The suite's name, if its tests need its settings, or are in a package of its own.
    fn suite_that_matters(&self) -> Option<&str> {
        let matters = self.suite.changes_settings() || self.suite.package.is_some();
        matters.then_some(self.suite_name.as_str())
    }

    /// The component's own programs that its tests call.
    pub(crate) fn builds(&self, ui: &Ui) -> Result<Builds> {
        Builds::of(&self.ci, &self.args.component, &self.component, ui)
    }

    /// The tests of this part, and what all parts together have.
    pub(crate) fn select(
        &self,
        program: &Program,
        platform: &Platform,
        lab: bool,
        ui: &Ui,
    ) -> Result<(Selection, Option<Whole>)> {
        let skips = self.ci.skips()?.skip;
        let today = today();
        let choice = Choice {
            component: &self.args.component,
            version: self.component.version(),
            suite_name: &self.suite_name,
            suite: &self.suite,
            skips: &skips,
            platform,
            lab,
            wanted: &self.wanted,
            today,
        };
        let (component, wanted) = (choice.component, choice.wanted);
        let listed = program.list()?;
        let mut selection = select::choose(&choice, &listed)?;
        for gone in wanted.names().into_iter().flatten().filter(|name| !listed.contains(name)) {
            ui.warn(format!("{component} has no test {gone} any more"));
        }
        let whole = self.args.shard.take(&mut selection, &shard::durations(&self.known))?;
        // Most entries are about the program of the end-to-end tests, and no other one has those tests.
        for unknown in selection.unknown.iter().filter(|_| self.args.kind == Kind::E2e) {
            ui.warn(format!("ci/skips.toml: {component} has no test {unknown}"));
        }
        for expired in &selection.expired {
            ui.warn(format!("ci/skips.toml: its time is over: {expired}"));
        }
        Ok((selection, whole))
    }

    pub(crate) fn runner<'r>(
        &self,
        program: &'r Program,
        selection: &'r Selection,
        values: &Values,
        logs: PathBuf,
        server: Option<&str>,
        pace: &Pace,
    ) -> Result<Runner<'r>> {
        let tests = program::section(&self.ci, &self.args.component, self.args.kind, &self.component)?;
        let fill = |words: &[String]| words.iter().map(|word| values.fill(word)).collect::<Result<Vec<_>>>();
        let programs = environment::programs(&self.component)?;
        let chosen = &self.args.env;
        // However few of a suite's tests they are: what hangs and prints now and then is ended, and says where it is.
        let limit = self.args.timeout.unwrap_or(pace.stretch(self.suite.limit()?.unwrap_or(LIMIT)));
        let limits = self.test_limits(self.suite.test_limit()?, pace);
        Ok(Runner {
            program,
            selection,
            launcher: Vec::new(),
            arguments: fill(&tests.args)?,
            passes: tests.passes.iter().map(|pass| fill(pass)).collect::<Result<_>>()?,
            parallel: self.suite.parallel.or(tests.parallel),
            environment: environment::variables(
                &tests.env,
                values,
                chosen,
                &programs,
                &program.go_bin,
                &program.folder,
            )?,
            logs,
            allowance: Arc::default(),
            deadline: Some(Instant::now() + limit),
            limit: None,
            silence: self.args.silence.unwrap_or(pace.stretch(SILENCE)),
            limits,
            max_failures: if self.args.fail_fast { Some(1) } else { self.args.max_failures },
            stopper: Stopper::default(),
            judge: Judge::new(server).of_namespace(self.namespace()),
            turns: Turns::default(),
        })
    }

    /// How long each test may take; `suite` says so of those that nothing is known of.
    pub(crate) fn test_limits(&self, suite: Option<Duration>, pace: &Pace) -> Limits {
        Limits::new(self.args.test_timeout, suite, &self.known, pace)
    }

    pub(crate) fn values(&self, kubeconfig: PathBuf, platform: &Platform, registry: Option<String>) -> Values {
        let repo = self.args.repo.clone();
        let host = repo.as_ref().and_then(|repo| repo.split('/').next()).map(String::from);
        let namespace = self.namespace().map(String::from);
        Values {
            kubeconfig,
            platform: platform.clone(),
            repo: repo.or_else(|| registry.clone()),
            registry: registry.or(host),
            namespace,
            builds: BTreeMap::new(),
        }
    }

    pub(crate) fn empty(&self, run: &str) -> Results {
        Results {
            head: Head::new(TOOL, VERSION, run, self.started),
            component: self.args.component.clone(),
            version: self.component.version().to_owned(),
            kind: self.args.kind.name().into(),
            suite: self.suite_name().to_owned(),
            platform: self.args.platform.clone().unwrap_or_else(Platform::host),
            nature: Nature::Unknown,
            cluster: String::new(),
            release: None,
            counts: Counts::default(),
            all_counts: Counts::default(),
            conditions: Conditions::default(),
            tests: Vec::new(),
            shard: (self.args.shard.number, self.args.shard.of),
            whole: None,
            evidence: None,
        }
    }
}

/// What would run: nothing is opened, and `{kubeconfig}` stays a placeholder.
pub(crate) fn dry_run(plan: &Plan<'_>, ui: &Ui) -> Result<Done> {
    let pace = Pace::new(plan.args.slowdown, None);
    let Plan { args, ci, component, suite, .. } = plan;
    let program = program::prepare(ci, &args.component, args.kind, component, suite, &pace, ui)?;
    let builds = plan.builds(ui)?;
    let platform = plan.args.platform.clone().unwrap_or_else(Platform::host);
    let lab = matches!(plan.args.cluster.source(), Ok(cluster::Source::Lab(_))) && platform == Platform::host();
    let (selection, _) = plan.select(&program, &platform, lab, ui)?;
    let values = plan.values("KUBECONFIG-OF-THE-CLUSTER".into(), &platform, Some("REGISTRY".into()));
    let values = Values { builds: builds.paths(), ..values };
    let runner = plan.runner(&program, &selection, &values, PathBuf::new(), None, &pace)?;
    let round =
        |round: &Round| serde_json::json!({"name": round.name, "settings": plan.suite.settings_of(Some(round))});
    let rounds: Vec<_> = plan.suite.rounds.iter().map(round).collect();
    match ui.output {
        Output::Json => ui.json(&serde_json::json!({
            "component": plan.args.component, "suite": plan.suite_name(), "platform": platform.to_string(),
            "kind": plan.args.kind.name(), "shard": plan.args.shard.to_string(), "asked": selection.asked, "excluded": selection.excluded, "settings": plan.suite.settings,
            "rounds": rounds, "builds": builds.paths(), "script": runner.describe(&selection.asked)?,
        }))?,
        Output::Text => {
            let part = plan.args.shard;
            let part = if part.is_part() { format!(", part {part}") } else { String::new() };
            let mut text = format!("# {} tests of {}{part}:\n", selection.asked.len(), plan.suite_name());
            text.extend(selection.asked.iter().map(|test| format!("#   {test}\n")));
            text.push_str(&format!("# left out: {}\n", selection.excluded.len()));
            text.extend(selection.excluded.iter().map(|(test, reason)| format!("#   {test}: {reason}\n")));
            text.push_str(&settings_in_words(&plan.suite));
            text.push_str(&builds.in_words());
            ui.result(&(text + &runner.describe(&selection.asked)?))?;
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
