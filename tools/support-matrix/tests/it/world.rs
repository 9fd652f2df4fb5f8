//! Made run directories: each record as a tool would write it, at dates that do not move.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Parser;
use kit::{
    Cause, Done, Error, Outcome, Platform, Result, RunDir, Ui,
    record::{
        Cleanup, ClusterId, Counts, Difference, Head, Image, ImageKind, Images, Install, Machine, Nature, Node, Origin,
        PlatformRow, Program, Record, Release, Results, RunRecord, SkipSource, Source, Stage, Stages, Status, Test,
    },
    rundir,
};

pub(crate) const FOUR: [&str; 4] = ["linux/amd64", "linux/arm64", "linux/s390x", "linux/ppc64le"];

/// A folder with runs, a history, and configuration.
pub(crate) struct World {
    folder: tempfile::TempDir,
}

/// A run directory in the making.
pub(crate) struct Run {
    pub(crate) dir: RunDir,
    id: String,
    /// Its beginning.
    start: jiff::Timestamp,
    pub(crate) stages: Vec<Stage>,
}

pub(crate) fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        world.config("architectures.toml", "[[architecture]]\nplatform = 'linux/amd64'\nowners = ['The amd64 team']\nhardware = ['this machine']\nclusters = ['lab']\n\n[[architecture]]\nplatform = 'linux/s390x'\n");
        world.config("policy.toml", include_str!("policy.toml"));
        world.config("skips.toml", "");
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self, name: &str, text: &str) {
        rundir::write(&self.path("ci").join(name), text.as_bytes()).unwrap();
    }

    /// A run that begins on `day` of January 2026 at one o'clock.
    pub(crate) fn run(&self, day: u8, name: &str) -> Run {
        self.run_on(&format!("2026-01-{day:02}"), name)
    }

    /// A run that begins on that date at one o'clock.
    pub(crate) fn run_on(&self, date: &str, name: &str) -> Run {
        let id = format!("{}-010000-{name}", date.replace('-', ""));
        let folder = self.path("runs").join(&id);
        // Otherwise the run would be given an id of its own, another one each time.
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("run-id"), &id).unwrap();
        let dir = RunDir::create(folder).unwrap();
        let start = format!("{date}T01:00:00Z").parse().unwrap();
        Run { dir, id, start, stages: Vec::new() }
    }

    pub(crate) fn call(&self, args: &[&str]) -> Result<Done> {
        let args = std::iter::once("support-matrix").chain(args.iter().copied());
        support_matrix::run(support_matrix::Args::parse_from(args), &Ui::silent())
    }

    pub(crate) fn record(&self, run: &Run) -> Result<Done> {
        let dir = run.dir.path().display().to_string();
        let [history, index] = ["history", "index"].map(|name| self.path(name).display().to_string());
        self.call(&["record", &dir, "--history", &history, "--index", &index])
    }

    /// Puts a run into the history as somebody's copy would, whatever it says.
    pub(crate) fn keep(&self, run: &Run) {
        let closed = kit::bundle::seal(&run.dir).unwrap();
        kit::bundle::History::create(self.path("history")).unwrap().store(&closed).unwrap();
    }

    /// A question about this world, asked of the library.
    pub(crate) fn ask(&self, args: &[&str]) -> Result<Done> {
        let [history, index, ci] = ["history", "index", "ci"].map(|name| self.path(name).display().to_string());
        self.call(&[args, &["--history", &history, "--index", &index, "--ci", &ci]].concat())
    }

    /// The same, asked of the program: its exit code and what it says on standard output.
    pub(crate) fn program(&self, args: &[&str]) -> (i32, String) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_support-matrix"));
        let [history, index, ci] = ["history", "index", "ci"].map(|name| self.path(name));
        command.args(args).arg("--history").arg(history).arg("--index").arg(index).arg("--ci").arg(ci);
        let mut said = String::new();
        let process = kit::Process::new("support-matrix", command).on_line(|stream, line| {
            if stream == kit::Stream::Out {
                said.push_str(line);
                said.push('\n');
            }
        });
        let code = process.finish().unwrap().code();
        (code, said)
    }

    /// The same with `--output json`.
    pub(crate) fn json(&self, args: &[&str]) -> (i32, serde_json::Value) {
        let (code, text) = self.program(&[args, &["--output", "json"]].concat());
        (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    /// What it lists then.
    pub(crate) fn listed(&self, args: &[&str]) -> (i32, serde_json::Value) {
        let (code, mut json) = self.json(args);
        assert_eq!(json["schemaVersion"], support_matrix::model::SCHEMA_VERSION, "{json}");
        (code, json["items"].take())
    }

    /// All renderings as files, computed for a day of January 2026.
    pub(crate) fn render(&self, day: u8, more: &[&str]) -> Result<Done> {
        let [history, index, ci, out] =
            ["history", "index", "ci", "out"].map(|name| self.path(name).display().to_string());
        let date = format!("2026-01-{day:02}");
        let args = ["render", "--history", &history, "--index", &index, "--ci", &ci, "--out", &out, "--as-of", &date];
        let format: &[&str] = if more.contains(&"--format") { &[] } else { &["--format", "markdown"] };
        self.call(&[&args[..], format, more].concat())
    }

    pub(crate) fn matrix(&self, day: u8) -> support_matrix::model::Matrix {
        self.render(day, &["--format", "json"]).unwrap();
        serde_json::from_str(&self.output("matrix.json")).unwrap()
    }

    pub(crate) fn output(&self, name: &str) -> String {
        std::fs::read_to_string(self.path("out").join(name)).unwrap()
    }

    pub(crate) fn bundles(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path("history")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// The digest of what was recorded last.
    pub(crate) fn digest(&self, run: &Run) -> String {
        self.record(run).unwrap().digest.unwrap()
    }
}

impl Run {
    fn head(&self, tool: &str, from: i64, to: i64) -> Head {
        let mut head = Head::new(tool, "0.1.0", &self.id, self.start + jiff::SignedDuration::from_mins(from));
        head.finished = self.start + jiff::SignedDuration::from_mins(to);
        head
    }

    pub(crate) fn write<R: Record>(&self, folder: &Path, record: &R) {
        rundir::write_record(&self.dir.path().join(folder), record).unwrap();
    }

    pub(crate) fn cell(&self, component: &str, on: &str) -> PathBuf {
        self.dir.cell(component, &platform(on), "lab-default")
    }

    /// `run.json`.
    pub(crate) fn asked(self, component: &str, test_on: &[&str]) -> Self {
        let record = RunRecord {
            head: self.head("nightly", 0, 0),
            components: vec![component.into()],
            platforms: FOUR.map(platform).to_vec(),
            test_on: test_on.iter().copied().map(platform).collect(),
            suite: None,
            cluster: "lab-default".into(),
            continues: None,
        };
        self.write(Path::new(""), &record);
        self
    }

    /// `images.json`, as `change` leaves it.
    pub(crate) fn built(self, component: &str, version: &str, change: impl FnOnce(&mut Images)) -> Self {
        let row = |on: &str| {
            let platform = platform(on);
            let row = platform.row().unwrap();
            let (machine, byte_order) = (platform.arch.clone(), row.byte_order);
            let path = "/ko-app/controller".into();
            PlatformRow {
                manifest: Some(kit::digest::sha256(on.as_bytes())),
                config: Some(platform.clone()),
                program: Some(Program { path, format: "elf".into(), machine, class: 64, byte_order }),
                user: Some("65532:65532".into()),
                size: 1_000,
                ..PlatformRow::new(platform)
            }
        };
        let image = |name: &str| Image {
            name: format!("example.com/{component}/cmd/{name}"),
            kind: ImageKind::Built,
            reference: format!("10.0.0.2:5000/{component}/{name}"),
            digest: Some(kit::digest::sha256(name.as_bytes())),
            base: Some("10.0.0.2:5000/static:latest".into()),
            platforms: FOUR.map(row).to_vec(),
        };
        let digest = release(component, version);
        let mut images = Images {
            head: self.head("image-build", 0, 5),
            component: component.into(),
            version: version.into(),
            source: Source::Module {
                path: format!("example.com/{component}"),
                version: version.into(),
                sum: String::new(),
            },
            origin: Origin::BuiltHere,
            platforms: FOUR.map(platform).to_vec(),
            images: vec![image("controller"), image("webhook")],
            reused: Vec::new(),
            replacements: Vec::new(),
            unused: Vec::new(),
            release: Some(Release { digest, objects: 7, artifact: None }),
        };
        change(&mut images);
        self.write(Path::new(component), &images);
        let (outcome, cause) = (images.head.outcome, images.head.cause);
        self.stage("build", component, None, (0, 5), outcome, cause)
    }

    /// `install.json`, as `change` leaves it.
    pub(crate) fn installed(self, component: &str, version: &str, on: &str, change: impl FnOnce(&mut Install)) -> Self {
        let mut install = Install {
            head: self.head("cluster-install", 5, 6),
            component: component.into(),
            version: version.into(),
            release: release(component, version),
            platform: platform(on),
            nature: Nature::Native,
            cluster: cluster(on, Nature::Native),
            objects: 7,
            changed: 7,
            namespaces: vec![component.into()],
            running: Vec::new(),
            node_selector: BTreeMap::new(),
            slowdown: None,
            patient_probes: 0,
            unchecked: false,
            flags: None,
            settings: Vec::new(),
            registries: BTreeMap::new(),
            applied: Vec::new(),
            pruned: Vec::new(),
        };
        change(&mut install);
        self.write(&self.cell(component, on), &install);
        let (outcome, cause) = (install.head.outcome, install.head.cause);
        self.stage("install", component, Some(on), (5, 6), outcome, cause)
    }

    /// `results.json` of tests, by name, as `change` leaves it.
    pub(crate) fn tested(
        self,
        component: &str,
        version: &str,
        on: &str,
        tests: Vec<Test>,
        change: impl FnOnce(&mut Results),
    ) -> Self {
        let mut head = self.head("e2e-runner", 6, 14);
        let cause = tests.iter().filter(|test| test.status == Status::Failed).find_map(|test| test.cause);
        if let Some(cause) = cause {
            head =
                head.failed(&Error::new(cause, "tests failed")).reproduce("cargo xtask e2e-runner run --suite smoke");
        }
        let counts = count(&tests);
        let mut results = Results {
            head,
            component: component.into(),
            version: version.into(),
            kind: "e2e".into(),
            suite: "smoke".into(),
            platform: platform(on),
            nature: Nature::Native,
            cluster: "uid-1".into(),
            release: Some(release(component, version)),
            counts,
            all_counts: counts,
            conditions: Default::default(),
            tests,
            shard: (1, 1),
            whole: None,
            evidence: None,
        };
        change(&mut results);
        self.write(&self.cell(component, on), &results);
        let (outcome, cause) = (results.head.outcome, results.head.cause);
        self.stage("test", component, Some(on), (6, 14), outcome, cause)
    }

    /// `cleanup.json`.
    pub(crate) fn cleaned(self, component: &str, on: &str) -> Self {
        let cleanup = Cleanup {
            head: self.head("cleanup", 14, 15),
            cluster: cluster(on, Nature::Native),
            stage: "objects".into(),
            deleted: BTreeMap::from([("Deployment".into(), 2)]),
            restored: Vec::new(),
            forced: Vec::new(),
            selection: Vec::new(),
            recreated: Vec::new(),
            history: None,
            difference: Difference::default(),
        };
        self.write(&self.cell(component, on), &cleanup);
        self.stage("cleanup", component, Some(on), (14, 15), Outcome::Passed, None)
    }

    pub(crate) fn log(self, component: &str, on: &str, name: &str, text: &[u8]) -> Self {
        rundir::write(&self.cell(component, on).join("logs").join(name), text).unwrap();
        self
    }

    pub(crate) fn stage(
        mut self,
        name: &str,
        component: &str,
        on: Option<&str>,
        minutes: (i64, i64),
        outcome: Outcome,
        cause: Option<Cause>,
    ) -> Self {
        let head = self.head("nightly", minutes.0, minutes.1);
        self.stages.push(Stage {
            name: name.into(),
            component: (!component.is_empty()).then(|| component.into()),
            platform: on.map(platform),
            part: None,
            started: head.started,
            finished: head.finished,
            outcome,
            cause,
            exit: cause.map_or(0, |cause| i32::from(cause.exit().0)),
            command: format!("cargo xtask {name}"),
        });
        self
    }

    /// `stages.json`: the run came to its end.
    pub(crate) fn ended(self) -> Self {
        let record = Stages { head: self.head("nightly", 0, 15), stages: self.stages.clone() };
        self.write(Path::new(""), &record);
        self
    }

    /// Built, installed and tested with suite `full` on `on`, natively.
    pub(crate) fn full(self, component: &str, version: &str, on: &str, tests: Vec<Test>) -> Self {
        let run = self.asked(component, &[on]).built(component, version, |_| ());
        let run = run.installed(component, version, on, |_| ());
        run.tested(component, version, on, tests, |results| results.suite = "full".into()).ended()
    }

    /// The same, but the cluster went away before anything was learnt.
    pub(crate) fn lost(self, component: &str, version: &str, on: &str) -> Self {
        let run = self.asked(component, &[on]).built(component, version, |_| ());
        let run = run.installed(component, version, on, |install| {
            install.head = install.head.clone().failed(&Error::new(Cause::ClusterUnreachable, "no answer"));
        });
        run.ended()
    }

    /// A good run of a component from its sources to a clean cluster.
    pub(crate) fn good(self, component: &str, version: &str, tests: Vec<Test>) -> Self {
        let run = self.asked(component, &["linux/amd64"]).built(component, version, |_| ());
        let run = run.installed(component, version, "linux/amd64", |_| ());
        run.tested(component, version, "linux/amd64", tests, |_| ()).cleaned(component, "linux/amd64").ended()
    }
}

pub(crate) fn release(component: &str, version: &str) -> String {
    kit::digest::sha256(format!("{component} {version}").as_bytes())
}

pub(crate) fn cluster(on: &str, nature: Nature) -> ClusterId {
    let node = Node {
        name: "node-1".into(),
        platform: platform(on),
        nature,
        evidence: (nature == Nature::Emulated).then(|| "probe: /proc/sysinfo says Manufacturer: QEMU".into()),
        machine: (nature == Nature::Emulated).then(|| Machine {
            model: Some("QEMU 8561".into()),
            processor: Some("z15".into()),
            page_size: 4096,
            work_micros: Some(300_000),
        }),
        kubelet: "v1.37.2".into(),
        kernel: "6.1.0".into(),
        ready: true,
    };
    ClusterId { uid: "uid-1".into(), name: "lab-default".into(), kubernetes: "v1.37.2".into(), nodes: vec![node] }
}

pub(crate) fn test(name: &str, status: Status, cause: Option<Cause>) -> Test {
    Test {
        name: name.into(),
        package: "example.com/test".into(),
        status,
        cause,
        line: None,
        skipped_by: None,
        round: None,
        seconds: 1.5,
        attempts: 1,
        log: None,
        reproduce: None,
        evidence: None,
        shadow: None,
    }
}

/// So many good tests.
pub(crate) fn passing(count: usize) -> Vec<Test> {
    (1..=count).map(|i| test(&format!("TestGood{i:02}"), Status::Passed, None)).collect()
}

fn count(tests: &[Test]) -> Counts {
    let top: Vec<_> = tests.iter().filter(|test| !test.name.contains('/')).collect();
    let of = |status| top.iter().filter(|test| test.status == status).count();
    let excluded = top.iter().filter(|test| test.skipped_by == Some(SkipSource::Ledger)).count();
    Counts {
        asked: top.len(),
        passed: of(Status::Passed),
        failed: of(Status::Failed),
        flaky: of(Status::Flaky),
        skipped: of(Status::Skipped) - excluded,
        excluded,
        not_run: of(Status::NotRun),
    }
}
