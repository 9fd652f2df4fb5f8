//! `image-build bases`: what a component is going to be built on, before it is built.
//!
//! ko builds for the platforms that base and request have in common, and calls that success; a base ages,
//! its distribution ends, its user may be root, and the next digest of its tag may have fewer platforms.

mod distribution;
mod table;
mod tags;

use std::{collections::BTreeMap, path::PathBuf};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kit::{
    Cause, Class, Done, Error, Output, Platform, Result, Ui,
    ci::{CiOptions, Distributions, ImageMap, Life},
    rundir, source,
};
use oci::{Client, Described, Place};
use serde::Serialize;

use crate::{base, ko, options::Platforms};

/// Bases looked at together.
const PARALLEL: usize = 4;
/// A `.ko.yaml`.
const CONFIG_LIMIT: u64 = 1 << 20;
/// Where an index may say when it was made.
const CREATED: &str = "org.opencontainers.image.created";

const HELP: &str = "\
Examples:
  image-build bases --config .ko.yaml --platform linux/amd64,linux/s390x
  image-build bases --component pipeline --platform linux/ppc64le --output json

A base that is named by digest is compared with what its tag names by now. The tag is taken from the reference
(NAME:TAG@sha256:…), from a comment behind it (NAME@sha256:… # TAG), or from the image's own annotation.

Exit code 1 if a base lacks a platform; every base and every platform is named. That a distribution has ended, that
a base runs as root or that a newer digest would lose a platform is a warning.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
#[group(id = "configuration", required = true, multiple = false, args = ["config", "component"])]
pub(crate) struct Args {
    /// ko's configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Component of ci/components.toml: its own bases, or those that ci/components.toml says instead
    #[arg(long, value_name = "NAME")]
    component: Option<String>,
    #[command(flatten)]
    platforms: Platforms,
    #[command(flatten)]
    ci: CiOptions,
}

/// A base, and what builds on it.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Base {
    reference: String,
    /// `default`, and import paths.
    used_by: Vec<String>,
    /// Whether it is a `[build.NAME]` of ci/images.toml.
    made_here: bool,
    digest: Option<String>,
    /// Whether it is one manifest without an index.
    plain: bool,
    offers: Vec<Platform>,
    missing: Vec<Platform>,
    /// One row for each platform asked for that it has.
    platforms: Vec<Row>,
    /// What the tag of a base that is named by digest names now.
    newer: Option<Newer>,
    problem: Option<String>,
    cause: Option<Cause>,
}

/// A base on one platform.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    platform: Platform,
    manifest: Option<String>,
    media_type: Option<String>,
    /// Nothing if it was made without a time.
    created: Option<Timestamp>,
    age_days: Option<i64>,
    distribution: Option<distribution::Distribution>,
    /// The config's `User`.
    user: Option<String>,
    /// Nothing where only a name is known, which a node cannot check.
    nonroot: Option<bool>,
    problem: Option<String>,
    cause: Option<Cause>,
}

/// What a tag names now, compared with the digest that is used.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Newer {
    tag: String,
    digest: Option<String>,
    loses: Vec<Platform>,
    gains: Vec<Platform>,
    problem: Option<String>,
}

/// What is looked at, and where it is from.
struct Subject {
    bases: BTreeMap<String, String>,
    /// The text of ko's configuration, for its comments.
    text: String,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let platforms = args.platforms.list();
    let subject = subject(args, ui)?;
    // Outside a workspace nothing is known of distributions, and nothing is made here.
    let ci = args.ci.open().ok();
    let known = ci.as_ref().map_or_else(|| Ok(Distributions::default()), kit::ci::Ci::distributions)?;
    let map = ci.as_ref().map_or_else(|| Ok(ImageMap::default()), kit::ci::Ci::images)?;
    let mut users: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (path, reference) in &subject.bases {
        users.entry(reference).or_default().push(path.clone());
    }
    let mut places = Vec::new();
    let client = Client::new()?;
    for (reference, used_by) in users {
        places.push(place(reference, used_by, &map, &platforms, &client, ui)?);
    }
    let step = ui.step(format!("{} bases", places.len()));
    let now = Timestamp::now();
    let bases: Vec<Base> = oci::run(async {
        let looked =
            stream::iter(places).map(|(base, place)| look(base, place, &platforms, &subject.text, &known, now));
        Ok(looked.buffered(PARALLEL).collect().await)
    })?;
    step.done("");
    match ui.output {
        Output::Json => ui.json(&bases)?,
        Output::Text => ui.result(&table::table(&bases))?,
    }
    bases.iter().flat_map(warnings).for_each(|warning| ui.warn(kit::ui::printable(&warning)));
    problem(&bases).map_or_else(|| Ok(Done::good()), Err)
}

fn subject(args: &Args, ui: &Ui) -> Result<Subject> {
    let read = |path: &std::path::Path| -> Result<Subject> {
        let text = String::from_utf8_lossy(&rundir::read_limited(path, CONFIG_LIMIT)?).into_owned();
        Ok(Subject { bases: ko::Config::read(path)?.bases(), text })
    };
    let Some(name) = &args.component else { return read(args.config.as_deref().unwrap_or(".ko.yaml".as_ref())) };
    let ci = args.ci.open()?;
    let component = ci.component(name)?;
    if !component.bases.is_empty() {
        return Ok(Subject { bases: component.bases, text: String::new() });
    }
    let root = source::checkout(&ci, &component, ui)?.dir;
    match root.join(".ko.yaml") {
        path if path.is_file() => read(&path),
        _ => Ok(Subject { bases: ko::Config::load(&root)?.bases(), text: String::new() }),
    }
}

/// Where a base is looked at; nothing where that is known without looking.
fn place(
    reference: &str,
    used_by: Vec<String>,
    map: &ImageMap,
    platforms: &[Platform],
    client: &Client,
    ui: &Ui,
) -> Result<(Base, Option<Place>)> {
    let mut base =
        Base { reference: reference.into(), used_by, made_here: is_build(map, reference), ..Base::default() };
    if !base.made_here {
        let place = Place::Registry(client.clone(), oci::parse(reference)?);
        return Ok((base, Some(place)));
    }
    match base::make(map, reference, platforms, ui) {
        Ok(made) => Ok((base, Some(made.place()))),
        Err(error) if error.cause == Cause::ImageMissingPlatform => {
            base.fail(&error);
            let missing = base::missing(map, reference, platforms, ui)?;
            let there: Vec<_> = platforms.iter().filter(|platform| !missing.contains(platform)).cloned().collect();
            if there.is_empty() {
                base.missing = missing;
                return Ok((base, None));
            }
            Ok((base, Some(base::make(map, reference, &there, ui)?.place())))
        }
        Err(error) => Err(error),
    }
}

async fn look(
    mut base: Base,
    place: Option<Place>,
    platforms: &[Platform],
    text: &str,
    known: &Distributions,
    now: Timestamp,
) -> Base {
    let Some(place) = place else { return base };
    let described = match oci::describe(&place, platforms).await {
        Ok(described) => described,
        Err(error) => {
            base.fail(&error);
            return base;
        }
    };
    base.digest = Some(described.digest.clone());
    base.plain = described.plain;
    base.offers = described.offers.iter().map(|offer| offer.platform.clone()).collect();
    for (asked, about) in platforms.iter().zip(&described.asked) {
        match about {
            None => base.missing.push(asked.clone()),
            Some(about) => base.platforms.push(row(asked, about.as_ref(), &described, known, now)),
        }
    }
    if let Place::Registry(client, reference) = &place
        && let Some(tag) = tags::tag(&base.reference, text, &described.annotations)
    {
        base.newer = Some(newer(client, reference, tag, &described).await);
    }
    base
}

fn row(
    asked: &Platform,
    about: std::result::Result<&oci::About, &Error>,
    described: &Described,
    known: &Distributions,
    now: Timestamp,
) -> Row {
    let mut row = Row {
        platform: asked.clone(),
        manifest: None,
        media_type: None,
        created: None,
        age_days: None,
        distribution: None,
        user: None,
        nonroot: None,
        problem: None,
        cause: None,
    };
    let about = match about {
        Ok(about) => about,
        Err(error) => {
            (row.problem, row.cause) = (Some(error.summary()), Some(error.cause));
            return row;
        }
    };
    row.manifest = Some(about.manifest.clone());
    row.media_type = Some(about.media_type.clone());
    row.created =
        created(about.created.as_deref()).or_else(|| created(described.annotations.get(CREATED).map(|time| &**time)));
    row.age_days = row.created.map(|created| (now.as_second() - created.as_second()).div_euclid(24 * 3600));
    row.distribution = distribution::of(about, known, now);
    row.nonroot = nonroot(&about.platform, about.user.as_deref());
    row.user.clone_from(&about.user);
    row
}

/// A time that is one: whatever builds reproducibly says the beginning of 1970 or of all time.
fn created(text: Option<&str>) -> Option<Timestamp> {
    let time: Timestamp = text?.parse().ok()?;
    (time.as_second() > 10 * 365 * 24 * 3600).then_some(time)
}

/// Whether a user has no rights: of a number it is known, of a name only the file system knows it.
pub(crate) fn nonroot(platform: &Platform, user: Option<&str>) -> Option<bool> {
    if platform.os != "linux" {
        return None;
    }
    let name = user.and_then(|user| user.split(':').next()).filter(|name| !name.is_empty());
    match name {
        None | Some("root") => Some(false),
        Some(name) => name.parse::<u32>().ok().map(|number| number != 0),
    }
}

/// Compares what a tag names with what is used.
async fn newer(client: &Client, reference: &oci::Reference, tag: String, described: &Described) -> Newer {
    let mut newer = Newer { tag: tag.clone(), digest: None, loses: Vec::new(), gains: Vec::new(), problem: None };
    let registry = (reference.registry().to_owned(), reference.repository().to_owned());
    let tagged = oci::Reference::with_tag(registry.0, registry.1, tag);
    match oci::offered(&Place::Registry(client.clone(), tagged)).await {
        Ok(offering) => {
            let now = offering.platforms();
            let then: Vec<_> = described.offers.iter().map(|offer| offer.platform.clone()).collect();
            newer.digest = Some(offering.digest);
            newer.loses = without(&then, &now);
            newer.gains = without(&now, &then);
        }
        Err(error) => newer.problem = Some(error.summary()),
    }
    newer
}

/// The platforms of `some` that `others` lack. Windows' revision changes every month and is no other platform.
fn without(some: &[Platform], others: &[Platform]) -> Vec<Platform> {
    let build = |platform: &Platform| {
        let version = platform.os_version.as_ref();
        let build = version.map(|version| version.splitn(4, '.').take(3).collect::<Vec<_>>().join("."));
        Platform { os_version: build, ..platform.clone() }
    };
    let lacks = |platform: &&Platform| !others.iter().any(|other| build(other) == build(platform));
    some.iter().filter(lacks).cloned().collect()
}

impl Base {
    fn fail(&mut self, error: &Error) {
        let line = error.line.as_ref().map_or_else(String::new, |line| format!(": {}", line.replace('\n', "; ")));
        self.problem = Some(format!("{}{line}", error.summary()));
        self.cause = Some(error.cause);
    }

    /// What is wrong with it, each with its cause.
    fn problems(&self) -> Vec<(Cause, String)> {
        let name = &self.reference;
        let mut found = Vec::new();
        if let (Some(problem), Some(cause)) = (&self.problem, self.cause) {
            found.push((cause, format!("base {name} (for {}): {problem}", self.used_by.join(", "))));
        } else if !self.missing.is_empty() {
            let texts = |platforms: &[Platform]| platforms.iter().map(ToString::to_string).collect::<Vec<_>>();
            let line = lacking(name, &self.used_by, &texts(&self.missing), &texts(&self.offers));
            found.push((Cause::ImageMissingPlatform, line));
        }
        for row in &self.platforms {
            if let (Some(problem), Some(cause)) = (&row.problem, row.cause) {
                found.push((cause, format!("base {name} {}: {problem}", row.platform)));
            }
        }
        found
    }
}

/// One error for everything that is wrong; the product outranks the machine.
fn problem(bases: &[Base]) -> Option<Error> {
    let found: Vec<_> = bases.iter().flat_map(Base::problems).collect();
    let rank = |cause: Cause| if cause.class() == Class::Product { 0 } else { 1 };
    let cause = found.iter().map(|(cause, _)| *cause).min_by_key(|cause| rank(*cause))?;
    let lines: Vec<_> = found.into_iter().map(|(_, line)| line).collect();
    let mut error = refusal(&lines)?;
    if cause != error.cause {
        (error.cause, error.next) = (cause, None);
    }
    Some(error)
}

fn warnings(base: &Base) -> Vec<String> {
    let mut found = Vec::new();
    let mut ended: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in &base.platforms {
        if let Some(distribution) = row.distribution.as_ref().filter(|one| one.life == Some(Life::Ended)) {
            ended.entry(distribution.to_string()).or_default().push(row.platform.to_string());
        }
    }
    for (distribution, platforms) in ended {
        found.push(format!("{}: {distribution} gets no updates any more ({})", base.reference, platforms.join(", ")));
    }
    let root = base.platforms.iter().filter(|row| row.nonroot == Some(false));
    let root: Vec<_> = root.map(|row| row.platform.to_string()).collect();
    if !root.is_empty() {
        found.push(format!("{}: runs as root on {}", base.reference, root.join(", ")));
    }
    if let Some(newer) = base.newer.as_ref().filter(|newer| !newer.loses.is_empty()) {
        let lost: Vec<_> = newer.loses.iter().map(ToString::to_string).collect();
        found.push(format!("{}: what the tag {} names now has no {}", base.reference, newer.tag, lost.join(", ")));
    }
    found
}

/// Whether a base is a `[build.NAME]` of ci/images.toml; anything else is a reference, of Docker Hub if it is only a
/// name.
pub(crate) fn is_build(map: &ImageMap, base: &str) -> bool {
    map.build.contains_key(base)
}

/// What a base lacks, in words.
pub(crate) fn lacking(base: &str, users: &[impl AsRef<str>], missing: &[String], offered: &[String]) -> String {
    let users: Vec<_> = users.iter().map(AsRef::as_ref).collect();
    let offered = if offered.is_empty() { "nothing".into() } else { offered.join(", ") };
    format!("base {base} (for {}) has no {}; it offers {offered}", users.join(", "), missing.join(", "))
}

/// One error for all bases that lack something; nothing if none does.
pub(crate) fn refusal(lacking: &[String]) -> Option<Error> {
    let error = Error::new(Cause::ImageMissingPlatform, lacking.first()?.clone());
    let error = if lacking.len() > 1 { error.line(lacking.join("\n")) } else { error };
    Some(error.next("choose a base that has them: bases in ci/components.toml, or --base"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platforms(list: &[&str]) -> Vec<Platform> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_name_that_nothing_here_makes_is_a_reference() {
        let map = ImageMap { build: [("static".into(), kit::ci::Build::default())].into(), ..ImageMap::default() };
        for (base, made) in [("static", true), ("alpine", false), ("static:v1", false), ("r.io/static", false)] {
            assert_eq!(is_build(&map, base), made, "{base}");
        }
    }

    #[test]
    fn a_revision_of_windows_is_no_other_platform() {
        let then =
            platforms(&["linux/amd64", "windows/amd64:10.0.17763.1", "windows/amd64:10.0.20348.1", "linux/arm/v6"]);
        let now = platforms(&["windows/amd64:10.0.17763.2", "linux/amd64/v1", "linux/arm/v7"]);
        assert_eq!(without(&then, &now), platforms(&["windows/amd64:10.0.20348.1", "linux/arm/v6"]));
        assert_eq!(without(&now, &then), platforms(&["linux/arm/v7"]));
    }

    #[test]
    fn what_a_config_says_of_its_user_and_its_age() {
        let of = |user| nonroot(&"linux/amd64".parse().unwrap(), user);
        assert_eq!(
            (of(None), of(Some("")), of(Some("root:x")), of(Some("0:0"))),
            (Some(false), Some(false), Some(false), Some(false))
        );
        assert_eq!((of(Some("65532")), of(Some("1:0")), of(Some("nonroot"))), (Some(true), Some(true), None));
        assert_eq!(nonroot(&"windows/amd64".parse().unwrap(), None), None);
        for none in [None, Some("soon"), Some("1970-01-01T00:00:00Z"), Some("0001-01-01T00:00:00Z")] {
            assert_eq!(created(none), None, "{none:?}");
        }
        assert!(created(Some("2025-02-14T03:28:36.123456789Z")).is_some());
    }

    #[test]
    fn a_platform_that_is_missing_outranks_a_registry_that_does_not_answer() {
        let away = Base {
            reference: "a/b".into(),
            problem: Some("no answer".into()),
            cause: Some(Cause::Registry),
            ..Base::default()
        };
        let lacks = Base { reference: "c/d".into(), missing: platforms(&["linux/s390x"]), ..Base::default() };
        assert_eq!(problem(std::slice::from_ref(&away)).unwrap().cause, Cause::Registry);
        let error = problem(&[away, lacks]).unwrap();
        assert_eq!(error.cause, Cause::ImageMissingPlatform);
        assert!(error.line.unwrap().contains("base c/d (for ) has no linux/s390x; it offers nothing"));
        assert!(problem(&[Base::default()]).is_none());
    }
}
