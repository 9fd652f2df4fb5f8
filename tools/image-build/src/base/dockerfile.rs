//! `image-build base dockerfile`: a base from a Dockerfile, built for each platform by buildah.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use kit::{Cause, Context, Done, Error, Platform, Result, Ui, Within, rundir};
use oci::{Client, Layout, Place, offers};

use super::{
    buildah::{self, BINFMT, Buildah},
    containerfile::Containerfile,
    image::{self, Listed},
    target::{Row, Target},
};
use crate::options::Platforms;

/// A longer Dockerfile is none.
const FILE_LIMIT: u64 = 1 << 20;

const HELP: &str = "\
Where the Dockerfile runs programs of the platform that it builds for (RUN), those of other architectures than
this machine's need Linux to start them by an interpreter: on Debian `apt-get install qemu-user-static`. Without
RUN, or with RUN only in stages that begin with `FROM --platform=$BUILDPLATFORM`, nothing of the kind is needed.

buildah gets storage and configuration of its own in a temporary folder, which is removed at the end. It is
found on PATH, or by OTHER_ARCH_BUILDAH.

Example:
  image-build base dockerfile images/Dockerfile --platform linux/amd64,linux/s390x --to 10.1.2.3:5000/base/build";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The Dockerfile
    file: PathBuf,
    #[command(flatten)]
    platforms: Platforms,
    /// Folder that COPY takes files from [default: the Dockerfile's]
    #[arg(long, value_name = "DIR")]
    context: Option<PathBuf>,
    /// Value of an ARG (repeatable)
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    arguments: Vec<String>,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    args.target.check()?;
    let platforms = args.platforms.list();
    let arguments = arguments(&args.arguments)?;
    let shown = args.file.display().to_string();
    let text = rundir::read_limited(&args.file, FILE_LIMIT)?;
    let host = Platform::host();
    let file = Containerfile::parse(&String::from_utf8_lossy(&text), &arguments, &host);
    check_run(&file, &platforms, &host, BINFMT.as_ref()).within(|| shown.clone())?;
    let bases = file.bases.iter().map(|base| oci::parse(base)).collect::<Result<Vec<_>>>().within(|| shown.clone())?;
    let hosts = bases.iter().map(|base| base.resolve_registry().to_owned());
    let buildah = Buildah::open(&hosts.filter(|host| oci::insecure(host)).collect::<Vec<_>>())?;
    check_bases(&bases, &platforms).within(|| shown.clone())?;
    let path = |path: &PathBuf| path.canonicalize().cause(Cause::Usage, || format!("cannot read {}", path.display()));
    let (full, folder) = (path(&args.file)?, args.context.as_ref().map(path).transpose()?);
    let context = folder.unwrap_or_else(|| full.parent().map(PathBuf::from).unwrap_or_default());
    let build = buildah::Build { file: &full, context: &context, arguments: &arguments };
    let result = make(&buildah, &build, &platforms, &shown, args, ui);
    // Also after a failure, whose reason then comes first.
    let closed = buildah.close();
    let done = result?;
    closed.map(|()| done)
}

fn make(
    buildah: &Buildah,
    build: &buildah::Build<'_>,
    platforms: &[Platform],
    shown: &str,
    args: &Args,
    ui: &Ui,
) -> Result<Done> {
    let temporary = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
    let layout = Layout::create(temporary.path())?;
    let (mut manifests, mut rows) = (Vec::new(), Vec::new());
    for platform in platforms {
        let place = Place::Layout(buildah.build(build, platform, ui)?);
        let (_, parts) = oci::run(oci::parts(&place))?;
        let [part] = &parts[..] else {
            return Err(Error::new(Cause::Internal, format!("buildah wrote {} images for {platform}", parts.len())));
        };
        if !offers(&part.platform, platform) {
            let what = format!("{shown}: what was built for {platform} says that it is for {}", part.platform);
            return Err(Error::new(Cause::ImageWrongArch, what));
        }
        let document = oci::run(oci::pull(&place, &part.manifest, &layout))?;
        let stored = oci::descriptor(document.media_type.as_str().into(), &document.bytes)?;
        manifests.push(Listed::new(platform, stored));
        rows.push(Row::new(platform, shown));
    }
    let index = image::write_index(&layout, manifests)?;
    args.target.deliver(&layout, &index, rows, ui)
}

fn arguments(given: &[String]) -> Result<BTreeMap<String, String>> {
    let split = |argument: &String| {
        let (name, value) = argument.split_once('=').filter(|(name, _)| !name.is_empty())?;
        Some((name.to_owned(), value.to_owned()))
    };
    let pair = |argument| {
        split(argument).ok_or_else(|| Error::new(Cause::Usage, format!("--build-arg '{argument}' is not NAME=VALUE")))
    };
    given.iter().map(pair).collect()
}

/// Refuses a RUN that this machine cannot do, naming all platforms that it cannot do it for.
fn check_run(file: &Containerfile, platforms: &[Platform], host: &Platform, binfmt: &Path) -> Result<()> {
    let Some((line, instruction)) = &file.run else { return Ok(()) };
    let foreign = platforms.iter().filter(|platform| !buildah::runs_here(platform, host, binfmt));
    let foreign: Vec<_> = foreign.map(ToString::to_string).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    let what = format!("line {line} runs programs of {}, which {host} cannot start", foreign.join(", "));
    let next = "let Linux emulate them (on Debian: apt-get install qemu-user-static), do it in a stage that begins \
                with FROM --platform=$BUILDPLATFORM, or use `image-build base rootfs` or `base build`, which run nothing";
    Err(Error::new(Cause::MissingProgram, what).line(instruction.clone()).next(next))
}

/// Refuses bases that lack a platform, all of them at once: buildah takes a plain image for any platform.
fn check_bases(bases: &[oci::Reference], platforms: &[Platform]) -> Result<()> {
    let client = Client::new()?;
    let mut lacking = Vec::new();
    for base in bases {
        let place = Place::Registry(client.clone(), base.clone());
        let offering = oci::run(oci::offered(&place)).within(|| format!("FROM {base}"))?;
        let missing: Vec<_> = platforms.iter().filter(|asked| !offering.has(asked)).map(ToString::to_string).collect();
        if !missing.is_empty() {
            lacking.push(format!("FROM {base} has no {}", missing.join(", ")));
        }
    }
    let Some(first) = lacking.first() else { return Ok(()) };
    let error = Error::new(Cause::ImageMissingPlatform, first.clone());
    Err(if lacking.len() > 1 { error.line(lacking.join("\n")) } else { error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_nothing_here_can_do_is_refused_for_all_platforms_at_once() {
        let host: Platform = "linux/amd64".parse().unwrap();
        let platforms: Vec<Platform> =
            ["linux/amd64", "linux/s390x", "linux/arm64"].map(|text| text.parse().unwrap()).into();
        let file = |text: &str| Containerfile::parse(text, &BTreeMap::new(), &host);
        let check =
            |text: &str, platforms: &[Platform]| check_run(&file(text), platforms, &host, "/nonexistent".as_ref());
        let error = check("FROM x\nRUN apk add git\n", &platforms).unwrap_err();
        assert_eq!(error.cause, Cause::MissingProgram);
        let wanted = "line 2 runs programs of linux/s390x, linux/arm64, which linux/amd64 cannot start";
        assert_eq!((error.summary().as_str(), error.line.as_deref()), (wanted, Some("RUN apk add git")));
        assert!(error.next.unwrap().contains("qemu-user-static"));
        check("FROM x\nRUN apk add git\n", &platforms[..1]).unwrap();
        check("FROM x\nCOPY a b\n", &platforms).unwrap();
    }
}
