//! `image-build audit`: every image that a component's files name, and which of them lack a platform.

mod database;
mod map;
mod scan;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kit::{
    Cause, Done, Error, Output, Platform, Result, Ui,
    ci::{CiOptions, ImageMap},
    rundir, ui,
};
use oci::{Client, Place, Reference};
use serde::Serialize;

use crate::{
    images::{self, Known},
    options::Platforms,
    show,
};
use database::{Database, Seen};
use scan::Named;

/// Images looked at together.
const PARALLEL: usize = 8;

/// The command line's examples.
pub(crate) const EXAMPLES: &str = "\
Examples:
  # What a checkout of Tekton names, for its tests on s390x and ppc64le
  image-build audit ~/src/pipeline --platform linux/s390x,linux/ppc64le

  # The same without a network, from what was seen before
  image-build audit ~/src/pipeline --platform linux/s390x --offline --database images.json --output json

Exit codes: 0 every image is there for every platform, or ci/images.toml has something in its place; 1 an image lacks a
platform and nothing stands in for it; 2 the call or a file that it names is wrong; 3 an image could not be looked at;
4 no file names an image.";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folder of the component's sources
    #[arg(value_name = "DIR")]
    sources: PathBuf,
    #[command(flatten)]
    platforms: Platforms,
    /// Read Go's unit tests as well, whose images are mostly made up
    #[arg(long)]
    unit_tests: bool,
    /// Remember here what images offer [default: images-seen.json in the cache]
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// Ask no registry; only what is remembered counts
    #[arg(long)]
    offline: bool,
    /// Write what was found as [[image]] entries of a ci/images.toml: what stands in for an image, and of one that lacks
    /// a platform those that it has, as far as they were asked for
    #[arg(long, value_name = "FILE")]
    image_map: Option<PathBuf>,
    #[command(flatten)]
    ci: CiOptions,
}

/// What there is to say of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// It has all platforms.
    Ok,
    /// `ci/images.toml` has something in its place.
    Replaced,
    /// `ci/images.toml` says that nothing runs it.
    Unused,
    /// It lacks a platform.
    LacksPlatform,
    /// Its digest is that of one platform's image, so it can never be another one's.
    SinglePlatformDigest,
    /// Nobody could look at it.
    Unreachable,
}

/// What is put in an image's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Replacement {
    /// The `[build.NAME]` of `ci/images.toml` that stands in for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<String>,
    /// Why nothing has to.
    #[serde(skip_serializing_if = "Option::is_none")]
    unused: Option<String>,
}

/// An image at a place that names it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    file: String,
    line: usize,
    /// As the file has it.
    reference: String,
    /// With registry, repository, tag or digest: as `names` in `ci/images.toml` has it.
    name: String,
    digest: Option<String>,
    /// Platforms offered, as far as they are known.
    platforms: Vec<String>,
    /// Platforms asked for and not offered.
    missing: Vec<Platform>,
    verdict: Verdict,
    replacement: Option<Replacement>,
    /// Why it could not be looked at, or since when what is said is known.
    note: Option<String>,
}

/// The whole audit.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    folder: String,
    platforms: Vec<Platform>,
    files: usize,
    rows: Vec<Row>,
}

/// An image that was looked at, or why it could not be.
type Looked = Result<Seen, Error>;

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    // Outside a workspace nothing stands in for anything.
    let map = args.ci.open().map_or_else(|_| Ok(ImageMap::default()), |ci| ci.images())?;
    let platforms = args.platforms.list();
    let (mut database, remark) = Database::open(args.database.as_deref())?;
    let step = ui.step(format!("reading {}", args.sources.display()));
    let scan = scan::scan(&args.sources, args.unit_tests)?;
    step.done(format!("{} files name {} images", scan.files, scan.named.len()));
    if scan.unit_tests > 0 {
        ui.note(format!("{} files of unit tests are left out (--unit-tests reads them)", scan.unit_tests));
    }
    for remark in scan.remarks.iter().chain(&remark) {
        ui.warn(remark);
    }
    if scan.named.is_empty() {
        let what = format!("no YAML, JSON, Go, shell or Dockerfile in {} names an image", args.sources.display());
        return Err(Error::new(Cause::NothingRan, what));
    }
    let names = names(&scan.named)?;
    let step = ui.step(format!("looking at {} images", names.len()));
    let looked = look(&names, &mut database, args.offline)?;
    step.done("");
    database.save()?;
    let rows = scan.named.iter().map(|named| row(named, &looked, &map, &platforms)).collect::<Result<Vec<_>>>()?;
    let error = problem(&rows, &looked);
    if let Some(file) = &args.image_map {
        rundir::write(file, map::entries(&rows, &platforms).as_bytes())?;
    }
    let report = Report { folder: folder(&args.sources), platforms, files: scan.files, rows };
    match ui.output {
        Output::Json => ui.json(&report)?,
        Output::Text => ui.result(&text(&report.rows))?,
    }
    error.map_or_else(|| Ok(Done::good()), Err)
}

fn folder(path: &Path) -> String {
    path.display().to_string()
}

/// Each image once, by its whole reference.
fn names(named: &[Named]) -> Result<Vec<String>> {
    let mut names = named.iter().map(|named| whole(&named.reference)).collect::<Result<Vec<_>>>()?;
    names.sort();
    names.dedup();
    Ok(names)
}

fn whole(reference: &str) -> Result<String> {
    Ok(oci::parse(reference)?.whole())
}

fn look(names: &[String], database: &mut Database, offline: bool) -> Result<BTreeMap<String, Looked>> {
    let now = Timestamp::now();
    let (mut looked, mut open) = (BTreeMap::new(), Vec::new());
    for name in names {
        match database.get(name).filter(|_| offline).or_else(|| database.fresh(name, now)) {
            Some(seen) => drop(looked.insert(name.clone(), Ok(seen.clone()))),
            None if offline => {
                let what = format!("{name}: not seen before, and no registry is asked (--offline)");
                looked.insert(name.clone(), Err(Error::new(Cause::Registry, what)));
            }
            None => open.push(name.clone()),
        }
    }
    if open.is_empty() {
        return Ok(looked);
    }
    let known: &Database = database;
    let found: Vec<(String, Looked)> = oci::run(async {
        let client = Client::new()?;
        let looks = stream::iter(open).map(|name| {
            let client = &client;
            async move {
                let seen = look_at(client, &name, now, known.get(&name)).await;
                (name, seen)
            }
        });
        Ok(looks.buffered(PARALLEL).collect().await)
    })?;
    for (name, seen) in found {
        if let Ok(new) = &seen
            && new.looked == now
        {
            database.insert(name.clone(), new.clone());
        }
        looked.insert(name, seen);
    }
    Ok(looked)
}

/// Looks at an image; where no registry answers, what was seen before has to do.
async fn look_at(client: &Client, name: &str, now: Timestamp, old: Option<&Seen>) -> Looked {
    let reference = oci::parse(name)?;
    let error = match look_now(client, &reference, now).await {
        Ok(seen) => return Ok(seen),
        Err(error) => error,
    };
    match old {
        // Better old than nothing; the row says how old. But a no is an answer: what is gone is not there.
        Some(old) if error.cause == Cause::Registry => {
            if oci::answers(client, &reference).await {
                Err(error)
            } else {
                Ok(old.clone())
            }
        }
        _ => Err(error),
    }
}

async fn look_now(client: &Client, reference: &Reference, now: Timestamp) -> Looked {
    let offering = oci::offered(&Place::Registry(client.clone(), reference.clone())).await?;
    let platforms = offering.platforms().iter().map(ToString::to_string).collect();
    Ok(Seen { looked: now, digest: offering.digest, index: offering.index, platforms })
}

fn row(named: &Named, looked: &BTreeMap<String, Looked>, map: &ImageMap, platforms: &[Platform]) -> Result<Row> {
    let name = whole(&named.reference)?;
    let (known, platforms) = images::lookup(map, &named.reference, platforms)?;
    let replacement = match known {
        Known::Build(build) => Some(Replacement { build: Some(build.to_owned()), unused: None }),
        Known::Unused(reason) => Some(Replacement { build: None, unused: Some(reason.to_owned()) }),
        Known::Itself => None,
    };
    let seen = looked.get(&name);
    let (mut missing, mut offered, mut digest, mut note, mut single) = (vec![], vec![], None, None, false);
    match seen {
        Some(Ok(seen)) => {
            let there = seen.platforms();
            let has = |asked: &Platform| there.iter().any(|platform| oci::offers(platform, asked));
            missing = platforms.iter().filter(|asked| !has(asked)).cloned().collect();
            single = !seen.index && name.contains('@') && !missing.is_empty();
            offered.clone_from(&seen.platforms);
            digest = Some(seen.digest.clone());
            let old = Timestamp::now().duration_since(seen.looked).as_hours() >= 24 && !name.contains('@');
            note = old.then(|| format!("as seen on {}", seen.looked.strftime("%Y-%m-%d")));
        }
        Some(Err(error)) => note = Some(error.summary()),
        None => {}
    }
    let verdict = match (&replacement, seen) {
        (Some(Replacement { build: Some(_), .. }), _) => Verdict::Replaced,
        (Some(_), _) => Verdict::Unused,
        (None, Some(Err(_)) | None) => Verdict::Unreachable,
        _ if single => Verdict::SinglePlatformDigest,
        _ if !missing.is_empty() => Verdict::LacksPlatform,
        _ => Verdict::Ok,
    };
    let Named { file, line, reference } = named.clone();
    Ok(Row { file, line, reference, name, digest, platforms: offered, missing, verdict, replacement, note })
}

/// One error for all that is wrong: what lacks a platform outranks what nobody could look at.
fn problem(rows: &[Row], looked: &BTreeMap<String, Looked>) -> Option<Error> {
    let lacks = |row: &&Row| matches!(row.verdict, Verdict::LacksPlatform | Verdict::SinglePlatformDigest);
    let line = |row: &Row, why: &str| format!("{}:{}: {} {why}", row.file, row.line, row.reference);
    let lacking: Vec<String> = rows
        .iter()
        .filter(lacks)
        .map(|row| {
            let missing: Vec<_> = row.missing.iter().map(ToString::to_string).collect();
            line(row, &format!("has no {}", missing.join(", ")))
        })
        .collect();
    if let Some(first) = lacking.first() {
        let error = Error::new(Cause::ImageMissingPlatform, first.clone())
            .next("[[image]] in ci/images.toml puts something in its place");
        return Some(if lacking.len() > 1 { error.line(lacking.join("\n")) } else { error });
    }
    let open = rows.iter().find(|row| row.verdict == Verdict::Unreachable)?;
    let cause = match looked.get(&open.name) {
        Some(Err(error)) => error.cause,
        _ => Cause::Registry,
    };
    Some(Error::new(cause, line(open, open.note.as_deref().unwrap_or("was not looked at"))))
}

fn text(rows: &[Row]) -> String {
    let mut table = vec![["WHERE", "IMAGE", "VERDICT", "MISSING", "IN ITS PLACE", "NOTE"].map(String::from).to_vec()];
    for row in rows {
        let missing: Vec<_> = row.missing.iter().map(ToString::to_string).collect();
        let verdict = serde_json::to_value(row.verdict).ok().and_then(|value| value.as_str().map(String::from));
        let instead = match &row.replacement {
            Some(Replacement { build: Some(build), .. }) => build.clone(),
            Some(_) => "nothing runs it".into(),
            None => "-".into(),
        };
        table.push(vec![
            format!("{}:{}", row.file, row.line),
            show::short(&row.reference),
            verdict.unwrap_or_default(),
            if missing.is_empty() { "-".into() } else { missing.join(" ") },
            instead,
            row.note.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    let wrong = rows.iter().filter(|row| {
        matches!(row.verdict, Verdict::LacksPlatform | Verdict::SinglePlatformDigest | Verdict::Unreachable)
    });
    ui::printable(&format!(
        "{}{} images, {} of them not for all platforms or not to be had\n",
        ui::table(&table),
        rows.len(),
        wrong.count()
    ))
}
