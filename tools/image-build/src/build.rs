//! `image-build build`: a component from its sources to images that are what they say.
//!
//! ko pushes into a layout on this machine; there every image is verified, and only then it is published.

mod bases;
mod fresh;
mod named;
mod publish;
mod record;
mod reuse;
mod text;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use kit::{
    Cause, Context, Done, Error, Output, Platform, Result, RunDir, Ui,
    ci::{Ci, CiOptions, Component, ImageMap},
    record::{Image, Images},
    rundir, source,
};
use oci::Client;

use self::{fresh::Fresh, reuse::Reuse};
use crate::{
    ko::{self, Naming},
    manifests,
    options::{BuildPlatforms, Repo},
    release, show,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  image-build build --component pipeline --repo 10.1.2.3:5000/nightly --platform linux/amd64,linux/s390x --run-dir run
  image-build build --component greeter --repo 10.1.2.3:5000/x --platform linux/s390x --run-dir run    plain images
  image-build build --component pipeline --repo 10.1.2.3:5000/nightly --platform all --run-dir run --reuse     what changed
  image-build build --component pipeline --repo r.io/x --platform all --tag v1.9.0 --tag latest --run-dir run -- --image-user=65532

Exit codes: 0 the images and the release are published; 1 something is not what it should be: a base or an image lacks
a platform, a program is for another machine, the sources do not compile; 2 the call or the configuration is wrong;
3 a registry, the network or this machine failed; 5 a program is missing. release.yaml is there only after 0.")]
pub(crate) struct Args {
    /// Component of ci/components.toml
    #[arg(long, value_name = "NAME")]
    component: String,
    #[command(flatten)]
    repo: Repo,
    #[command(flatten)]
    platforms: BuildPlatforms,
    /// Folder of the run; images.json and release.yaml are written to DIR/COMPONENT
    #[arg(long, value_name = "DIR")]
    run_dir: PathBuf,
    #[command(flatten)]
    ci: CiOptions,
    /// What is built, put into the configuration where it says 'devel' [default: the component's version]
    #[arg(long, value_name = "VERSION", value_parser = version)]
    version: Option<String>,
    /// Tag of the images and of the release; the first one stands in release.yaml (repeatable) [default: the version]
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Call images by the repository and the last part of their import path
    #[arg(long)]
    base_import_paths: bool,
    /// Call the image by the repository alone; for components with one image
    #[arg(long, conflicts_with = "base_import_paths")]
    bare: bool,
    /// Call images by the repository, the last part of their import path and its MD5, as ko does by default
    #[arg(long, conflicts_with_all = ["base_import_paths", "bare"])]
    hashed_import_paths: bool,
    /// Label in the images' configs (repeatable)
    #[arg(long = "image-label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Annotation of the images' manifests and indexes (repeatable)
    #[arg(long = "image-annotation", value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// Write the built images by digest into FILE, a line each, as Tekton Chains reads a result IMAGES
    #[arg(long, value_name = "FILE")]
    images_result: Option<PathBuf>,
    /// Most bytes that such a result may have; by default what Tekton takes of all results of a container (4096), less
    /// those of --results-dir
    #[arg(long, value_name = "BYTES", default_value_t = 3072, requires = "images_result")]
    images_result_limit: usize,
    /// Take images from the repository whose inputs (sources, Go, ko, flags, bases, platforms) are the same, instead of
    /// building them again; keep what new ones were made of. Not for releases: it believes whoever can write there
    #[arg(long)]
    reuse: bool,
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

/// What stands in YAML as it is, and with a `-` for `+` as a tag.
fn version(text: &str) -> Result<String, String> {
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let good = first && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b));
    if good { Ok(text.into()) } else { Err("a version has letters, digits, '.', '_', '+' and '-'".into()) }
}

impl Args {
    fn version<'a>(&'a self, component: &'a Component) -> &'a str {
        self.version.as_deref().unwrap_or_else(|| component.version())
    }

    /// Refuses what a release must not be: put together of what somebody else may have written into the registry.
    ///
    /// # Errors
    /// [`Cause::Usage`] for that, and for arguments of ko that contradict what is done here.
    fn check(&self) -> Result<()> {
        ko::refuse(&self.others)?;
        let released = |tag: &&String| {
            let mut numbers = tag.strip_prefix('v').unwrap_or(tag).splitn(3, '.');
            let number = |part: Option<&str>| part.is_some_and(|part| !part.is_empty() && part.parse::<u64>().is_ok());
            number(numbers.next()) && number(numbers.next())
        };
        let said = self.version.as_ref().or_else(|| self.tags.iter().find(released));
        match said.filter(|_| self.reuse) {
            None => Ok(()),
            Some(version) => Err(Error::new(Cause::Usage, format!("{version} is a release, which --reuse is not for"))
                .next("leave out --reuse: releases are built, and nothing of them is taken from the registry")),
        }
    }

    fn naming(&self) -> Naming {
        match (self.bare, self.base_import_paths, self.hashed_import_paths) {
            (true, ..) => Naming::Bare,
            (_, true, _) => Naming::Base,
            (.., true) => Naming::Hash,
            _ => Naming::Preserve,
        }
    }

    /// What ko gets besides: options of ours that are ko's, and its own.
    fn others(&self) -> Vec<String> {
        let labels = self.labels.iter().map(|label| format!("--image-label={label}"));
        let annotations = self.annotations.iter().map(|annotation| format!("--image-annotation={annotation}"));
        labels.chain(annotations).chain(self.others.iter().cloned()).collect()
    }
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let ci = args.ci.open()?;
    let component = ci.component(&args.component)?;
    component.to_install(&args.component)?;
    let map = ci.images()?;
    args.repo.reference("x")?;
    args.check()?;
    let run = RunDir::create(&args.run_dir)?;
    let folder = run.component(&args.component);
    let mut record = record::begin(args, &component, &run);
    // What an earlier attempt left must not be taken for this one's.
    release::forget(&folder)?;
    for old in [Some(&folder.join("ko.log")), args.images_result.as_ref()].into_iter().flatten() {
        release::remove(old)?;
    }
    let layout = Scratch::new(&folder)?;
    let result = Build::new(&ci, args, &component, &map, &folder, ui).and_then(|build| build.run(&layout, &mut record));
    drop(layout);
    let digest = record::finish(args, &folder, record.clone(), result.as_ref().err())?;
    if !record.images.is_empty() {
        match ui.output {
            Output::Json => ui.json(&rundir::read_record::<Images>(&folder)?.0)?,
            Output::Text => ui.result(&show::table(&record.images))?,
        }
    }
    result?;
    let (release, reference) = record.release.map(|release| (release.digest, release.artifact)).unzip();
    Ok(Done::good().digest(release.unwrap_or(digest)).reference(reference.flatten()))
}

/// Where the images lie until they are published; what an earlier attempt left goes first.
struct Scratch(PathBuf);

impl Scratch {
    fn new(folder: &Path) -> Result<Self> {
        // ko runs in the sources' folder.
        let folder = std::path::absolute(folder.join("layout"));
        let folder = folder.cause(Cause::HostDisk, || "cannot tell where the run directory is")?;
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).cause(Cause::HostDisk, || format!("cannot remove {}", folder.display()))
            }
            _ => Ok(Self(folder)),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next attempt removes what stays now.
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Build<'a> {
    args: &'a Args,
    component: &'a Component,
    map: &'a ImageMap,
    client: Client,
    config: ko::Config,
    checkout: source::Checkout,
    platforms: Vec<Platform>,
    folder: &'a Path,
    ui: &'a Ui,
}

impl<'a> Build<'a> {
    fn new(
        ci: &Ci,
        args: &'a Args,
        component: &'a Component,
        map: &'a ImageMap,
        folder: &'a Path,
        ui: &'a Ui,
    ) -> Result<Self> {
        let client = Client::new()?;
        let checkout = source::checkout(ci, component, ui)?;
        let config = ko::Config::load(&checkout.dir)?;
        let mut build = Self { args, component, map, client, config, checkout, platforms: Vec::new(), folder, ui };
        build.platforms = match args.platforms.list() {
            Some(platforms) => platforms,
            None => {
                let platforms = args.platforms.of(&bases::all(&build, ci)?);
                let names: Vec<_> = platforms.iter().map(ToString::to_string).collect();
                if names.is_empty() {
                    let what = format!("the default base offers nothing for '{}' that is known", args.platforms);
                    return Err(Error::new(Cause::ImageMissingPlatform, what));
                }
                ui.note(format!("{} platforms: {}", args.platforms, names.join(",")));
                platforms
            }
        };
        Ok(build)
    }

    fn run(&self, scratch: &Scratch, record: &mut Images) -> Result<()> {
        record.source = self.checkout.source.clone();
        record.platforms.clone_from(&self.platforms);
        let program = ko::find(self.args.ko.as_deref(), self.ui)?;
        let files = manifests::files(&self.checkout.dir, self.component.to_install(&self.args.component)?)?;
        let expected = self.expected(&files)?;
        let bases = bases::needed(self, &expected);
        bases::check(self, &bases, &expected)?;
        let named = named::look(self, &manifests::named_images(&files)?)?;
        record.images.extend(named.images.iter().cloned());
        record.unused.clone_from(&named.unused);
        if let Some(error) = show::problems(&named.images) {
            return Err(error);
        }
        let bases = bases::provide(self, bases)?;
        let reuse = self.args.reuse.then(|| Reuse::look(self, &program, &bases, &expected)).transpose()?;
        let nothing = BTreeMap::new();
        let known = reuse.as_ref().map_or(&nothing, Reuse::known);
        let missing: BTreeMap<_, _> = expected.into_iter().filter(|(import, _)| !known.contains_key(import)).collect();
        if !self.args.reuse && missing.len() > 1 {
            let step =
                self.ui.step(format!("Go compiles {} programs for {} platforms", missing.len(), self.platforms.len()));
            reuse::compile(self, &bases, &missing)?;
            step.done("");
        }
        let fresh = (!missing.is_empty()).then(|| Fresh::build(self, &program, &bases, missing, &scratch.0));
        let fresh = fresh.transpose()?;
        let made = fresh.iter().flat_map(Fresh::images).map(|(image, _)| image);
        let mut built: Vec<Image> = made.chain(known.values().map(|known| &known.image)).cloned().collect();
        built.sort_by(|a, b| a.name.cmp(&b.name));
        let problems = show::problems(&built);
        record.images.splice(0..0, built.iter().cloned());
        record.reused = known.keys().cloned().collect();
        if let Some(error) = problems {
            return Err(error);
        }
        record.replacements.clone_from(&named.replacements);
        let text = text::release(self, &files, &built, record)?;
        let result = publish::images_result(self, &built)?;
        named.publish(self)?;
        publish::images(self, fresh.as_ref(), reuse.as_ref())?;
        if let (Some(reuse), Some(fresh)) = (&reuse, &fresh) {
            reuse.remember(fresh)?;
        }
        record.release = Some(publish::release(self, &text)?);
        match &self.args.images_result {
            Some(path) => rundir::write(path, result.as_bytes()).map(drop),
            None => Ok(()),
        }
    }

    /// The images that the configuration asks ko for, each with its platforms.
    fn expected(&self, files: &[PathBuf]) -> Result<BTreeMap<String, Vec<Platform>>> {
        let imports = manifests::ko_references(files)?;
        let name = &self.args.component;
        if imports.is_empty() {
            let what = format!("the configuration of {name} asks ko for nothing (no ko://)");
            return Err(Error::new(Cause::Usage, what));
        }
        if let Some(unknown) = self.component.platforms.keys().find(|import| !imports.contains(*import)) {
            let what = format!("components.toml: {name} has platforms for {unknown}, which it does not build");
            return Err(Error::new(Cause::Usage, what));
        }
        let mut repositories = BTreeMap::new();
        for import in &imports {
            let repository = self.repository(import);
            if let Some(other) = repositories.insert(repository.clone(), import) {
                let what = format!("{import} and {other} would both be called {repository}");
                return Err(Error::new(Cause::Usage, what).next("leave out --bare or --base-import-paths"));
            }
        }
        let mut expected = BTreeMap::new();
        for import in imports {
            let own = self.component.platforms.get(&import);
            let wanted = |platform: &&Platform| own.is_none_or(|own| own.contains(platform));
            let platforms: Vec<_> = self.platforms.iter().filter(wanted).cloned().collect();
            if platforms.is_empty() {
                let what = format!("components.toml leaves {import} none of the platforms that were asked for");
                return Err(Error::new(Cause::Usage, what));
            }
            expected.insert(import, platforms);
        }
        Ok(expected)
    }

    /// Where the image of an import path is published.
    fn repository(&self, import: &str) -> String {
        self.args.naming().repository(self.args.repo.name(), import)
    }

    /// What is built: as the call says, otherwise as ci/components.toml does.
    fn version(&self) -> &str {
        self.args.version(self.component)
    }

    /// The images' tags, the one in release.yaml first.
    fn tags(&self) -> Vec<String> {
        // Versions of Go modules may have a `+`, tags must not.
        let version = || vec![self.version().replace('+', "-")];
        if self.args.tags.is_empty() { version() } else { self.args.tags.clone() }
    }

    /// ko's configuration, with our bases and the component's linker flags.
    fn ko_config(&self, bases: &bases::Bases) -> Result<String> {
        self.config.with(bases, &self.component.ldflags(self.version()))
    }
}
