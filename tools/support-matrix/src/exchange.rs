//! Evidence on its way between machines: bundles as OCI artifacts that refer to the release they are about.
//!
//! A release's identity is the digest of its `release.yaml` as an artifact; whoever has the release finds the evidence
//! without a server of ours. What comes in is hostile until its digests say otherwise.

mod pack;
mod sign;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use clap::Args;
use jiff::Timestamp;
use kit::{Cause, Class, Context, Done, Error, Output, Result, Ui, bundle::History};
use oci::{ARTIFACT_TYPE_RELEASE, ArtifactFile, Client, Reference};
use serde::Serialize;

use crate::{
    evidence,
    index::{Facts, IndexOption},
    questions::{Input, history_or_default},
    text::{clean, list, many, short},
};

/// The type of a bundle as an artifact.
const ARTIFACT_TYPE: &str = "application/vnd.other-arch.evidence.v1";
/// The type of its only file.
const FILE_TYPE: &str = "application/vnd.other-arch.evidence.v1.tar+gzip";
/// Says which bundle it is, so that a known one is not fetched again. What it says is checked.
const ANNOTATION: &str = "dev.other-arch.bundle";
/// Says that its logs are not in it.
const WITHOUT_LOGS: &str = "dev.other-arch.without-logs";

/// Pushes evidence into a registry, beside the release that it is about.
#[derive(Debug, Args)]
pub struct Push {
    /// The release, a release.yaml that was pushed, by tag or digest [default: where each run's own build pushed it]
    #[arg(long, value_name = "REFERENCE")]
    release: Option<String>,
    /// Only these runs, by id or by the beginning of their bundle's digest [default: all that are about the release]
    runs: Vec<String>,
    /// Leave the logs here
    #[arg(long)]
    no_logs: bool,
    /// Sign what is pushed with this private key (PEM, PKCS #8, P-256), in cosign's format
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    input: Input,
}

/// Pulls the evidence about a release out of a registry.
#[derive(Debug, Args)]
pub struct Pull {
    /// The release: a release.yaml that was pushed, by tag or digest
    #[arg(value_name = "REFERENCE")]
    release: String,
    /// Where closed runs are kept [default: target/history of the workspace]
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    #[command(flatten)]
    index: IndexOption,
    /// Take only what is signed with this public key (PEM), in cosign's format
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// What `push` and `pull` say with `--output json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Moved {
    bundle: String,
    run: String,
    reference: String,
    new: bool,
}

/// A pushed release: where it is, its manifest, and the digest of the file itself.
struct Release {
    reference: Reference,
    subject: oci::spec::Descriptor,
    file: String,
}

async fn release(client: &Client, reference: &Reference) -> Result<Release> {
    let document = client.manifest(reference).await?;
    let manifest: oci::spec::ImageManifest =
        document.parse().map_err(|error| error.within(format!("{reference} is no release that was pushed")))?;
    let kind = manifest.artifact_type().as_ref().map(ToString::to_string);
    match (kind.as_deref(), manifest.layers().as_slice()) {
        (Some(ARTIFACT_TYPE_RELEASE), [only]) => Ok(Release {
            reference: oci::pinned(reference, &document.digest),
            subject: oci::subject(&document)?,
            file: only.digest().to_string(),
        }),
        _ => Err(Error::new(Cause::Usage, format!("{reference} is no release that was pushed"))
            .next("name the artifact that image-build build printed, or the tag of a release")),
    }
}

/// A run that may be pushed: what the index says of it.
struct Candidate {
    digest: String,
    run: String,
    finished: Timestamp,
    /// The files of the releases that it speaks of, by digest.
    releases: BTreeSet<String>,
    /// Where its own build pushed its releases.
    pushed: Vec<Reference>,
}

/// A release and the evidence that lies beside it.
struct Beside {
    release: Release,
    listed: Vec<oci::spec::Descriptor>,
}

pub(crate) fn push(args: &Push, ui: &Ui) -> Result<Done> {
    let key = args.key.as_deref().map(sign::Key::read).transpose()?;
    let Some((history, candidates)) = candidates(args, ui)? else { return result(&[], ui) };
    let client = Client::new()?;
    let asked = args.release.as_deref().map(oci::parse).transpose()?;
    let mut moved = Vec::new();
    let mut releases: BTreeMap<String, Option<Beside>> = BTreeMap::new();
    let mut unreached: Vec<Error> = Vec::new();
    let mut passed_over = 0;
    for candidate in &candidates {
        let targets = asked.as_ref().map_or(candidate.pushed.as_slice(), std::slice::from_ref);
        let mut about = 0;
        for target in targets {
            let name = target.whole();
            if !releases.contains_key(&name) {
                let found = match beside(&client, target) {
                    Ok(found) => Some(found),
                    Err(error) if asked.is_some() || error.signal.is_some() => return Err(error),
                    // An old release that is gone keeps no evidence from the others.
                    Err(error) => {
                        ui.warn(format!("passed over {name}: {}", clean(&error.summary())));
                        unreached.push(error);
                        None
                    }
                };
                releases.insert(name.clone(), found);
            }
            let Some(Some(beside)) = releases.get(&name) else { continue };
            if !candidate.releases.contains(&beside.release.file) {
                continue;
            }
            about += 1;
            let closed = history.bundle(&candidate.digest)?;
            let (reference, new) = push_one(&client, beside, candidate, &closed, (!args.no_logs, key.as_ref()))?;
            let did = if new { "pushed" } else { "was pushed already:" };
            ui.note(format!("{did} run {} ({})", candidate.run, short(&candidate.digest)));
            let (bundle, run) = (candidate.digest.clone(), candidate.run.clone());
            moved.push(Moved { bundle, run, reference: reference.whole(), new });
        }
        passed_over += usize::from(about == 0);
    }
    if passed_over > 0 {
        ui.note(format!("{} not about a release that was pushed", many(passed_over, "run")));
    }
    let done = result(&moved, ui)?;
    let count = unreached.len();
    match unreached.into_iter().next() {
        Some(first) => Err(first.within(format!("{} passed over; the first", many(count, "release")))),
        None => Ok(done),
    }
}

/// A release in the registry, and what lies beside it.
fn beside(client: &Client, target: &Reference) -> Result<Beside> {
    oci::run(async {
        let release = release(client, target).await?;
        let listed = oci::referrers(client, &release.reference, Some(ARTIFACT_TYPE)).await?;
        Ok(Beside { release, listed })
    })
}

/// What is asked for; nothing if nothing was recorded yet. The index is closed again before anything goes over the
/// network: others record meanwhile.
fn candidates(args: &Push, ui: &Ui) -> Result<Option<(History, Vec<Candidate>)>> {
    let opened = args.input.open(false, ui)?;
    opened.library.warn(ui);
    let mut unknown = args.runs.clone();
    let mut found = Vec::new();
    for loaded in opened.library.all() {
        let facts = opened.library.facts(&loaded.run.digest)?;
        let is_named = |name: &String| facts.run == *name || short_of(&facts.digest, name);
        if !args.runs.is_empty() && !args.runs.iter().any(is_named) {
            continue;
        }
        unknown.retain(|name| !is_named(name));
        let pushed = facts.builds.iter().filter_map(|build| oci::parse(build.artifact.as_deref()?).ok());
        found.push(Candidate {
            digest: facts.digest.clone(),
            run: facts.run.clone(),
            finished: facts.finished,
            releases: releases(&facts).map(str::to_owned).collect(),
            pushed: pushed.collect(),
        });
    }
    if let Some(name) = unknown.first() {
        let error = Error::new(Cause::Usage, format!("no run of the history is called '{}'", clean(name)));
        return Err(error.next("name it by its id, or by the beginning of its bundle's digest"));
    }
    Ok(opened.library.history().ok().map(|history| (history.clone(), found)))
}

/// Pushes one bundle beside a release, and says whether it was not there yet. What is listed as the same bundle is
/// believed to be that (whoever pulls it looks), but never signed: only what we packed is.
fn push_one(
    client: &Client,
    beside: &Beside,
    candidate: &Candidate,
    closed: &kit::bundle::Closed,
    (with_logs, key): (bool, Option<&sign::Key>),
) -> Result<(Reference, bool)> {
    let with_logs = with_logs && !closed.is_shed();
    let is_same = |descriptor: &&oci::spec::Descriptor| {
        annotation(descriptor, ANNOTATION) == Some(&candidate.digest)
            && !(with_logs && annotation(descriptor, WITHOUT_LOGS).is_some())
    };
    for listed in beside.listed.iter().filter(is_same) {
        let at = oci::pinned(&beside.release.reference, listed.digest().as_ref());
        let done = match key {
            Some(key) => oci::run(sign::is_signed(client, &at, &key.public()))?,
            None => true,
        };
        if done {
            return Ok((at, false));
        }
    }
    let content = pack::pack(closed, with_logs)?;
    let file = ArtifactFile { media_type: FILE_TYPE.into(), title: Some("bundle.tar.gz".into()), content };
    let mut annotations = BTreeMap::from([
        (ANNOTATION.to_owned(), candidate.digest.clone()),
        ("org.opencontainers.image.created".to_owned(), candidate.finished.to_string()),
    ]);
    if !with_logs {
        annotations.insert(WITHOUT_LOGS.to_owned(), "true".to_owned());
    }
    let pushed = oci::run(async {
        let subject = (&beside.release.reference, &beside.release.subject);
        let pushed = oci::push_referrer(client, subject, ARTIFACT_TYPE, &annotations, &[file]).await?;
        if let Some(key) = key {
            sign::sign(client, &pushed, key).await?;
        }
        Ok(pushed)
    })?;
    Ok((pushed, true))
}

fn annotation<'d>(descriptor: &'d oci::spec::Descriptor, name: &str) -> Option<&'d String> {
    descriptor.annotations().as_ref().and_then(|all| all.get(name))
}

fn short_of(digest: &str, name: &str) -> bool {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    let name = name.strip_prefix("sha256:").unwrap_or(name);
    name.len() >= 6 && digits.starts_with(name)
}

/// The releases that a run built, installed or tested, by the digest of their file.
fn releases(facts: &Facts) -> impl Iterator<Item = &str> {
    let built = facts.builds.iter().filter_map(|build| build.release.as_deref());
    built.chain(facts.attempts.iter().filter_map(|attempt| attempt.release.as_deref()))
}

/// What a run says something of beside the release in `file`: whoever attached it there may say anything of those.
fn others(facts: &Facts, file: &str) -> Vec<String> {
    let is_other = |release: &Option<String>| release.as_deref() != Some(file);
    let builds = facts.builds.iter().filter(|build| is_other(&build.release));
    let built = builds.map(|build| format!("{}@{}", build.component, build.version));
    // What was tried without a release's digest is about what the run built.
    let tried = facts.attempts.iter().filter(|attempt| attempt.release.is_some() && is_other(&attempt.release));
    let tried = tried.map(|attempt| format!("{}@{}", attempt.key.component, attempt.key.version));
    built.chain(tried).collect::<BTreeSet<_>>().into_iter().collect()
}

fn result(moved: &[Moved], ui: &Ui) -> Result<Done> {
    match ui.output {
        Output::Json => ui.json(&moved)?,
        Output::Text => {
            let lines: Vec<_> = moved.iter().map(|moved| format!("{} {}", moved.bundle, moved.reference)).collect();
            if !lines.is_empty() {
                ui.result(&lines.join("\n"))?;
            }
        }
    }
    Ok(if moved.is_empty() { Done::found(Cause::NothingRan) } else { Done::good() })
}

pub(crate) fn pull(args: &Pull, ui: &Ui) -> Result<Done> {
    let key = args.key.as_deref().map(sign::PublicKey::read).transpose()?;
    let reference = oci::parse(&args.release)?;
    let folder = history_or_default(args.history.as_ref())?;
    let history = History::create(&folder)?;
    // Where the index cannot be used, the history stays as it was; it is open only while something is added to it.
    let mut adds = args.index.open_to_add(&folder)?.is_some();
    let client = Client::new()?;
    let release = oci::run(release(&client, &reference))?;
    let found = oci::run(oci::referrers(&client, &release.reference, Some(ARTIFACT_TYPE)))?;
    let (mut moved, mut refused) = (Vec::new(), 0);
    let mut missed: Option<Error> = None;
    for descriptor in &found {
        kit::signal::check()?;
        let at = oci::pinned(&release.reference, descriptor.digest().as_ref());
        let known = annotation(descriptor, ANNOTATION);
        let have = known.and_then(|digest| history.bundle(digest).ok()).filter(|closed| closed.verify().is_ok());
        if let Some(closed) = have {
            let (bundle, run) = (closed.digest().to_owned(), clean(closed.run()));
            moved.push(Moved { bundle, run, reference: at.whole(), new: false });
            continue;
        }
        match fetch(&client, &at, &release, &history, key.as_ref()) {
            Ok((facts, new)) => {
                // Whoever reads the index next adds what could not be added now.
                let index = if adds { args.index.open_to_add(&folder)? } else { None };
                match index {
                    Some(index) => index.add(std::slice::from_ref(&facts))?,
                    None => adds = false,
                }
                ui.note(format!("pulled run {} ({})", facts.run, short(&facts.digest)));
                let others = others(&facts, &release.file);
                if key.is_none() && !others.is_empty() {
                    ui.warn(format!(
                        "run {} also speaks of {}, which is not the release that was asked for, and nobody has signed it: \
                         it counts there as well; take only what is signed with --key",
                        facts.run,
                        list(&others, 5)
                    ));
                }
                moved.push(Moved { bundle: facts.digest, run: facts.run, reference: at.whole(), new });
            }
            Err(error) if error.signal.is_some() || error.cause == Cause::HostDisk => return Err(error),
            // Nobody has seen what that is: it may be good, and come the next time.
            Err(error) if error.cause.class() == Class::Infrastructure => {
                ui.warn(format!("could not fetch {}: {}", at.whole(), clean(&error.summary())));
                missed.get_or_insert(error);
            }
            Err(error) => {
                refused += 1;
                ui.warn(format!("refused {}: {}", at.whole(), clean(&error.summary())));
            }
        }
    }
    let done = result(&moved, ui)?;
    if let Some(error) = missed {
        let also = if refused > 0 { format!("; {refused} refused") } else { String::new() };
        return Err(error.within(format!("not all evidence could be fetched{also}")).next("pull again"));
    }
    if refused > 0 {
        let what = format!("{} of {} refused", refused, many(found.len(), "piece of evidence"));
        return Err(Error::new(Cause::Usage, what).next("what is good was kept; see the warnings"));
    }
    Ok(done)
}

/// One bundle: fetched, unpacked beside the history, checked, and only then kept.
fn fetch(
    client: &Client,
    at: &Reference,
    release: &Release,
    history: &History,
    key: Option<&sign::PublicKey>,
) -> Result<(Facts, bool)> {
    let artifact = oci::run(async {
        if let Some(key) = key {
            sign::verify(client, at, key).await?;
        }
        oci::find_artifact(client, at, ARTIFACT_TYPE).await
    })?;
    let Some((artifact, _)) = artifact else {
        return Err(Error::new(Cause::Registry, "it is listed and not there"));
    };
    let subject = artifact.subject.as_ref().map(|subject| subject.digest().to_string());
    if subject != Some(release.subject.digest().to_string()) {
        return Err(Error::new(Cause::Usage, "it is about another release than the list says"));
    }
    let [file] = artifact.files.as_slice() else {
        return Err(Error::new(Cause::Usage, format!("it holds {} files instead of one", artifact.files.len())));
    };
    let arriving = history.arriving()?;
    let closed = pack::unpack(&file.content, arriving.path())?;
    if artifact.annotations.get(ANNOTATION).is_some_and(|digest| digest != closed.digest()) {
        return Err(Error::new(Cause::Usage, format!("it says that it is another bundle than {}", closed.digest())));
    }
    closed.verify()?;
    let facts = Facts::of(&evidence::read(closed.clone())?);
    if !releases(&facts).any(|about| about == release.file) {
        return Err(Error::new(Cause::Usage, "it says nothing of this release"));
    }
    evidence::check_date(facts.finished)?;
    let stored = history.store(&closed)?;
    arriving.close().cause(Cause::HostDisk, || "cannot remove a temporary folder of the history")?;
    Ok((facts, stored.new))
}
