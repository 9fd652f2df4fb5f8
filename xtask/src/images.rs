//! `cargo xtask images`: the step images, one for each tool, for all platforms, from `ci/step-images`.
//!
//! Rust and Go compile for every platform on this machine, image-build puts the images together out of Debian's
//! packages and what was compiled, looks into them, and pushes them. No container engine is needed. At the end each
//! image has been started once on every platform, under qemu where that is another machine's.

mod evidence;
mod go;
mod programs;
mod rust;
mod shape;
mod start;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use kit::{
    Arch, Cause, Context, Done, Error, Output, Platform, Process, Result, Ui,
    ci::Ci,
    rundir,
    ui::{duration, table},
};
use serde::{Deserialize, Serialize};

use crate::tools;
pub(crate) use programs::Definitions;

const EXAMPLES: &str = "\
Examples:
  cargo xtask images                                            all images, all platforms, into target/images
  cargo xtask images --image cleanup --platform linux/s390x     one of them
  cargo xtask images --to registry.example/other-arch/steps     and push them, with SBOM and provenance

What the pushed ones are for: cargo xtask tekton.

Rust's other targets are taken from rustup (`rustup target add TARGET`) where they are there, otherwise from Debian's
packages (rustc-web, gcc-ARCH-linux-gnu), which root has installed and anybody else is told the names of.";

/// Build the step images for all platforms, look into them, start them, push them
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only this image (may be repeated)
    #[arg(long = "image", value_name = "NAME")]
    images: Vec<String>,
    /// Platform (repeat, or separate with commas) [default: those of ci/architectures.toml]
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    platforms: Vec<Platform>,
    /// Push them below this repository, each by the name of its tool
    #[arg(long, value_name = "REPO")]
    to: Option<String>,
    /// Do not start them
    #[arg(long)]
    no_start: bool,
}

impl Args {
    /// All images for one platform, pushed; they are started where somebody uses them.
    pub(crate) fn pushed_to(platform: Platform, to: String) -> Self {
        Self { images: Vec::new(), platforms: vec![platform], to: Some(to), no_start: true }
    }
}

/// What was made, for `cargo xtask tekton`: `target/images/images.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Made {
    /// Reference by digest, by image; of those that were pushed.
    pub(crate) images: BTreeMap<String, String>,
}

impl Made {
    /// Where it lies unless somebody says otherwise.
    pub(crate) fn path() -> PathBuf {
        tools::root().join("target/images/images.json")
    }

    /// What was pushed last, or what a file says.
    ///
    /// # Errors
    /// [`Cause::Usage`], saying how they are made.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self> {
        let path = file.map_or_else(Self::path, Path::to_path_buf);
        let next = "push them first: cargo xtask images --to REPO";
        let read = rundir::read_limited(&path, 1 << 20).map_err(|error| error.next(next))?;
        serde_json::from_slice(&read).cause(Cause::Usage, || format!("{} is damaged", path.display()))
    }

    /// Those that were pushed below this repository.
    fn below(mut self, to: &str) -> Self {
        let base = to.trim_end_matches('/');
        self.images.retain(|name, reference| {
            let rest =
                reference.strip_prefix(base).and_then(|rest| rest.strip_prefix('/')?.strip_prefix(name.as_str()));
            rest.is_some_and(|rest| rest.starts_with(['@', ':']))
        });
        self
    }

    /// These, and the others in their place.
    fn with(mut self, others: &Self) -> Self {
        self.images.extend(others.images.clone());
        self
    }
}

/// An image on one platform, as it came out.
pub(crate) struct Row {
    image: String,
    platform: Platform,
    packed: u64,
    own: u64,
    most: programs::Megabytes,
    started: usize,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let (rows, made) = make(args, ui)?;
    if let Some(to) = &args.to {
        // Who pushes some of them again means the others as they are.
        let before = Made::read(None).unwrap_or_default();
        rundir::write_json(&Made::path(), &before.below(to).with(&made))?;
    }
    show(&rows, &made, ui)?;
    Ok(Done::good())
}

/// Makes them; neither standard output nor `target/images/images.json` hears of it.
pub(crate) fn make(args: &Args, ui: &Ui) -> Result<(Vec<Row>, Made)> {
    let definitions = Definitions::read(&tools::root().join("ci/step-images"))?;
    let names = definitions.choose(&args.images)?;
    let platforms = platforms(args)?;
    let arches = platforms.iter().map(Platform::row).collect::<Result<Vec<_>>>()?;
    tools::build(&["image-build"], ui)?;
    let began = Instant::now();
    let wanted: Vec<_> = names.iter().filter_map(|name| definitions.image[*name].tool.as_deref()).collect();
    let rust = rust::build(&arches, &wanted, ui)?;
    let go = go::build(&arches, &definitions, &names, ui)?;
    ui.note(format!("compiled in {}", duration(began.elapsed())));
    let mut made = Made::default();
    let mut rows = Vec::new();
    for name in &names {
        let image =
            Image { name, definition: &definitions.image[*name], platforms: &platforms, to: args.to.as_deref() };
        let folder = tools::root().join("target/images").join(name);
        let reference = image.assemble(&rust, &go, &folder, ui)?;
        image.verify(&folder, ui)?;
        let shape = shape::read(&folder)?;
        for platform in &platforms {
            let part = shape.part(platform)?;
            fits(name, platform, part.packed(), image.definition)?;
            let started = if args.no_start { 0 } else { start::all(name, image.definition, platform, &part, ui)? };
            rows.push(Row {
                image: (*name).to_owned(),
                platform: platform.clone(),
                packed: part.packed(),
                own: part.layers.iter().skip(1).map(|layer| layer.size).sum(),
                most: image.definition.most,
                started,
            });
        }
        if let Some(reference) = reference {
            evidence::attach(&reference, name, &folder, &shape, &definitions, ui)?;
            made.images.insert((*name).to_owned(), reference);
        }
    }
    Ok((rows, made))
}

fn platforms(args: &Args) -> Result<Vec<Platform>> {
    if args.platforms.is_empty() {
        let ci = Ci::new(tools::root().join("ci"));
        return Ok(ci.architectures()?.architecture.into_iter().map(|architecture| architecture.platform).collect());
    }
    match args.platforms.iter().find(|platform| platform.os != "linux") {
        Some(other) => Err(Error::new(Cause::Usage, format!("{other}: step images run on Linux"))),
        None => Ok(args.platforms.clone()),
    }
}

/// An image to be made.
struct Image<'a> {
    name: &'a str,
    definition: &'a programs::Image,
    platforms: &'a [Platform],
    to: Option<&'a str>,
}

impl Image<'_> {
    /// Puts it together as a layout, and pushes it if that is wanted; returns the reference by digest.
    fn assemble(&self, rust: &rust::Built, go: &go::Built, folder: &Path, ui: &Ui) -> Result<Option<String>> {
        let staged = folder.with_file_name(format!(".{}-roots", self.name));
        let _ = fs::remove_dir_all(&staged);
        let mut arguments: Vec<String> = ["base", "build", self.name, "--ci"].map(String::from).into();
        arguments.push(tools::root().join("ci/step-images").display().to_string());
        for platform in self.platforms {
            arguments.extend(["--platform".into(), platform.to_string()]);
            // The largest first, and what changes most often last.
            if self.definition.go {
                arguments.extend(["--add".into(), format!("{platform}={}", go.toolchain(platform)?.display())]);
            }
            let bin = staged.join(platform.dir()).join("usr/local/bin");
            let mut any = false;
            for program in &self.definition.programs {
                put(&go.program(program, platform)?, &bin.join(program))?;
                any = true;
            }
            if let Some(tool) = &self.definition.tool {
                put(&rust.program(tool, platform)?, &bin.join(tool))?;
                any = true;
            }
            if any {
                let root = staged.join(platform.dir());
                arguments.extend(["--add".into(), format!("{platform}={}", root.display())]);
            }
        }
        arguments.extend(["--layout".into(), folder.display().to_string()]);
        if let Some(to) = self.to {
            arguments.extend(["--to".into(), format!("{}/{}", to.trim_end_matches('/'), self.name)]);
        }
        let said = image_build(&format!("image {}", self.name), &arguments, ui)?;
        let _ = fs::remove_dir_all(&staged);
        Ok(self.to.map(|_| said.trim().to_owned()))
    }

    /// Every program in every layer, and the user.
    fn verify(&self, folder: &Path, ui: &Ui) -> Result<()> {
        let mut arguments: Vec<String> = ["verify", "--deep", "--nonroot"].map(String::from).into();
        arguments.push(folder.display().to_string());
        arguments.extend(self.platforms.iter().flat_map(|platform| ["--platform".into(), platform.to_string()]));
        image_build(&format!("verify {}", self.name), &arguments, ui).map(drop)
    }
}

/// Refuses an image that a node would fetch longer than it has to.
fn fits(name: &str, platform: &Platform, packed: u64, image: &programs::Image) -> Result<()> {
    let most = image.most;
    if packed <= most.bytes() {
        return Ok(());
    }
    let size = megabytes(packed);
    let what = format!("step image {name} has {size} MB on {platform}, more than the {most} that it may have");
    Err(Error::new(Cause::PolicyRefused, what).next(format!(
        "leave out what it does not need ([build.{name}] in ci/step-images/images.toml), or raise `most` in \
         ci/step-images/programs.toml and say why"
    )))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// Puts a program where it is to lie.
fn put(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().unwrap_or(to);
    let done = fs::create_dir_all(parent).and_then(|()| fs::copy(from, to));
    done.cause(Cause::HostDisk, || format!("cannot copy {} to {}", from.display(), to.display())).map(drop)
}

/// Runs our own image-build and returns what it printed.
fn image_build(what: &str, arguments: &[String], ui: &Ui) -> Result<String> {
    let mut command = Command::new(tools::path("image-build")?);
    command.args(arguments);
    let step = ui.step(what);
    let (mut printed, mut last) = (String::new(), Vec::new());
    let finished = Process::new(what, command)
        .limit(Duration::from_secs(1800))
        .on_line(|stream, line| match stream {
            kit::Stream::Out => printed.push_str(&format!("{line}\n")),
            kit::Stream::Err => {
                step.set(line);
                last.push(line.to_owned());
            }
        })
        .finish()?;
    if finished.good() {
        step.done("");
        return Ok(printed);
    }
    step.failed("");
    let cause = match finished.code() {
        1 => Cause::ImageWrongArch,
        2 => Cause::Usage,
        5 => Cause::MissingProgram,
        _ => Cause::Registry,
    };
    last.drain(..last.len().saturating_sub(12));
    Err(Error::new(cause, format!("{what} failed")).line(format!("{printed}{}", last.join("\n"))))
}

fn show(rows: &[Row], made: &Made, ui: &Ui) -> Result<()> {
    if ui.output == Output::Json {
        let rows = rows.iter().map(|row| {
            serde_json::json!({
                "image": row.image, "platform": row.platform, "bytes": row.packed, "ownBytes": row.own,
                "mostBytes": row.most.bytes(),
                "started": row.started, "reference": made.images.get(&row.image),
            })
        });
        return ui.json(&rows.collect::<Vec<_>>());
    }
    let mut lines = vec![["image", "platform", "MB", "of it ours", "at most", "started"].map(String::from).to_vec()];
    for row in rows {
        let started = if row.started == 0 { "-".into() } else { format!("{} programs", row.started) };
        lines.push(vec![
            row.image.clone(),
            row.platform.to_string(),
            megabytes(row.packed),
            megabytes(row.own),
            row.most.to_string(),
            started,
        ]);
    }
    let mut text = table(&lines);
    for reference in made.images.values() {
        text.push_str(&format!("{reference}\n"));
    }
    ui.result(text.trim_end())
}

/// Architecture of a platform, for those that compile.
fn arch(platform: &Platform) -> Result<&'static Arch> {
    platform.row()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_too_large_is_refused_with_what_to_do() {
        let definitions = Definitions::read(&tools::root().join("ci/step-images")).unwrap();
        let (image, platform) = (&definitions.image["cleanup"], "linux/s390x".parse().unwrap());
        let most = image.most.bytes();
        fits("cleanup", &platform, most, image).unwrap();
        let error = fits("cleanup", &platform, most + 100_000, image).unwrap_err();
        assert_eq!(error.cause, Cause::PolicyRefused);
        let said = error.to_string();
        let size = format!("step image cleanup has {} MB on linux/s390x", megabytes(most + 100_000));
        for words in [&size, &format!("more than the {} that", image.most), "raise `most` in ci/step-images"] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }

    #[test]
    fn images_that_are_pushed_again_replace_their_like_and_no_other() {
        let made = |images: &[(&str, &str)]| Made {
            images: images.iter().map(|(name, reference)| ((*name).to_owned(), (*reference).to_owned())).collect(),
        };
        let before = made(&[("cleanup", "r/steps/cleanup@sha256:1"), ("trigger", "r/steps/trigger@sha256:2")]);
        let after = before.below("r/steps/").with(&made(&[("cleanup", "r/steps/cleanup@sha256:3")]));
        let names: Vec<_> = after.images.values().map(String::as_str).collect();
        assert_eq!(names, ["r/steps/cleanup@sha256:3", "r/steps/trigger@sha256:2"]);
        assert!(after.below("r/other").images.is_empty());
    }
}
