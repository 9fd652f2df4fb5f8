//! `image-build build`: a component from its sources to images that are what they say.

mod bases;
mod named;
mod record;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use kit::{
    Cause, Context, Done, Error, Output, Platform, Result, RunDir, Ui,
    ci::{CiOptions, Component, ImageMap},
    record::{Image, ImageKind, Images, Release, Source},
    rundir, source,
};
use oci::Client;

use crate::{
    ko, manifests,
    options::{Platforms, Repo},
    show, verify,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Component of ci/components.toml
    #[arg(long, value_name = "NAME")]
    component: String,
    #[command(flatten)]
    repo: Repo,
    #[command(flatten)]
    platforms: Platforms,
    /// Folder of the run; images.json and release.yaml are written to DIR/COMPONENT
    #[arg(long, value_name = "DIR")]
    run_dir: PathBuf,
    #[command(flatten)]
    ci: CiOptions,
    /// Base image instead of the configured one: REF for all, or IMPORTPATH=REF (repeatable)
    #[arg(long = "base", value_name = "[IMPORTPATH=]REF")]
    bases: Vec<String>,
    /// The ko program [default: OTHER_ARCH_KO, ko on PATH, or our own]
    #[arg(long, value_name = "PATH")]
    ko: Option<PathBuf>,
    /// How many programs are built at the same time [default: as many as processors]
    #[arg(long, value_name = "N")]
    jobs: Option<u32>,
    /// What ko writes about an image's contents: spdx or none
    #[arg(long, default_value = "spdx", value_name = "KIND")]
    sbom: String,
    /// Added to GOFLAGS for the build, for instance -tags=x
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    go_flags: Option<String>,
    /// More arguments for `ko resolve`
    #[arg(last = true, value_name = "KO ARGUMENTS")]
    others: Vec<String>,
}

pub(crate) fn run(args: Args, ui: &Ui) -> Result<Done> {
    let ci = args.ci.open()?;
    let component = ci.component(&args.component)?;
    let map = ci.images()?;
    args.repo.reference("x")?;
    let run = RunDir::create(&args.run_dir)?;
    let folder = run.component(&args.component);
    let mut record = record::begin(&args, &component, &run);
    // What an earlier attempt left must not be taken for this one's.
    for old in ["release.yaml", "release.notags.yaml"] {
        match fs::remove_file(folder.join(old)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).cause(Cause::HostDisk, || format!("cannot remove {}", folder.join(old).display()));
            }
            _ => {}
        }
    }
    let build =
        Build { args: &args, component: &component, map: &map, platforms: args.platforms.list(), folder: &folder, ui };
    let result = build.run(&ci, &mut record);
    let digest = record::finish(&args, &folder, record.clone(), result.as_ref().err())?;
    if !record.images.is_empty() {
        match ui.output {
            Output::Json => ui.json(&rundir::read_record::<Images>(&folder)?.0)?,
            Output::Text => ui.result(&show::table(&record.images))?,
        }
    }
    result?;
    let release = record.release.map(|release| release.digest);
    Ok(Done::good().digest(release.unwrap_or(digest)))
}

struct Build<'a> {
    args: &'a Args,
    component: &'a Component,
    map: &'a ImageMap,
    platforms: Vec<Platform>,
    folder: &'a Path,
    ui: &'a Ui,
}

impl Build<'_> {
    fn run(&self, ci: &kit::ci::Ci, record: &mut Images) -> Result<()> {
        let program = ko::find(self.args.ko.as_deref(), self.ui)?;
        let checkout = source::checkout(ci, self.component, self.ui)?;
        record.source = checkout.source.clone();
        let files = manifests::files(&checkout.dir, &self.component.config)?;
        let expected = manifests::ko_references(&files)?;
        if expected.is_empty() {
            let what = format!("the configuration of {} asks ko for nothing (no ko://)", self.args.component);
            return Err(Error::new(Cause::Usage, what));
        }
        let config = ko::Config::load(&checkout.dir)?;
        let client = Client::new()?;
        let bases = bases::choose(self, &config, &client)?;
        bases::check(self, &bases, &expected, &client)?;
        let named = named::provide(self, &manifests::named_images(&files)?, &client)?;
        record.images.extend(named.images.iter().cloned());
        record.unused.clone_from(&named.unused);
        if let Some(error) = show::problems(&named.images) {
            return Err(error);
        }
        let text = self.build(&program, &checkout.dir, &config, &bases, expected.len())?;
        let built = self.verify(&text, &expected, &bases, &client)?;
        let problems = show::problems(&built);
        record.images.splice(0..0, built);
        if let Some(error) = problems {
            return Err(error);
        }
        let text = self.finish_text(named::replace(&text, &named.replacements), record)?;
        record.replacements = named.replacements;
        record.release = Some(self.release(&text, &client)?);
        Ok(())
    }

    /// The version as a tag, which must not have the `+` that versions of Go modules may have.
    fn tag(&self) -> String {
        self.component.version().replace('+', "-")
    }

    fn build(
        &self,
        program: &Path,
        root: &Path,
        config: &ko::Config,
        bases: &bases::Bases,
        images: usize,
    ) -> Result<String> {
        let commit = self.component.commit.as_deref().unwrap_or_default();
        let short = commit.get(..7).unwrap_or(commit);
        let ldflags: Vec<_> = self.component.ldflags.iter().map(|flag| flag.replace("{commit7}", short)).collect();
        rundir::write(&self.folder.join("ko.yaml"), config.with(bases, &ldflags)?.as_bytes())?;
        // ko runs in the sources' folder.
        let folder =
            self.folder.canonicalize().cause(Cause::HostDisk, || format!("cannot read {}", self.folder.display()))?;
        let resolve = ko::Resolve {
            program,
            root,
            folder: &folder,
            repo: self.args.repo.name(),
            tag: &self.tag(),
            platforms: &self.platforms,
            config: &self.component.config,
            sbom: &self.args.sbom,
            jobs: self.args.jobs,
            go_flags: self.args.go_flags.as_deref(),
            others: &self.args.others,
        };
        resolve.run(images, self.ui)
    }

    /// Compares what ko wrote with what it was asked for, image by image and platform by platform.
    fn verify(
        &self,
        text: &str,
        expected: &BTreeSet<String>,
        bases: &bases::Bases,
        client: &Client,
    ) -> Result<Vec<Image>> {
        let prefix = format!("{}/", self.args.repo.name());
        let found = manifests::image_references(text)?;
        let mut images = Vec::new();
        for path in expected {
            let repository = format!("{prefix}{}", path.to_lowercase());
            let is_its = |reference: &&String| {
                reference.strip_prefix(&repository).is_some_and(|rest| rest.starts_with([':', '@']))
            };
            let Some(reference) = found.iter().find(is_its) else {
                return Err(Error::new(Cause::BuildFailure, format!("ko built no image for ko://{path}")));
            };
            images.push((reference.clone(), ImageKind::Built));
        }
        let step = self.ui.step(format!("verifying {} images on {} platforms", images.len(), self.platforms.len()));
        let checked = oci::run(verify::check_all(client, &images, &self.platforms))?;
        step.done("");
        let named = checked.into_iter().zip(expected).map(|(image, path)| {
            let base = bases.get(path).or_else(|| bases.get("default")).cloned();
            Image { name: path.clone(), base, ..image }
        });
        Ok(named.collect())
    }

    fn finish_text(&self, text: String, record: &Images) -> Result<String> {
        let (text, count) = manifests::set_version(&text, self.component.version());
        if count == 0 && matches!(record.source, Source::Module { .. }) {
            let what =
                format!("nothing in the configuration of {} has the version 'devel' to replace", self.args.component);
            return Err(Error::new(Cause::Usage, what).next("see set_version in image-build's manifests.rs"));
        }
        if let Some(line) = text.lines().find(|line| line.contains("ko://")) {
            return Err(Error::new(Cause::BuildFailure, "ko left a reference as it was").line(line));
        }
        Ok(text)
    }

    /// Writes the release's files and pushes it; the files appear last, when everything is there.
    fn release(&self, text: &str, client: &Client) -> Result<Release> {
        let target = self.args.repo.reference(&format!("release/{}:{}", self.args.component, self.tag()))?;
        let pushed = oci::push_artifact(client, &target, oci::ARTIFACT_TYPE_RELEASE, "release.yaml", text.as_bytes());
        let artifact = oci::run(pushed)?;
        let objects = manifests::count_objects(text)?;
        let bare = manifests::without_tags(text, self.args.repo.name())?;
        rundir::write(&self.folder.join("release.notags.yaml"), bare.as_bytes())?;
        let digest = rundir::write(&self.folder.join("release.yaml"), text.as_bytes())?;
        Ok(Release { digest, objects, artifact: Some(artifact.whole()) })
    }
}
