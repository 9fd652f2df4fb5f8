//! The pages of the site, each from its template. Templates escape everything that is put in; only our own style and
//! pictures are put in as they are.

use std::collections::BTreeSet;

use kit::{
    Cause, Context, Platform, Result,
    ci::{Skip, Skips},
    record::Status,
};
use minijinja::{Environment, Value, context, value::Serde};

use super::{charts, newest, trends};
use crate::{
    cells::{Entry, Rules, Told, is_lost, rows},
    history::Library,
    model::{Alarm, Cell, Level, LogEntry, Matrix, NodeRow, OwnerRow, RunResult, Verdict},
    render::{MACROS, OLDER, anchor, basis, environment, last_test},
    text::{clean, day},
};

/// Of so many runs a cell's page tells, newest first.
const CHARTED: usize = 1_200;
/// And of a version that has no place on the first page: of nightly commits there are as many as nights.
const CHARTED_OLD: usize = 100;
const TEMPLATES: [(&str, &str); 9] = [
    ("layout.html", include_str!("layout.html")),
    MACROS,
    ("index.html", include_str!("index.html")),
    ("older.html", include_str!("older.html")),
    ("cell.html", include_str!("cell.html")),
    ("run.html", include_str!("run.html")),
    ("owner.html", include_str!("owner.html")),
    ("log.html", include_str!("log.html")),
    ("skips.html", include_str!("skips.html")),
];
/// Changes on the first page, and on the page of all changes.
const NEWEST_CHANGES: usize = 12;
const ALL_CHANGES: usize = 500;

/// Makes pages.
pub(super) struct Pages<'a> {
    environment: Environment<'static>,
    stamp: String,
    library: &'a Library,
    rules: &'a Rules,
    matrix: &'a Matrix,
    /// Runs that have a page.
    runs: &'a BTreeSet<String>,
}

/// The file of a run's page, without ending.
pub(super) fn run_name(digest: &str) -> String {
    digest.strip_prefix("sha256:").unwrap_or(digest).chars().take(16).collect()
}

fn internal<T>(made: Result<T, minijinja::Error>) -> Result<T> {
    made.cause(Cause::Internal, || "cannot write a page")
}

impl<'a> Pages<'a> {
    pub(super) fn new(
        library: &'a Library,
        rules: &'a Rules,
        matrix: &'a Matrix,
        runs: &'a BTreeSet<String>,
    ) -> Result<Self> {
        let mut environment = environment(rules.now);
        let style = format!("{}{}", crate::render::STYLE, include_str!("site.css"));
        let mut all = format!("{} {style}", env!("CARGO_PKG_VERSION"));
        for (name, text) in TEMPLATES {
            internal(environment.add_template(name, text))?;
            all.push_str(text);
        }
        environment.add_global("style", Value::from_safe_string(style));
        environment.add_global("tool", env!("CARGO_PKG_VERSION"));
        environment.add_filter("anchor", |id: String| anchor(&id));
        environment.add_filter("slug", |name: String| kit::rundir::slug(&name));
        environment.add_filter("runpage", |digest: String| run_name(&digest));
        environment.add_filter("many", |count: usize, what: String| crate::text::many(count, &what));
        environment.add_filter("percent", |share: f64| format!("{:.1} %", share * 100.0));
        Ok(Self { environment, stamp: kit::digest::sha256(all.as_bytes()), library, rules, matrix, runs })
    }

    /// What pages look like: program and templates.
    pub(super) fn stamp(&self) -> &str {
        &self.stamp
    }

    fn page(&self, name: &str, depth: usize, values: Value) -> Result<String> {
        let template = internal(self.environment.get_template(name))?;
        let values = context! { up => "../".repeat(depth), ..values };
        internal(template.render(values))
    }

    /// The matrix.
    pub(super) fn index(&self, alarms: &[Alarm], log: &[LogEntry]) -> Result<String> {
        let platforms = self.platforms();
        let names: Vec<_> = platforms.iter().map(ToString::to_string).collect();
        let (rows, older) = (self.rows(&platforms, false), self.rows(&platforms, true).len());
        let changes: Vec<_> = log.iter().rev().take(NEWEST_CHANGES).map(|entry| self.log_row(entry)).collect();
        self.page(
            "index.html",
            0,
            context! {
                title => "Support matrix", basis => basis(self.matrix), platforms => names, rows, older,
                platform_rows => Value::from(Serde(&self.matrix.platforms)),
                left_out => Value::from(Serde(&self.matrix.left_out)), changes,
                alarms => Value::from(Serde(alarms)),
            },
        )
    }

    /// Versions that are not on the first page.
    pub(super) fn older(&self) -> Result<String> {
        let platforms = self.platforms();
        let names: Vec<_> = platforms.iter().map(ToString::to_string).collect();
        let rows = self.rows(&platforms, true);
        self.page("older.html", 0, context! { title => "Older versions", why => OLDER, platforms => names, rows })
    }

    /// Platforms of cells, in the matrix's order.
    fn platforms(&self) -> Vec<&Platform> {
        let in_cells: BTreeSet<_> = self.matrix.cells.iter().map(|cell| &cell.platform).collect();
        self.matrix.platforms.iter().map(|row| &row.platform).filter(|platform| in_cells.contains(platform)).collect()
    }

    /// The matrix's rows: current versions, or older ones.
    fn rows(&self, platforms: &[&Platform], older: bool) -> Vec<Value> {
        let same =
            |a: &Cell, b: &Cell| (&a.component, &a.version, a.origin.kind) == (&b.component, &b.version, b.origin.kind);
        let row = |cells: &[Cell]| {
            let on = |platform: &&Platform| -> Vec<Value> {
                cells.iter().filter(|cell| cell.platform == **platform).map(short_cell).collect()
            };
            context! {
                component => cells[0].component.as_str(), version => cells[0].version.as_str(),
                origin => cells[0].origin.kind.words(), columns => platforms.iter().map(on).collect::<Vec<_>>(),
            }
        };
        self.matrix.cells.chunk_by(same).filter(|cells| cells[0].beside.older == older).map(row).collect()
    }

    /// One cell, and what its page is made from, as a digest; no page if that is `known`. `runs` are those of tests on
    /// its line of versions.
    ///
    /// To read the tests of thirty runs for each of thousands of cells takes most of a site's time.
    pub(super) fn cell(
        &self,
        cell: &Cell,
        entry: &Entry<'_>,
        runs: &[Told<'_>],
        (log, skips): (&[&LogEntry], &Skips),
        known: Option<&String>,
    ) -> Result<(String, Option<String>)> {
        let most = if cell.beside.older { CHARTED_OLD } else { CHARTED };
        let (runs, native) = trends::of_one_nature(&runs[runs.len().saturating_sub(most)..]);
        // To read the tests of a whole line for each commit of years would take minutes: of those that have no place on
        // the first page only their own are.
        let own = |told: &&Told<'_>| entry.told.iter().any(|own| own.run.digest == told.run.digest);
        let tests: Vec<_> = runs.iter().filter(|told| !cell.beside.older || own(told)).copied().collect();
        let mut listed = Vec::new();
        for told in newest(entry) {
            listed.push(run_row(entry, told));
        }
        let levels: Vec<_> = Level::ALL
            .iter()
            .map(|level| {
                let evidence = cell.levels.get(*level);
                context! { name => level.name(), has_page => self.has(evidence.evidence.as_deref()), ..Value::from(Serde(evidence)) }
            })
            .collect();
        let log: Vec<_> = log.iter().rev().take(50).map(|entry| self.log_row(entry)).collect();
        let skips: Vec<_> =
            skips.skip.iter().filter(|skip| skips_here(skip, cell)).map(|skip| self.skip_row(skip)).collect();
        // What a red cell is red for is one step away.
        let deciding = cell.beside.decided.as_ref().filter(|(digest, _)| self.runs.contains(digest));
        let deciding = deciding.map(|(digest, number)| context! { digest => digest.as_str(), number => *number });
        let nodes: Vec<_> = cell
            .nodes
            .iter()
            .map(|node| context! { words => NodeRow::words(node), evidence => node.evidence.as_deref() })
            .collect();
        let values = context! {
            title => format!("{} {} on {}", cell.component, cell.version, cell.platform),
            cell => Value::from(Serde(cell)), last => last_test(cell), nodes, levels, log, skips, deciding,
            origin => cell.origin.kind.words(), badge_file => anchor(&cell.id), native, runs => listed,
            becomes => cell.changes.as_ref().map(|change| change.words.as_str()),
        };
        // A statement of a bundle never changes: what is read of it below follows from its name.
        let name = |told: &Told<'_>| (told.run.digest.to_string(), told.attempt.number);
        let pictured: (Vec<_>, Vec<_>) = (runs.iter().map(name).collect(), tests.iter().map(name).collect());
        let stands = serde_json::to_vec(&(&values, pictured)).cause(Cause::Internal, || "cannot write a page")?;
        let stands = kit::digest::sha256(&stands);
        if known == Some(&stands) {
            return Ok((stands, None));
        }
        let page = self.page(
            "cell.html",
            1,
            context! {
                chart => charts::history(&points(&runs)).map(Value::from_safe_string),
                trends => safe_trends(&trends::trends(self.library, &tests)?), ..values
            },
        )?;
        Ok((stands, Some(page)))
    }

    /// One run.
    pub(super) fn run(&self, digest: &str) -> Result<String> {
        let facts = self.library.facts(digest)?;
        let row = rows::head(&facts);
        let mut parts: Vec<(String, Vec<Value>)> = Vec::new();
        let mut marks = 0;
        for (number, attempt) in facts.attempts.iter().enumerate() {
            let key = &attempt.key;
            let name = format!("{} {} on {}", key.component, key.version, key.platform);
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            let result = rows::result(self.library, digest, (number, attempt), true)?;
            let value = self.result(digest, number, &result, &mut marks)?;
            match parts.iter_mut().find(|(other, _)| *other == name) {
                Some((_, all)) => all.push(value),
                None => parts.push((name, vec![value])),
            }
        }
        let stages = rows::stages(&facts, None);
        let end = stages.iter().map(|stage| stage.after + stage.seconds).fold(0.0, f64::max);
        let parts: Vec<_> = parts.into_iter().map(|(name, results)| context! { name, results }).collect();
        self.page(
            "run.html",
            1,
            context! {
                title => format!("Run {}", facts.run), run => Value::from(Serde(&row)), parts, end,
                stages => Value::from(Serde(&stages)), minutes => minutes(&facts),
            },
        )
    }

    fn result(&self, digest: &str, number: u16, result: &RunResult, marks: &mut usize) -> Result<Value> {
        // A red cell leads to the statement that decided; where tests failed, to the first of them.
        let red = matches!(result.verdict, Verdict::Failed | Verdict::FailedNotNative | Verdict::Infrastructure);
        let anchor = (red && result.level.is_some()).then(|| format!("cause-{number}"));
        let (mut tests, mut decided) = (Vec::new(), None);
        for test in result.tests.iter().filter(|test| test.status != Status::Skipped) {
            *marks += 1;
            if matches!(test.status, Status::Failed | Status::NotRun) {
                decided = decided.or(Some(*marks));
            }
            let log = test.log_tail.as_deref().map(|log| split(log, test.line.as_deref()));
            tests.push(context! { mark => *marks, log => log.map(Value::from), ..Value::from(Serde(test)) });
        }
        let skipped: Vec<_> = result.tests.iter().filter(|test| test.status == Status::Skipped).collect();
        let mut all = Vec::new();
        for test in self.library.tests(digest, number)?.iter() {
            let name = self.library.test_name(test.name)?;
            let status = serde_json::to_value(test.status).ok().and_then(|status| status.as_str().map(String::from));
            all.push(context! { name, status, seconds => test.seconds() });
        }
        let shown = RunResult { tests: Vec::new(), ..result.clone() };
        let skipped = Value::from(Serde(&skipped));
        Ok(context! { anchor, decided, number, tests, skipped, all, ..Value::from(Serde(&shown)) })
    }

    /// One owner.
    pub(super) fn owner(&self, row: &OwnerRow, log: &[LogEntry], alarms: &[Alarm]) -> Result<String> {
        let mine = |platform: &Platform| row.platforms.contains(platform);
        let mine_of = |older: bool| {
            self.matrix.cells.iter().filter(move |cell| cell.beside.older == older && mine(&cell.platform))
        };
        let cells: Vec<_> = mine_of(false).map(short_cell).collect();
        let platforms: Vec<_> = self.matrix.platforms.iter().filter(|row| mine(&row.platform)).collect();
        let changes: Vec<_> =
            log.iter().rev().filter(|entry| mine(&entry.platform)).take(30).map(|entry| self.log_row(entry)).collect();
        let alarms: Vec<_> = alarms.iter().filter(|alarm| alarm.platform.as_ref().is_none_or(mine)).collect();
        self.page(
            "owner.html",
            1,
            context! {
                title => format!("Owner: {}", row.owner), owner => Value::from(Serde(row)), cells, older => mine_of(true).count(),
                platforms => Value::from(Serde(&platforms)), changes,
                alarms => Value::from(Serde(&alarms)),
            },
        )
    }

    /// Every promotion and demotion.
    pub(super) fn log(&self, log: &[LogEntry]) -> Result<String> {
        let shown: Vec<_> = log.iter().rev().take(ALL_CHANGES).map(|entry| self.log_row(entry)).collect();
        self.page("log.html", 0, context! { title => "Promotions and demotions", log => shown, all => log.len() })
    }

    /// Tests that are not run.
    pub(super) fn skips(&self, skips: &Skips) -> Result<String> {
        let mut rows: Vec<_> = skips.skip.iter().collect();
        rows.sort_by_key(|skip| (skip.until, &skip.component));
        let rows: Vec<_> = rows.into_iter().map(|skip| self.skip_row(skip)).collect();
        self.page("skips.html", 0, context! { title => "Tests that are not run", skips => rows })
    }

    fn log_row(&self, entry: &LogEntry) -> Value {
        context! { has_page => self.has(entry.evidence.as_deref()), ..Value::from(Serde(entry)) }
    }

    fn has(&self, digest: Option<&str>) -> bool {
        digest.is_some_and(|digest| self.runs.contains(digest))
    }

    fn skip_row(&self, skip: &Skip) -> Value {
        let words = |all: &[String]| all.iter().map(|word| clean(word)).collect::<Vec<_>>();
        let expired = day(self.rules.now) > skip.until.to_string();
        let link = skip.link.as_deref().filter(|link| crate::evidence::is_link(link));
        context! {
            component => clean(&skip.component), tests => words(&skip.tests), suites => words(&skip.suites),
            platforms => skip.platforms.iter().map(ToString::to_string).collect::<Vec<_>>(),
            versions => skip.versions.map(|versions| versions.to_string()), unless_lab => skip.unless.is_some(), reason => clean(&skip.reason), link,
            owner => clean(&skip.owner), until => skip.until.to_string(), expired,
        }
    }
}

/// A cell as an entry of a table.
fn short_cell(cell: &Cell) -> Value {
    context! {
        id => cell.id.as_str(), name => format!("{} {}", cell.component, cell.version), platform => cell.platform.to_string(),
        state => cell.state.name(), words => cell.state_words.as_str(), kubernetes => cell.kubernetes.as_deref(),
        supported => cell.supported.met, claim => cell.claim.as_deref(), reason => cell.reason.as_str(),
        at => cell.tested.at.or(cell.levels.e2e.at).or(cell.available.at).map(day),
        until => cell.changes.as_ref().map(|change| day(change.at)),
    }
}

fn skips_here(skip: &Skip, cell: &Cell) -> bool {
    let there = skip.platforms.is_empty() || skip.platforms.contains(&cell.platform);
    clean(&skip.component) == cell.component && there && skip.is_of(&cell.version)
}

/// A run of a cell in the list of all.
fn run_row(entry: &Entry<'_>, of: &Told<'_>) -> Value {
    let mut tries: Vec<_> = entry.told.iter().filter(|told| told.run.digest == of.run.digest).collect();
    tries.sort_by_key(|told| told.attempt.number);
    let result = |told: &&Told<'_>| {
        let name = match (told.attempt.level, told.attempt.suite.as_deref()) {
            (Some(level), Some(suite)) => format!("{} {suite}", level.name()),
            (Some(level), None) => level.name().to_owned(),
            // Tests that somebody picked.
            (None, Some(suite)) => suite.to_owned(),
            (None, None) => "cleanup".to_owned(),
        };
        context! {
            name, verdict => Value::from(Serde(told.attempt.verdict)),
            cause => told.attempt.cause.filter(|_| told.attempt.verdict != Verdict::Shown).map(kit::Cause::name),
            counts => told.attempt.counts().map(|counts| crate::text::counts(&counts)),
        }
    };
    let length = of.run.finished.duration_since(of.run.started).as_secs_f64().max(0.0);
    context! {
        digest => of.run.digest.to_string(), run => of.run.run.to_string(), complete => of.run.complete,
        finished => of.run.finished.to_string(), length, results => tries.iter().map(result).collect::<Vec<_>>(),
    }
}

/// Runs of tests, oldest first: what taught something, and what the infrastructure lost. What did not get so far, or failed
/// by a fault of ours, is no run of tests.
fn points(runs: &[Told<'_>]) -> Vec<charts::Point> {
    let point = |told: &Told<'_>| {
        let share = |counts: kit::record::Counts| {
            let all = counts.asked.saturating_sub(counts.skipped + counts.excluded);
            (all > 0).then(|| ((counts.passed + counts.flaky) as f64 / all as f64).clamp(0.0, 1.0))
        };
        let passed = match told.attempt.verdict {
            Verdict::Shown => told.attempt.counts().and_then(share).or(Some(1.0)),
            Verdict::Failed => told.attempt.counts().and_then(share).or(Some(0.0)),
            _ if is_lost(told) => None,
            _ => return None,
        };
        let length = told.run.finished.duration_since(told.run.started).as_secs_f64() / 60.0;
        Some(charts::Point { at: told.attempt.at, passed, minutes: passed.map(|_| length.max(0.0)) })
    };
    runs.iter().filter_map(point).collect()
}

fn minutes(facts: &crate::index::Facts) -> f64 {
    facts.finished.duration_since(facts.started).as_secs_f64().max(0.0)
}

/// A log around the line that decided the cause: before, the line, after.
fn split(log: &str, line: Option<&str>) -> Vec<String> {
    let needle = line.map(str::trim).filter(|line| !line.is_empty());
    // The line went through other hands than the log: its beginning is enough.
    let needle = needle.map(|line| line.trim_end_matches('…')).map(|line| line.chars().take(80).collect::<String>());
    if let Some(needle) = needle.filter(|needle| needle.chars().count() >= 4) {
        let mut start = 0;
        for part in log.split_inclusive('\n') {
            if part.contains(&needle) {
                let end = start + part.len();
                return vec![log[..start].to_owned(), part.trim_end().to_owned(), log[end..].to_owned()];
            }
            start += part.len();
        }
    }
    vec![log.to_owned(), String::new(), String::new()]
}

/// Pictures are ours: numbers, and words that we made.
fn safe_trends(found: &trends::Trends) -> Value {
    let safe = |all: &[trends::Trend]| {
        let row = |trend: &trends::Trend| context! { picture => Value::from_safe_string(trend.picture().to_owned()), ..Value::from(Serde(trend)) };
        all.iter().map(row).collect::<Vec<_>>()
    };
    context! { runs => found.runs, flaky => safe(&found.flaky), slow => safe(&found.slow) }
}

#[cfg(test)]
mod tests {
    use kit::record::Nature;

    use super::*;

    fn tried(verdict: Verdict, cause: Option<Cause>, nature: Option<Nature>) -> crate::index::Try {
        let key = crate::evidence::Key {
            component: "p".into(),
            version: "v1".into(),
            origin: crate::model::OriginKind::BuiltHere,
            platform: "linux/amd64".parse().unwrap(),
        };
        let about = crate::index::About {
            key: std::rc::Rc::new(key),
            suite: None,
            kubernetes: None,
            release: None,
            builder: None,
        };
        crate::index::Try {
            number: 0,
            about: std::rc::Rc::new(about),
            at: jiff::Timestamp::UNIX_EPOCH,
            level: Some(Level::E2e),
            verdict,
            nature,
            record: None,
            counts: None,
            cause,
        }
    }

    fn run() -> crate::index::RunRef {
        crate::index::RunRef {
            digest: "sha256:1".into(),
            run: "r".into(),
            started: jiff::Timestamp::UNIX_EPOCH,
            finished: jiff::Timestamp::UNIX_EPOCH,
            complete: true,
            files: 1,
            asked: None,
            records: Vec::new(),
            built: Box::default(),
        }
    }

    /// Only what was lost is called lost.
    #[test]
    fn what_was_not_reached_is_no_run_of_tests() {
        let tries = [
            tried(Verdict::NotReached, None, None),
            tried(Verdict::Infrastructure, Some(Cause::Usage), None),
            tried(Verdict::Infrastructure, Some(Cause::Node), None),
            tried(Verdict::Failed, Some(Cause::TestTimeout), None),
        ];
        let run = run();
        let told: Vec<_> = tries.iter().map(|attempt| Told { run: &run, attempt, origin: None }).collect();
        let passed: Vec<_> = points(&told).iter().map(|point| point.passed).collect();
        assert_eq!(passed, [None, Some(0.0)]);
    }

    #[test]
    fn native_and_emulated_runs_are_never_in_one_picture() {
        let tries = [
            tried(Verdict::Shown, None, Some(Nature::Emulated)),
            tried(Verdict::Shown, None, Some(Nature::Native)),
            tried(Verdict::Infrastructure, Some(Cause::Node), None),
        ];
        let run = run();
        let told: Vec<_> = tries.iter().map(|attempt| Told { run: &run, attempt, origin: None }).collect();
        let natures = |told: &[Told<'_>]| {
            let (runs, native) = trends::of_one_nature(told);
            (runs.iter().map(|told| told.attempt.nature).collect::<Vec<_>>(), native)
        };
        assert_eq!(natures(&told), (vec![Some(Nature::Native), None], true));
        assert_eq!(natures(&told[..1]), (vec![Some(Nature::Emulated)], false));
    }

    #[test]
    fn the_line_is_found_in_the_log() {
        let log = "=== RUN\n    x_test.go:1: got 1\nrest";
        assert_eq!(split(log, Some("x_test.go:1: got 1")), ["=== RUN\n", "    x_test.go:1: got 1", "rest"]);
        assert_eq!(split(log, Some("elsewhere")), [log, "", ""]);
        assert_eq!(split("ü\nüü fehler\n", Some("üü fehler")), ["ü\n", "üü fehler", ""]);
        assert_eq!(split(log, None)[0], log);
    }
}
