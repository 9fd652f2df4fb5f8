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
        (None, path) => Source::Folder { path: path.clone().unwrap_or_default(), digest: String::new() },
    };
    Images {
        head: Head::new("image-build", env!("CARGO_PKG_VERSION"), &run.id(), Timestamp::now()),
        component: args.component.clone(),
        version: component.version().into(),
        source,
        origin: Origin::BuiltHere,
        platforms: args.platforms.list(),
        images: Vec::new(),
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
    let platforms: Vec<_> = args.platforms.list().iter().map(ToString::to_string).collect();
    let mut words = vec!["image-build".to_owned(), "build".into()];
    let mut option = |name: &str, value: &str| words.extend([format!("--{name}"), quote(value)]);
    option("component", &args.component);
    option("repo", args.repo.name());
    option("platform", &platforms.join(","));
    option("run-dir", &args.run_dir.to_string_lossy());
    for base in &args.bases {
        option("base", base);
    }
    if let Some(flags) = &args.go_flags {
        words.push(format!("--go-flags={}", quote(flags)));
    }
    words.join(" ")
}
