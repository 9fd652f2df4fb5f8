//! What is to be run, as far as it is known before a cluster is opened; and saying that instead of doing it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kit::{
    Done, Output, Platform, Result, Ui,
    ci::{Ci, Component, Round, Suite},
    process::Stopper,
    record::{Conditions, Counts, Head, Nature, Results},
};

use crate::{
    TOOL, VERSION,
    cause::Judge,
    environment::{self, Values},
    options::RunArgs,
    pace::Pace,
    passes::Runner,
    program::{self, Program},
    select::{self, Choice, Selection, Wanted},
};

/// How long tests may print nothing.
const SILENCE: Duration = Duration::from_mins(10);

/// What is known before a cluster is opened.
pub(crate) struct Plan<'a> {
    pub(crate) args: &'a RunArgs,
    pub(crate) ci: Ci,
    pub(crate) component: Component,
    wanted: Wanted,
    suite_name: String,
    pub(crate) suite: Suite,
    started: Timestamp,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(args: &'a RunArgs) -> Result<Self> {
        // What can be wrong with the call is said before anything is built or opened.
        let wanted = Wanted::new(&args.tests)?;
        let ci = args.ci.open()?;
        let component = ci.component(&args.component)?;
        program::section(&ci, &args.component, &component)?;
        let (suite_name, suite) = (String::new(), Suite::default());
        let mut plan = Self { args, ci, component, wanted, suite_name, suite, started: Timestamp::now() };
        plan.choose_suite(false)?;
        Ok(plan)
    }

    /// The suite that is named, or the default one for nodes that are emulated or not.
    pub(crate) fn choose_suite(&mut self, emulated: bool) -> Result<()> {
        let (name, named) = self.component.suite_on(self.args.suite.as_deref(), emulated)?;
        // Tests that are named need not be in the default suite.
        let everything = self.args.suite.is_none() && !self.wanted.is_empty();
        let suite = if everything { Suite { all: true, ..Suite::default() } } else { named.clone() };
        (self.suite_name, self.suite) = (name.to_owned(), suite);
        Ok(())
    }

    /// The name for records: what `--tests` chose is not the suite.
    pub(crate) fn suite_name(&self) -> &str {
        if self.wanted.is_empty() { &self.suite_name } else { "selection" }
    }

    /// Where the component lives.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.component.tests.as_ref().and_then(|tests| tests.namespace.as_deref())
    }

    /// The command that runs this again.
    pub(crate) fn again(&self, test: Option<&str>) -> String {
        self.args.again(test, self.suite.changes_settings().then_some(self.suite_name.as_str()))
    }

    pub(crate) fn select(&self, program: &Program, platform: &Platform, lab: bool, ui: &Ui) -> Result<Selection> {
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

    pub(crate) fn runner<'r>(
        &self,
        program: &'r Program,
        selection: &'r Selection,
        values: &Values,
        logs: PathBuf,
        server: Option<&str>,
        pace: &Pace,
    ) -> Result<Runner<'r>> {
        let tests = program::section(&self.ci, &self.args.component, &self.component)?;
        let fill = |words: &[String]| words.iter().map(|word| values.fill(word)).collect::<Result<Vec<_>>>();
        let programs = environment::programs(&self.component)?;
        let chosen = &self.args.env;
        let limit = self.suite.limit()?.filter(|_| self.wanted.is_empty()).map(|limit| pace.stretch(limit));
        let limit = self.args.timeout.or(limit);
        Ok(Runner {
            program,
            selection,
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
            deadline: limit.map(|limit| Instant::now() + limit),
            silence: self.args.silence.unwrap_or(pace.stretch(SILENCE)),
            fail_fast: self.args.fail_fast,
            stopper: Stopper::default(),
            judge: Judge::new(server),
        })
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
        }
    }

    pub(crate) fn empty(&self, run: &str) -> Results {
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

/// What would run: nothing is opened, and `{kubeconfig}` stays a placeholder.
pub(crate) fn dry_run(plan: &Plan<'_>, ui: &Ui) -> Result<Done> {
    let pace = Pace::new(plan.args.slowdown, None);
    let program = program::prepare(&plan.ci, &plan.args.component, &plan.component, &pace, ui)?;
    let platform = plan.args.platform.clone().unwrap_or_else(Platform::host);
    let lab = matches!(plan.args.cluster.source(), Ok(cluster::Source::Lab(_))) && platform == Platform::host();
    let selection = plan.select(&program, &platform, lab, ui)?;
    let values = plan.values("KUBECONFIG-OF-THE-CLUSTER".into(), &platform, Some("REGISTRY".into()));
    let runner = plan.runner(&program, &selection, &values, PathBuf::new(), None, &pace)?;
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
