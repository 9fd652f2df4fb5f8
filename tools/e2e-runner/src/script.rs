//! `run --kind script`: a repository's own test script, run here with the environment that it expects; what it prints
//! or leaves becomes the same results as everything else.

mod tap;
mod xml;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use jiff::Timestamp;
use kit::{
    Cause, Done, Error, Output, Platform, Process, Result, Stream as Pipe, Ui,
    ci::{Script, ScriptOutput, parse_duration},
    process::{Stopper, quote},
    record::{Input, Results, Status},
    source, ui,
};

use crate::{
    builds::Builds,
    cause::{Judge, Verdict},
    compare::SOURCES,
    environment::{self, Values},
    health::Watch,
    live::Live,
    parse::{Stream, log::Folder},
    passes::{self, STAYED_AWAY},
    place::Place,
    plan::{LIMIT, Plan},
    program,
    report::{self, PACKAGE, Row},
    rounds::Came,
    session::{self, At},
    settle,
};
use tap::Tap;

/// How long it may print nothing.
const SILENCE: Duration = Duration::from_mins(10);

/// The script that is meant, and its name.
///
/// # Errors
/// [`Cause::Usage`] if none is, or several are.
pub(crate) fn section<'p>(plan: &'p Plan<'_>) -> Result<(String, &'p Script)> {
    let (component, scripts) = (&plan.args.component, &plan.component.scripts);
    let found = match &plan.args.script {
        Some(name) => scripts.get_key_value(name),
        None if scripts.len() == 1 => scripts.first_key_value(),
        None => None,
    };
    let (name, script) = found.ok_or_else(|| {
        let known: Vec<_> = scripts.keys().map(String::as_str).collect();
        let next = if known.is_empty() {
            format!("add [{component}.scripts.NAME] to {}", plan.ci.folder().join("components.toml").display())
        } else {
            format!("say with --script which: {}", known.join(", "))
        };
        let named = plan.args.script.as_ref().map(|name| format!(" '{name}'")).unwrap_or_default();
        Error::new(Cause::Usage, format!("component '{component}' has no script{named} that is meant")).next(next)
    })?;
    Ok((name.clone(), script))
}

/// Folder, command and environment.
struct Work {
    name: String,
    script: Script,
    root: PathBuf,
    sources: String,
    command: Vec<String>,
    environment: BTreeMap<String, OsString>,
}

impl Work {
    fn new(plan: &Plan<'_>, values: Values, builds: &Builds, ui: &Ui) -> Result<Self> {
        let values = &Values { builds: builds.paths(), ..values };
        let (name, script) = section(plan)?;
        let checkout = source::checkout(&plan.ci, &plan.component, ui)?;
        let command = script.command.iter().map(|word| values.fill(word)).collect::<Result<Vec<_>>>()?;
        let programs = environment::programs(&plan.component)?;
        let go = source::go("reading what tests print").ok();
        let go_bin = go.and_then(|go| go.parent().map(Path::to_path_buf)).unwrap_or_default();
        // What the scripts of Tekton and Knative look for.
        let mut env = BTreeMap::from([
            ("PLATFORM".to_owned(), "{platform}".to_owned()),
            ("TEST_RUNTIME_ARCH".to_owned(), "{goarch}".to_owned()),
        ]);
        env.extend(values.repo.as_ref().map(|_| ("KO_DOCKER_REPO".to_owned(), "{repo}".to_owned())));
        env.extend(values.namespace.as_ref().map(|_| ("SYSTEM_NAMESPACE".to_owned(), "{namespace}".to_owned())));
        env.extend(script.env.clone());
        let environment = environment::variables(&env, values, &plan.args.env, &programs, &go_bin, &checkout.dir)?;
        let sources = program::sources(&checkout.source);
        Ok(Self { name, script: script.clone(), root: checkout.dir, sources, command, environment })
    }

    fn describe(&self) -> String {
        let mut text = format!("cd {}\n", quote(&self.root.display().to_string()));
        for (name, value) in &self.environment {
            let value = kit::secrets::shown(name, &value.to_string_lossy());
            text.push_str(&format!("export {name}={}\n", quote(&value)));
        }
        let words: Vec<_> = self.command.iter().map(|word| quote(word)).collect();
        text + &words.join(" ") + "\n"
    }

    /// The process: Go makes events of what looks like its own text.
    fn process(&self, package: &str) -> Result<Command> {
        let mut command = if self.script.output == ScriptOutput::Go {
            let mut ask = source::go_command("reading what tests print", &self.root)?;
            ask.args(["tool", "-n", "test2json"]);
            let test2json = Process::new("go tool", ask).limit(Duration::from_secs(120)).read()?;
            let mut command = Command::new(test2json.trim());
            command.args(["-t", "-p", package]).args(&self.command);
            command
        } else {
            let mut command = Command::new(&self.command[0]);
            command.args(&self.command[1..]);
            command
        };
        command.current_dir(&self.root).env_clear().envs(&self.environment);
        Ok(command)
    }
}

/// Says what would run.
///
/// # Errors
/// What is wrong with the call.
pub(crate) fn dry_run(plan: &Plan<'_>, ui: &Ui) -> Result<Done> {
    let platform = plan.args.platform.clone().unwrap_or_else(Platform::host);
    let values = plan.values("KUBECONFIG-OF-THE-CLUSTER".into(), &platform, Some("REGISTRY".into()));
    let builds = plan.builds(ui)?;
    let work = Work::new(plan, values, &builds, ui)?;
    match ui.output {
        Output::Json => ui.json(&serde_json::json!({
            "component": plan.args.component, "kind": "script", "name": work.name, "platform": platform.to_string(),
            "builds": builds.paths(), "script": work.describe(),
        }))?,
        Output::Text => ui.result((builds.in_words() + &work.describe()).trim_end())?,
    }
    Ok(Done::good())
}

/// Runs it.
///
/// # Errors
/// What kept it from running, or the signal that ended it.
pub(crate) fn in_place(plan: &mut Plan<'_>, place: &mut Place, at: &At<'_>, results: &mut Results) -> Result<Done> {
    let (installed, pace) = session::begin(plan, place, at, results)?;
    let registry = place.opened.lab.as_ref().map(|lab| lab.registry.clone());
    let values = plan.values(place.opened.kubeconfig.clone(), &place.platform, registry);
    let work = Work::new(plan, values, &plan.builds(at.ui)?.make(at.ui)?, at.ui)?;
    results.head.inputs.push(Input { name: SOURCES.into(), digest: work.sources.clone() });
    results.conditions.stretch = session::stretch(&pace, &[]);
    let logs = at.home.logs();
    passes::clear(&logs)?;
    kit::rundir::write(&logs.join("_command.txt"), work.describe().as_bytes())?;
    let said = work.script.time_limit.as_deref().map(parse_duration).transpose()?;
    let limit = plan.args.timeout.unwrap_or(pace.stretch(said.unwrap_or(LIMIT)));
    let silence = plan.args.silence.unwrap_or_else(|| pace.stretch(SILENCE));
    let server = place.opened.server.trim_end_matches('/').rsplit("//").next();
    let (folder, stopper) = (Folder::new(&logs), Stopper::default());
    let judge = Judge::new(server).of_namespace(plan.namespace());
    let how = How { limit, silence, stopper: &stopper, judge: &judge };
    let came = session::observed(plan, place, at, results, None, |evidence| {
        let watch = async { Watch::start(place.opened.client.clone(), &place.platform, stopper.clone()) };
        let watch = at.runtime.block_on(watch);
        let mut came = run(&work, &folder, &how, at.ui)?;
        evidence.judge(&mut came.rows, &logs);
        settle::settle(&mut came, place, watch, at.runtime, at.ui);
        Ok(came)
    })?;
    session::say_cut(results, &folder.allowance(), at.ui);
    session::conclude(plan, results, came, at, &installed)
}

/// How a script is run, and what its output means.
struct How<'a> {
    limit: Duration,
    silence: Duration,
    /// Ends it if the API server or the nodes stay away.
    stopper: &'a Stopper,
    judge: &'a Judge,
}

fn run(work: &Work, folder: &Folder, how: &How<'_>, ui: &Ui) -> Result<Came> {
    let How { limit, silence, stopper, judge } = *how;
    let began = Timestamp::now();
    let package = format!("script {}", work.name);
    let live = Live::start(ui, ui.step(&package), 0);
    let (mut output, mut written) = (folder.log("_output"), Ok(()));
    let mut stream = Stream::new(folder.clone(), true, judge, live.feed());
    let mut tap = Tap::new(&package);
    let form = work.script.output;
    let report = work.script.report.as_ref().map(|report| work.root.join(report));
    if let Some(old) = report.as_ref().filter(|report| report.exists()) {
        // A report of an earlier run would be taken for this one's.
        let removed = std::fs::remove_file(old);
        removed
            .map_err(|error| Error::from_source(Cause::HostDisk, format!("cannot remove {}", old.display()), error))?;
    }
    let process = Process::new(package.clone(), work.process(&package)?).silence(silence).limit(limit);
    let process = process.stop_with(stopper);
    let mut last = Vec::new();
    let finished = process
        .on_line(|pipe, line| {
            let mut take = || -> Result<()> {
                folder.write(&mut output, line.as_bytes())?;
                folder.write(&mut output, b"\n")?;
                match form {
                    ScriptOutput::GoJson | ScriptOutput::Go if pipe == Pipe::Out => stream.line(line.as_bytes()),
                    ScriptOutput::Tap if pipe == Pipe::Out => {
                        tap.line(line).iter().try_for_each(|event| stream.line(event.to_string().as_bytes()))
                    }
                    _ => Ok(()),
                }
            };
            if written.is_ok() {
                written = take();
            }
            if last.len() == 40 {
                last.remove(0);
            }
            last.push(line.to_owned());
        })
        .finish();
    written?;
    folder.finish(output)?;
    let (mut came, mut known) = (Came::default(), None);
    let code = match finished {
        Ok(finished) if finished.stopped => {
            known = Some((Some(Cause::ClusterUnreachable), STAYED_AWAY.to_owned()));
            124
        }
        Ok(finished) if finished.silent || finished.timed_out => {
            let why = if finished.silent {
                format!("the script printed nothing for {}", ui::duration(silence))
            } else {
                format!("the script did not end within {}", ui::duration(limit))
            };
            known = Some((Some(Cause::TestTimeout), why));
            124
        }
        Ok(finished) => finished.code(),
        Err(Error { signal: Some(number), .. }) => {
            came.signal = Some(number);
            known = Some((Some(Cause::Interrupted), format!("stopped by signal {number}")));
            128 + number
        }
        Err(error) => return Err(error),
    };
    if form == ScriptOutput::Tap {
        // Of a script that was stopped, the last result counts as those before it.
        let events = if known.is_none() { tap.end(code) } else { tap.close().into_iter().collect() };
        events.iter().try_for_each(|event| stream.line(event.to_string().as_bytes()))?;
    }
    let mut unread = None;
    if let Some(report) = report.filter(|_| came.signal.is_none()) {
        match xml::events(&report) {
            Ok(events) => events.iter().try_for_each(|event| stream.line(event.to_string().as_bytes()))?,
            Err(error) => unread = Some(error),
        }
    }
    drop(live);
    let last = last.join("\n");
    // Why a script failed in the middle of a package, its last words say.
    let cut = code != 0 && !stream.is_whole();
    let reason = known.clone().or_else(|| {
        let (cause, why, _) = cut.then(|| failed(code, judge.package(&last)))?;
        Some((Some(cause), why))
    });
    came.rows = report::rows(stream.finish(reason)?);
    let ended = Timestamp::now();
    times(&mut came.rows, form, (began, ended));
    let itself = of_script(&package, code, known, unread, &came.rows, &last, judge);
    came.rows.extend(itself.map(|row| Row { ran: Some((began, ended)), ..row }));
    Ok(came)
}

/// Cause, line and words of a script that ended with that code.
fn failed(code: i32, verdict: Verdict) -> (Cause, String, Vec<String>) {
    (verdict.cause, format!("exit code {code}: {}", verdict.line.unwrap_or_default()), verdict.excerpt)
}

/// When tests ran whose form does not say it: of TAP since the result before, of JUnit at any time.
fn times(rows: &mut [Row], form: ScriptOutput, (began, ended): (Timestamp, Timestamp)) {
    let mut since = began;
    for row in rows {
        let Some((at, _)) = row.ran else { continue };
        match form {
            ScriptOutput::Tap => (row.ran, since) = (Some((since, at)), at),
            ScriptOutput::Junit => row.ran = Some((began, ended)),
            ScriptOutput::Go | ScriptOutput::GoJson => {}
        }
    }
}

/// A row for the script itself, where its tests do not say what became of it.
fn of_script(
    package: &str,
    code: i32,
    known: Option<(Option<Cause>, String)>,
    unread: Option<Error>,
    rows: &[Row],
    last: &str,
    judge: &Judge,
) -> Option<Row> {
    let bad = rows.iter().any(|row| row.test.status == Status::Failed);
    let mut packages = rows.iter().map(|row| &row.test).filter(|test| test.name == PACKAGE);
    if let Some((cause, why)) = &known
        && packages.any(|test| test.cause == *cause && test.line.as_ref() == Some(why))
    {
        // The package that it was in says so.
        return None;
    }
    let mut test = report::row(PACKAGE, package, Status::Failed);
    let mut excerpt = Vec::new();
    (test.cause, test.line) = match (known, unread) {
        (Some((cause, why)), _) => (cause, Some(why)),
        (None, Some(error)) => (Some(error.cause), Some(error.summary())),
        (None, None) if code != 0 && !bad => {
            let (cause, why, words) = failed(code, judge.package(last));
            excerpt = words;
            (Some(cause), Some(why))
        }
        (None, None) => return None,
    };
    Some(Row { test, excerpt, ran: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_ran_since_the_result_before() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let row = |name: &str, ran: Option<(i64, i64)>| {
            let ran = ran.map(|(began, ended)| (at(began), at(ended)));
            Row { test: report::row(name, "s", Status::Passed), excerpt: Vec::new(), ran }
        };
        // The second comes with the third's result.
        let rows = || vec![row(PACKAGE, None), row("a", Some((3, 7))), row("b", Some((7, 9)))];
        let ran = |form| {
            let mut rows = rows();
            times(&mut rows, form, (at(1), at(9)));
            rows.into_iter().filter_map(|row| row.ran).map(|(a, b)| (a.as_second(), b.as_second())).collect::<Vec<_>>()
        };
        assert_eq!(ran(ScriptOutput::Tap), [(1, 3), (3, 7)]);
        assert_eq!(ran(ScriptOutput::Junit), [(1, 9), (1, 9)]);
        assert_eq!(ran(ScriptOutput::Go), [(3, 7), (7, 9)]);
    }
}
