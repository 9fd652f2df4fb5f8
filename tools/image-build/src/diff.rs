//! `image-build diff`: two releases, and what the second one lost.

mod compare;
mod side;

use jiff::Timestamp;
use kit::{
    Cause, Done, Error, Output, Platform, Result, Ui,
    ci::{Allowed, CiOptions, ImageMap},
    ui,
};
use oci::Client;

use crate::{release, show};
use compare::{Change, Diff, ImageDiff, Losses};
use side::Row;

/// The command line's examples.
pub(crate) const EXAMPLES: &str = "\
Examples:
  # What was built here against what the project published
  image-build diff release-v1.9.0.yaml target/runs/<run>/pipeline

  # Two releases in a registry; only these platforms count as lost
  image-build diff registry.example/tekton/release/pipeline:v1.8.0 registry.example/tekton/release/pipeline:v1.9.0 \\
      --platform linux/arm64,linux/s390x,linux/ppc64le

Exit codes: 0 nothing is lost (or ci/allow.toml says why), 1 a platform or an image is lost, 2 the call or one of the
releases is wrong, 3 a registry failed.";

/// A size that differs by less than this part is not shown to people.
const NOTABLE: f64 = 0.01;

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// A release.yaml, a release in a registry, or the folder of a component in a run directory
    old: String,
    /// The same of the newer release
    new: String,
    /// Only these platforms count as lost (repeat, or separate with commas) [default: all]
    #[arg(long = "platform", value_name = "P", value_delimiter = ',')]
    platforms: Vec<Platform>,
    #[command(flatten)]
    ci: CiOptions,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    // Outside a workspace nothing is known to be unused or allowed.
    let (map, allowed) = match args.ci.open() {
        Ok(ci) => (ci.images()?, ci.allowed()?),
        Err(_) => (ImageMap::default(), Allowed::default()),
    };
    let step = ui.step(format!("comparing {} with {}", args.old, args.new));
    let (old, new) = oci::run(async {
        let client = Client::new()?;
        let read = async |what: &String| {
            let release = release::open(&client, what).await?;
            side::read(&client, &release, &map).await.map_err(|error| side::about(error, what))
        };
        Ok((read(&args.old).await?, read(&args.new).await?))
    })?;
    let today = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let losses = Losses { allow: &allowed.allow, today, platforms: &args.platforms };
    let diff = compare::compare((&args.old, &args.new), &old, &new, &losses);
    step.done(format!("{} images", diff.images.len()));
    for remark in old.remarks.iter().chain(&new.remarks) {
        ui.note(remark);
    }
    for allow in losses.expired() {
        ui.warn(format!("ci/allow.toml: {} was allowed until {} (owner: {})", allow.image, allow.until, allow.owner));
    }
    match ui.output {
        Output::Json => ui.json(&diff)?,
        Output::Text => ui.result(&text(&diff))?,
    }
    lost(&diff).map_or_else(|| Ok(Done::good()), Err)
}

fn lost(diff: &Diff) -> Option<Error> {
    let mut lines = diff.images.iter().flat_map(|image| {
        let lost = image.lost.iter().filter(|loss| loss.allowed.is_none());
        lost.map(|loss| match image.change {
            Change::Lost => format!("{} is no longer there, it had {}", image.image, loss.platform),
            _ => format!("{} has no {} any more", image.image, loss.platform),
        })
    });
    let first = lines.next()?;
    let rest: Vec<_> = std::iter::once(first.clone()).chain(lines).collect();
    let error =
        Error::new(Cause::ImageMissingPlatform, first).next("an entry in ci/allow.toml says why a loss is meant");
    Some(if rest.len() > 1 { error.line(rest.join("\n")) } else { error })
}

fn text(diff: &Diff) -> String {
    let mut rows = vec![["IMAGE", "PLATFORM", "WHAT", "OLD", "NEW"].map(String::from).to_vec()];
    diff.images.iter().for_each(|image| rows.extend(lines(image)));
    let same = diff.images.iter().filter(|image| image.change == Change::Same).count();
    let table = if rows.len() > 1 { ui::table(&rows) } else { String::new() };
    ui::printable(&format!("{table}{} images, {same} of them the same\n", diff.images.len()))
}

fn lines(image: &ImageDiff) -> Vec<Vec<String>> {
    let dash = || "-".to_owned();
    let row = |platform: String, what: &str, old: String, new: String| {
        vec![image.image.clone(), platform, what.to_owned(), old, new]
    };
    let short = |name: &Option<String>| name.as_deref().map_or_else(dash, show::short);
    let mut rows = Vec::new();
    match image.change {
        Change::Added => rows.push(row(names(&image.gained), "new image", dash(), short(&image.new))),
        Change::Lost if image.lost.is_empty() => rows.push(row(dash(), "image lost", short(&image.old), dash())),
        _ => {}
    }
    if image.replaced || image.moved {
        let what = if image.replaced { "replaced" } else { "reference" };
        rows.push(row(dash(), what, short(&image.old), short(&image.new)));
    }
    for loss in &image.lost {
        let what = match (&loss.allowed, image.change) {
            (Some(reason), _) => format!("lost, allowed: {reason}"),
            (None, Change::Lost) => "LOST with the image".into(),
            (None, _) => "LOST".into(),
        };
        rows.push(row(loss.platform.to_string(), &what, "there".into(), dash()));
    }
    if image.change == Change::Changed && !image.gained.is_empty() {
        rows.push(row(names(&image.gained), "gained", dash(), "there".into()));
    }
    // What changed the same way on several platforms is one line.
    let mut changed: Vec<(Vec<String>, [String; 3])> = Vec::new();
    for platform in &image.platforms {
        for change in changes(&platform.old, &platform.new) {
            let name = platform.platform.to_string();
            match changed.iter_mut().find(|(_, known)| *known == change) {
                Some((names, _)) => names.push(name),
                None => changed.push((vec![name], change)),
            }
        }
    }
    rows.extend(changed.into_iter().map(|(names, [what, old, new])| row(names.join(" "), &what, old, new)));
    rows
}

fn names(platforms: &[Platform]) -> String {
    let names: Vec<_> = platforms.iter().map(ToString::to_string).collect();
    names.join(" ")
}

fn changes(old: &Row, new: &Row) -> Vec<[String; 3]> {
    let user = |row: &Row| if row.user.is_empty() { "root".to_owned() } else { row.user.clone() };
    let base = |row: &Row| row.base.as_deref().map_or_else(|| "-".into(), show::short);
    let size = |row: &Row| format!("{:.1} MB", row.size as f64 / 1e6);
    let mut changes = Vec::new();
    if user(old) != user(new) {
        changes.push(["user".into(), user(old), user(new)]);
    }
    if old.base != new.base {
        changes.push(["base".into(), base(old), base(new)]);
    }
    let (before, after) = (old.size as f64, new.size as f64);
    if (after - before).abs() > NOTABLE * before {
        changes.push(["size".into(), size(old), size(new)]);
    }
    changes
}
