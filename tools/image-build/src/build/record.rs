//! `images.json` from its beginning to its end, also when the build fails.

use std::path::Path;

use jiff::Timestamp;
use kit::{
    Error, Result, RunDir,
    ci::Component,
    process::quote,
    record::{Head, Images, Origin, Source},
    rundir,
};

use super::Args;

/// What can be said before anything was done.
pub(super) fn begin(args: &Args, component: &Component, run: &RunDir) -> Images {
    let source = match (&component.module, &component.path) {
        (Some(path), _) => {
            Source::Module { path: path.clone(), version: component.version().into(), sum: String::new() }
        }
        (None, path) => Source::Folder { path: path.clone().unwrap_or_default(), digest: String::new(), commit: None },
    };
    Images {
        head: Head::new("image-build", env!("CARGO_PKG_VERSION"), &run.id(), Timestamp::now()),
        component: args.component.clone(),
        version: args.version(component).into(),
        source,
        origin: Origin::BuiltHere,
        platforms: args.platforms.list().unwrap_or_default(),
        images: Vec::new(),
        reused: Vec::new(),
        replacements: Vec::new(),
        unused: Vec::new(),
        release: None,
    }
}

/// Writes the record with how it ended; returns its digest.
pub(super) fn finish(args: &Args, folder: &Path, mut record: Images, error: Option<&Error>) -> Result<String> {
    record.head.finished = Timestamp::now();
    if let Some(error) = error {
        record.head = record.head.failed(error);
    }
    record.head = record.head.reproduce(reproduce(args));
    rundir::write_record(folder, &record)
}

fn reproduce(args: &Args) -> String {
    let mut words = vec!["image-build".to_owned(), "build".into()];
    let mut option = |name: &str, value: &str| words.push(format!("--{name}={}", quote(value)));
    option("component", &args.component);
    option("repo", args.repo.name());
    option("platform", &args.platforms.to_string());
    option("run-dir", &args.run_dir.to_string_lossy());
    if let Some(version) = &args.version {
        option("version", version);
    }
    if args.sbom != "spdx" {
        option("sbom", &args.sbom);
    }
    for tag in &args.tags {
        option("tag", tag);
    }
    for base in &args.bases {
        option("base", base);
    }
    if let Some(flags) = &args.go_flags {
        option("go-flags", flags);
    }
    let switches = [
        (args.bare, "--bare"),
        (args.base_import_paths, "--base-import-paths"),
        (args.hashed_import_paths, "--hashed-import-paths"),
        (args.reuse, "--reuse"),
    ];
    words.extend(switches.iter().filter(|(given, _)| *given).map(|(_, switch)| (*switch).to_owned()));
    let others = args.others();
    if !others.is_empty() {
        words.push("--".into());
        words.extend(others.iter().map(|word| quote(word)));
    }
    words.join(" ")
}
