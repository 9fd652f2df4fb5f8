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

use kit::{
    Cause, Done, Error, Output, Platform, Process, Result, Stream as Pipe, Ui,
    ci::{Script, ScriptOutput, parse_duration},
    process::quote,
    record::{Input, Results, Status},
    source, ui,
};

use crate::{
    cause::Judge,
    compare::SOURCES,
    environment::{self, Values},
    live::Live,
    parse::{Stream, log::Folder},
    place::Place,
    plan::Plan,
    program,
    report::{self, PACKAGE, Row},
    rounds::Came,
    session::{self, At},
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
    let args = plan.args;
    let parts = !plan.wanted.is_empty() || args.shard.is_part() || args.suite.is_some() || args.shadow;
    if parts || args.fail_fast || args.max_failures.is_some() {
        return Err(Error::new(Cause::Usage, "a script runs as a whole").next(
            "leave out --tests, --only-failed, --suite, --shard, --shadow, --fail-fast and --max-failures; say what it \
             is to run with --env",
        ));
    }
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
    fn new(plan: &Plan<'_>, values: &Values, ui: &Ui) -> Result<Self> {
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
            text.push_str(&format!("export {name}={}\n", quote(&value.to_string_lossy())));
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
    let work = Work::new(plan, &values, ui)?;
    match ui.output {
        Output::Json => ui.json(&serde_json::json!({
            "component": plan.args.component, "kind": "script", "name": work.name, "platform": platform.to_string(),
            "script": work.describe(),
        }))?,
        Output::Text => ui.result(work.describe().trim_end())?,
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
    let work = Work::new(plan, &values, at.ui)?;
    results.head.inputs.push(Input { name: SOURCES.into(), digest: work.sources.clone() });
    results.conditions.stretch = session::stretch(&pace, &[]);
    let logs = at.home.logs();
    at.home.clear_logs()?;
    kit::rundir::write(&logs.join("_command.txt"), work.describe().as_bytes())?;
    let said = work.script.time_limit.as_deref().map(parse_duration).transpose()?;
    let limit = plan.args.timeout.or(said.map(|limit| pace.stretch(limit)));
    let silence = plan.args.silence.unwrap_or_else(|| pace.stretch(SILENCE));
    let server = place.opened.server.trim_end_matches('/').rsplit("//").next();
    let came = run(&work, &logs, limit, silence, &Judge::new(server), at.ui)?;
    session::conclude(plan, results, came, at, &installed)
}

fn run(work: &Work, logs: &Path, limit: Option<Duration>, silence: Duration, judge: &Judge, ui: &Ui) -> Result<Came> {
    let package = format!("script {}", work.name);
    let live = Live::start(ui, ui.step(&package), 0);
    let folder = Folder::new(logs);
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
    let mut process = Process::new(package.clone(), work.process(&package)?).silence(silence);
    if let Some(limit) = limit {
        process = process.limit(limit);
    }
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
        Ok(finished) if finished.silent || finished.timed_out => {
            let why = match (finished.silent, limit) {
                (true, _) => format!("the script printed nothing for {}", ui::duration(silence)),
                (_, Some(limit)) => format!("the script did not end within {}", ui::duration(limit)),
                _ => "the script was stopped".into(),
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
    let whole = known.is_none();
    if form == ScriptOutput::Tap && whole {
        tap.end(code).iter().try_for_each(|event| stream.line(event.to_string().as_bytes()))?;
    }
    let mut unread = None;
    if let Some(report) = report.filter(|_| came.signal.is_none()) {
        match xml::events(&report) {
            Ok(events) => events.iter().try_for_each(|event| stream.line(event.to_string().as_bytes()))?,
            Err(error) => unread = Some(error),
        }
    }
    drop(live);
    came.rows = report::rows(stream.finish(known.clone())?);
    came.rows.extend(of_script(&package, code, known, unread, &came.rows, &last.join("\n"), judge));
    Ok(came)
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
    let mut test = report::row(PACKAGE, package, Status::Failed);
    let mut excerpt = Vec::new();
    (test.cause, test.line) = match (known, unread) {
        (Some((cause, why)), _) => (cause, Some(why)),
        (None, Some(error)) => (Some(error.cause), Some(error.summary())),
        (None, None) if code != 0 && !bad => {
            let verdict = judge.package(last);
            excerpt = verdict.excerpt;
            (Some(verdict.cause), Some(format!("exit code {code}: {}", verdict.line.unwrap_or_default())))
        }
        (None, None) => return None,
    };
    Some(Row { test, excerpt, ran: None })
}
