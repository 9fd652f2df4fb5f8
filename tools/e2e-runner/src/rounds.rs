//! The rounds of a suite: all its tests, then those that skipped themselves with other settings; what failed is
//! tried a second time in its own round.

use std::time::Duration;

use jiff::Timestamp;
use kit::{
    Error, Result, Ui,
    ci::{FIRST_ROUND, Round, Suite},
    record::{RoundResult, Setting, SkipSource, Status},
    ui,
};
use tokio::runtime::Runtime;

use crate::{
    attempts::{self, Tries},
    cut_off, diagnose,
    evidence::Evidence,
    health::Watch,
    leaves, ledger,
    parse::event::top,
    passes::{Ran, Runner, Stopped},
    place::Place,
    report::{self, PACKAGE, Row},
    select::Selection,
    settings::Settings,
    settle,
};

/// How long is waited for an API server or nodes that stayed away, before the tests that this stopped are given up.
const RETURN: Duration = Duration::from_mins(3);
/// How many names of tests that run again are shown.
const SHOWN: usize = 20;

/// All that the rounds of a suite need.
pub struct Rounds<'a> {
    /// Runs tests.
    pub runner: &'a Runner<'a>,
    /// The tests of the first round.
    pub selection: &'a Selection,
    /// The suite.
    pub suite: &'a Suite,
    /// The component's namespace, for a suite that sets something there.
    pub namespace: Option<&'a str>,
    /// How many tests of the suite are not among them because they have passed in an earlier run.
    pub others: usize,
    /// Whether what failed is tried again.
    pub second_attempt: bool,
    /// Whether subtests that failed are tried again by themselves.
    pub by_leaves: bool,
    /// Whether what the ledger leaves out is run as well, to see.
    pub shadow: bool,
    /// What the cluster held meanwhile.
    pub evidence: &'a Evidence,
    /// For people.
    pub name: &'a str,
    /// For what talks to the cluster.
    pub runtime: &'a Runtime,
    /// For people.
    pub ui: &'a Ui,
}

/// What is known of a suite when a part of its tests begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Before {
    /// Tests that have run, and are not among those that begin.
    ran: usize,
    /// Those of them that have failed.
    failed: usize,
}

impl Before {
    /// What these rows say, when `tests` begin; further `others` have passed in an earlier run.
    fn of(tests: &[String], rows: &[Row], others: usize) -> Self {
        let rows = || rows.iter().filter(|row| attempts::is_top(row) && !tests.contains(&row.test.name));
        let number = |is: fn(Status) -> bool| rows().filter(|row| is(row.test.status)).count();
        Self {
            ran: number(|status| status != Status::Skipped) + others,
            failed: number(|status| status == Status::Failed),
        }
    }
}

/// What came of all rounds.
#[derive(Debug, Default)]
pub struct Came {
    /// Every test.
    pub rows: Vec<Row>,
    /// Each round.
    pub rounds: Vec<RoundResult>,
    /// The signal that ended them.
    pub signal: Option<i32>,
    /// What was wrong with the cluster, if so many failed that it was looked at.
    pub diagnosis: Vec<String>,
}

impl Rounds<'_> {
    /// Runs them, lays the cluster's outages over what came out, and puts back what was set.
    ///
    /// # Errors
    /// What kept the tests from running; their failures are no error, nor is what goes wrong when some have run.
    pub fn run(&self, place: &Place) -> Result<Came> {
        let stopper = self.runner.stopper.clone();
        let watch =
            self.runtime.block_on(async { Watch::start(place.opened.client.clone(), &place.platform, stopper) });
        let settings = self.namespace.filter(|_| self.suite.changes_settings());
        let settings = settings.map(|namespace| Settings::of(place.opened.client.clone(), namespace));
        let came = self.all(settings.as_ref(), &watch, place);
        let unset = settings.as_ref().and_then(|settings| self.put_back(settings, place));
        let mut came = came?;
        came.rows.extend(unset);
        settle::settle(&mut came, place, watch, self.runtime, self.ui);
        Ok(came)
    }

    fn all(&self, settings: Option<&Settings>, watch: &Watch, place: &Place) -> Result<Came> {
        let mut came = Came::default();
        if let Some(settings) = settings {
            let maps = self.suite.rounds.iter().flat_map(|round| round.settings.keys());
            let _turn = self.runner.turns.take(false, self.ui)?;
            self.runtime.block_on(cluster::interruptible(settings.remember(self.suite.settings.keys().chain(maps))))?;
        }
        let mut ran = Ran::default();
        for round in std::iter::once(None).chain(self.suite.rounds.iter().map(Some)) {
            let tests = if round.is_none() { self.selection.asked.clone() } else { skipped(&came.rows) };
            if tests.is_empty() {
                continue;
            }
            let early = ran.stopped.is_some() || ran.signal.is_some();
            let rows = if early {
                self.never_began(&tests, &ran)
            } else {
                let before = Before::of(&tests, &came.rows, self.others);
                match self.in_turn(settings, round, |set| Ok((set, self.round(round, &tests, before, watch)?))) {
                    Ok((set, (rows, now))) => {
                        ran = now;
                        let many = too_many(&rows, before, self.by_leaves);
                        if many && ran.signal.is_none() && came.diagnosis.is_empty() {
                            came.diagnosis = self.diagnose(&rows, place);
                        }
                        let (counts, _) = report::count(rows.iter().map(|row| &row.test));
                        came.rounds.push(RoundResult { name: name(round).into(), settings: set, counts });
                        rows
                    }
                    Err(error) if came.rounds.is_empty() => return Err(error),
                    Err(error) => {
                        // What the rounds before it have found stays.
                        ran = Ran::default();
                        came.rows.extend(broken_off(self.name, &format!("round {}", name(round)), &error, &mut ran));
                        self.never_began(&tests, &ran)
                    }
                }
            };
            join(&mut came.rows, rows, round);
        }
        came.rows.extend(attempts::left_out(self.selection, &self.runner.program.package));
        if self.shadow && ran.stopped.is_none() && ran.signal.is_none() {
            // They are left out of the first round, not of the last one with its settings.
            match self.in_turn(settings, None, |_| self.shadows(&mut came.rows)) {
                Ok(now) => ran = now,
                Err(error) => {
                    came.rows.extend(broken_off(self.name, "what ci/skips.toml leaves out", &error, &mut ran))
                }
            }
        }
        came.signal = ran.signal;
        Ok(came)
    }

    fn never_began(&self, tests: &[String], ran: &Ran) -> Vec<Row> {
        attempts::never_began(tests, &[], &self.runner.program.package, ran, &self.runner.passes)
    }

    /// Runs what the ledger leaves out, which counts for nothing, and notes what became of it.
    fn shadows(&self, rows: &mut [Row]) -> Result<Ran> {
        let selection = self.selection.shadow();
        if selection.asked.is_empty() {
            return Ok(Ran::default());
        }
        let title = format!("{} that ci/skips.toml leaves out, to see", selection.asked.len());
        let logs = self.runner.logs.join("shadow");
        let ran = self.runner.selecting(&selection, logs).run(&selection.asked, &title, self.ui)?;
        let shadows = attempts::rows(&ran);
        attempts::lay_shadows(rows, &shadows);
        for unknown in ledger::unknown(rows, &shadows) {
            self.ui.warn(format!("ci/skips.toml: there is no test {unknown}"));
        }
        Ok(Ran { streams: Vec::new(), ..ran })
    }

    /// Looks what is wrong with the cluster, when more is than a test or two.
    fn diagnose(&self, rows: &[Row], place: &Place) -> Vec<String> {
        diagnose::ask(rows, place, self.namespace, self.runtime, self.ui)
    }

    /// Does `work` with the settings of a round. Beside other parts only the first may be: the others are set for us alone,
    /// and what all have is back when their turn comes.
    fn in_turn<T>(
        &self,
        settings: Option<&Settings>,
        round: Option<&Round>,
        work: impl FnOnce(Vec<Setting>) -> Result<T>,
    ) -> Result<T> {
        let turns = &self.runner.turns;
        let turn = turns.take(round.is_some(), self.ui)?;
        let set = self.set(settings, round)?;
        if round.is_none() {
            drop(turn);
            return work(set);
        }
        let done = work(set);
        if turns.is_part()
            && let Err(error) = self.set(settings, None)
        {
            self.ui.warn(format!("other parts may run with the settings of this round: {error}"));
        }
        drop(turn);
        done
    }

    fn set(&self, settings: Option<&Settings>, round: Option<&Round>) -> Result<Vec<Setting>> {
        let Some(settings) = settings else { return Ok(Vec::new()) };
        let set = self.suite.settings_of(round);
        let set = self.runtime.block_on(cluster::interruptible(settings.set(&set)))?;
        for setting in &set {
            let before = setting.before.as_deref().unwrap_or("not there");
            self.ui.note(format!(
                "set for the tests: {} in {} to '{}' (was: {before})",
                setting.key, setting.config_map, setting.value
            ));
        }
        Ok(set)
    }

    /// One round, and the second attempt of what failed in it.
    fn round(&self, round: Option<&Round>, tests: &[String], before: Before, watch: &Watch) -> Result<(Vec<Row>, Ran)> {
        let title = match round {
            None => self.name.to_owned(),
            Some(round) => format!("{}, {} that skipped themselves with {}", self.name, tests.len(), round.name),
        };
        let attempts = Attempts {
            runner: self.runner,
            name: self.name,
            before,
            second_attempt: self.second_attempt,
            by_leaves: self.by_leaves,
            judge: &|rows| self.judge(rows, watch),
            comes_back: &|| self.comes_back(watch),
            runtime: self.runtime,
            ui: self.ui,
        };
        attempts.run(tests, &title)
    }

    /// Waits until what the tests need is back; says whether it is.
    fn comes_back(&self, watch: &Watch) -> Result<bool> {
        let step = self.ui.step(format!("waiting for what the tests need, up to {}", ui::duration(RETURN)));
        let back = async { Ok(watch.is_back(RETURN).await) };
        let back = self.runtime.block_on(cluster::interruptible(back))?;
        if back {
            step.done("it is back");
            self.runner.stopper.clear();
        } else {
            step.failed("it stays away");
        }
        Ok(back)
    }

    /// What the tests could not know: the state of their pods, and whether the cluster was away.
    fn judge(&self, rows: &mut [Row], watch: &Watch) {
        self.evidence.judge(rows, &self.runner.logs);
        attempts::lay_over(rows, &watch.outages(), Timestamp::now());
    }

    /// Puts the component's settings back, also after a signal; a row of the cluster's if that fails.
    fn put_back(&self, settings: &Settings, place: &Place) -> Option<Row> {
        if !place.here.is_last() {
            return None;
        }
        let error = self.runtime.block_on(settings.put_back()).err()?;
        self.ui.warn(format!("the component's settings are not put back; the next run or cleanup does it: {error}"));
        Some(report::of_cluster(&place.opened.name, error.cause, format!("settings not put back: {}", error.summary())))
    }
}

/// Tests, and further attempts of what failed of them.
pub struct Attempts<'a> {
    /// Runs tests.
    pub runner: &'a Runner<'a>,
    /// For people.
    pub name: &'a str,
    /// What is known of the suite that they are a part of.
    pub before: Before,
    /// Whether what failed is tried again.
    pub second_attempt: bool,
    /// Whether subtests that failed are tried again by themselves.
    pub by_leaves: bool,
    /// Lays over rows what the tests could not know.
    pub judge: &'a dyn Fn(&mut [Row]),
    /// Waits, not for ever, until tests can run again that were stopped because what they need was away; says whether they can.
    pub comes_back: &'a dyn Fn() -> Result<bool>,
    /// For waiting.
    pub runtime: &'a Runtime,
    /// For people.
    pub ui: &'a Ui,
}

impl Attempts<'_> {
    /// Runs them.
    ///
    /// # Errors
    /// What kept the tests from running; their failures are no error.
    pub fn run(&self, tests: &[String], title: &str) -> Result<(Vec<Row>, Ran)> {
        let mut ran = self.runner.run_after(self.before.failed, tests, title, self.ui)?;
        let mut rows = attempts::rows(&ran);
        let (package, passes) = (&self.runner.program.package, &self.runner.passes);
        rows.extend(attempts::never_began(tests, &rows, package, &ran, passes));
        rows.extend(attempts::no_such_subtests(self.runner.selection, &rows, package));
        let stopped = attempts::stopped_by_outage(&rows);
        (self.judge)(&mut rows);
        if !stopped.is_empty() {
            self.resume(&stopped, &mut rows, &mut ran);
        }
        if self.second_attempt && !too_many(&rows, self.before, self.by_leaves) {
            self.repeat(&mut rows, &mut ran);
        }
        Ok((rows, ran))
    }

    /// Runs once what an outage has stopped or kept from beginning, when it is over.
    fn resume(&self, tests: &[String], rows: &mut Vec<Row>, ran: &mut Ran) {
        let name = "what was stopped by an outage";
        let others = |row: &&Row| attempts::is_top(row) && !tests.contains(&row.test.name);
        let failed = rows.iter().filter(others).filter(|row| row.test.status == Status::Failed).count();
        let second = match (self.comes_back)() {
            Ok(true) => self.runner.run_after(self.before.failed + failed, tests, name, self.ui),
            Ok(false) => return,
            Err(error) => Err(error),
        };
        match second {
            Ok(second) => {
                // Whom we ended ourselves has not crashed.
                let packages = ran.streams.last_mut().into_iter().flat_map(|stream| &mut stream.packages);
                packages.for_each(|package| package.crashed = false);
                let mut new = attempts::rows(&second);
                (self.judge)(&mut new);
                lay(rows, ran, &new, second);
            }
            Err(error) => rows.extend(broken_off(self.name, name, &error, ran)),
        }
    }

    /// Further attempts of what failed.
    fn repeat(&self, rows: &mut Vec<Row>, ran: &mut Ran) {
        let (mut tries, mut whole) = (Tries::default(), Vec::new());
        tries.note(rows);
        for name in ["second attempt", "third attempt"] {
            let again = attempts::again(rows, ran, &tries);
            if again.is_empty() {
                break;
            }
            let leaves = self.leaves(rows, &again, &whole);
            let said: Vec<_> =
                again.iter().filter(|name| !leaves.iter().any(|leaf| top(leaf) == **name)).chain(&leaves).collect();
            self.ui.note(format!("{} failed; once more: {}", said.len(), some(&said)));
            let run = || self.run_leaves(&leaves, &again, name);
            let second = match self.wait(tries.wait(rows, &again)).and_then(|()| run()) {
                Ok(second) => second,
                Err(error) => {
                    // What the attempts before it have found stays.
                    rows.extend(broken_off(self.name, name, &error, ran));
                    break;
                }
            };
            let mut new = attempts::rows(&second);
            (self.judge)(&mut new);
            // What has another name each time does not run by its name, and its test says nothing then.
            let gone = leaves.iter().filter(|leaf| !new.iter().any(|row| row.test.name == **leaf));
            let gone: Vec<_> = gone.map(|leaf| top(leaf).to_owned()).collect();
            new.retain(|row| !gone.iter().any(|gone| gone == top(&row.test.name)));
            whole.extend(gone);
            tries.note(&new);
            lay(rows, ran, &new, second);
        }
    }

    /// The subtests that run instead of these tests, but for the tests that are to run as a `whole`.
    fn leaves(&self, rows: &[Row], tests: &[String], whole: &[String]) -> Vec<String> {
        let tests: Vec<_> = tests.iter().filter(|test| self.by_leaves && !whole.contains(test)).cloned().collect();
        leaves::of(rows, &tests)
    }

    /// Runs these tests, or only these subtests of theirs.
    fn run_leaves(&self, leaves: &[String], tests: &[String], name: &str) -> Result<Ran> {
        let selection = leaves::selection(self.runner.selection, leaves);
        // More names than a command line holds: all of them.
        if leaves.is_empty() || selection.arguments(tests).is_err() {
            return self.runner.run_after(self.before.failed, tests, name, self.ui);
        }
        let runner = self.runner.selecting(&selection, self.runner.logs.clone());
        let runner = Runner { max_failures: self.runner.max_failures, ..runner };
        runner.run_after(self.before.failed, tests, name, self.ui)
    }

    /// Gives the infrastructure time.
    fn wait(&self, time: Duration) -> Result<()> {
        let wait = async {
            tokio::time::sleep(time).await;
            Ok(())
        };
        self.runtime.block_on(cluster::interruptible(wait))
    }
}

/// Lays what another attempt found over what is known.
fn lay(rows: &mut Vec<Row>, ran: &mut Ran, new: &[Row], second: Ran) {
    cut_off::adopt(rows, new);
    attempts::join(rows, new);
    // Whether a test of it ended the program is seen there.
    ran.streams.extend(second.streams);
    (ran.signal, ran.stopped) = (second.signal, second.stopped);
}

/// Whether so many failed that something else is wrong than each of them.
fn too_many(rows: &[Row], before: Before, by_leaves: bool) -> bool {
    attempts::too_many_of(rows, before.ran) || (by_leaves && leaves::too_many(rows, before.ran))
}

/// The first ones of these names.
fn some(names: &[&String]) -> String {
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| name.as_str()).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// Notes that nothing more runs: a row that says so, or the signal.
fn broken_off(name: &str, what: &str, error: &Error, ran: &mut Ran) -> Option<Row> {
    ran.signal = error.signal;
    ran.stopped = Some(Stopped::by(error));
    let why = format!("{what}: {}", error.summary());
    error.signal.is_none().then(|| report::of_cluster(name, error.cause, why))
}

fn name(round: Option<&Round>) -> &str {
    round.map_or(FIRST_ROUND, |round| &round.name)
}

/// The top-level tests that skipped themselves, or a subtest of theirs.
fn skipped(rows: &[Row]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let itself = |row: &&Row| row.test.status == Status::Skipped && row.test.skipped_by == Some(SkipSource::Test);
    for name in rows.iter().filter(itself).map(|row| top(&row.test.name)) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Lays a round's rows over those before it. Of two results of a test, the one that says more counts: a test
/// that did not skip itself this time has passed or failed, and what failed once has failed.
fn join(rows: &mut Vec<Row>, new: Vec<Row>, round: Option<&Round>) {
    for mut row in new {
        row.test.round = round.map(|round| round.name.clone());
        let same = |old: &&mut Row| old.test.name == row.test.name && old.test.package == row.test.package;
        match rows.iter_mut().find(same).filter(|_| row.test.name != PACKAGE) {
            Some(old) if weight(row.test.status) > weight(old.test.status) => {
                row.test.attempts += old.test.attempts;
                *old = row;
            }
            Some(old) => old.test.attempts += row.test.attempts,
            None => rows.push(row),
        }
    }
}

const fn weight(status: Status) -> u8 {
    match status {
        Status::Skipped => 0,
        Status::Passed => 1,
        Status::Flaky => 2,
        Status::NotRun => 3,
        Status::Failed => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Status::{Failed, NotRun, Passed, Skipped};

    fn row(name: &str, status: Status) -> Row {
        let mut test = report::row(name, "p", status);
        test.skipped_by = (status == Skipped).then_some(SkipSource::Test);
        Row { test, excerpt: Vec::new(), ran: None }
    }

    #[test]
    fn who_skips_itself_runs_again_and_who_fails_once_has_failed() {
        let alpha = Round { name: "alpha".into(), settings: Default::default() };
        let mut rows: Vec<_> = [
            ("TestA", Skipped),
            ("TestB", Passed),
            ("TestB/x", Skipped),
            ("TestB/y", Passed),
            ("TestC", Passed),
            ("TestD", Failed),
            ("TestD/x", Skipped),
            ("TestE", Skipped),
            ("TestF", Skipped),
        ]
        .map(|(name, status)| row(name, status))
        .into();
        rows[8].test.skipped_by = Some(SkipSource::Ledger);
        assert_eq!(skipped(&rows), ["TestA", "TestB", "TestD", "TestE"]);
        let new = [
            ("TestA", Passed),
            ("TestB/x", Passed),
            ("TestB/y", Failed),
            ("TestB", Failed),
            ("TestD/x", Passed),
            ("TestD", Passed),
            ("TestE", NotRun),
        ];
        join(&mut rows, new.map(|(name, status)| row(name, status)).into(), Some(&alpha));
        let after: Vec<_> = rows.iter().map(|row| (row.test.status, row.test.round.is_some())).collect();
        assert_eq!(
            after,
            [
                (Passed, true),
                (Failed, true),
                (Passed, true),
                (Failed, true),
                (Passed, false),
                (Failed, false),
                (Passed, true),
                (NotRun, true),
                (Skipped, false)
            ]
        );
        assert_eq!((rows[0].test.attempts, rows[4].test.attempts, rows[5].test.attempts), (2, 1, 2));
        assert_eq!(rows[0].test.skipped_by, None);
    }

    #[test]
    fn a_round_is_a_part_of_its_suite() {
        let rows = [
            ("TestA", Passed),
            ("TestA/x", Passed),
            ("TestB", Failed),
            ("TestC", Skipped),
            ("TestD", Failed),
            (PACKAGE, Failed),
        ];
        let rows = rows.map(|(name, status)| row(name, status));
        assert_eq!(Before::of(&["TestC".into(), "TestD".into()], &rows, 0), Before { ran: 2, failed: 1 });
        assert_eq!(Before::of(&[], &[], 85), Before { ran: 85, failed: 0 });
    }
}
