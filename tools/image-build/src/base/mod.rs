//! `image-build base`: bases that do not run out of architectures, in four ways, the same bytes each time.

mod add;
mod archive;
mod buildah;
mod combine;
mod containerfile;
mod definition;
mod dockerfile;
mod folder;
mod image;
mod make;
mod rootfs;
mod spool;
mod target;

mod root;

use clap::Subcommand;
use kit::{Done, Result, Ui, ci::CiOptions};

use crate::options::Platforms;
pub(crate) use make::{Made, make, missing};
use target::{Row, Target};

/// The user without rights that bases run as, as distroless and Chainguard have it.
pub(crate) const NONROOT: &str = "65532:65532";

const EXAMPLES: &str = "\
Examples:
  image-build base static --platform linux/arm64,linux/s390x --to 10.1.2.3:5000/base/static
  image-build base build git --platform linux/s390x --layout git
  image-build base build git --platform linux/s390x --add linux/s390x=./root --to 10.1.2.3:5000/mine
  image-build base rootfs --root linux/amd64=amd64.tar --root linux/s390x=s390x.tar.zst --drop /dev \\
      --entrypoint /usr/bin/tini --entrypoint -- --to 10.1.2.3:5000/base/resolvers:v1
  image-build base combine gcr.io/distroless/static:nonroot mcr.microsoft.com/windows/nanoserver:ltsc2022 \\
      --to 10.1.2.3:5000/base/combined
  image-build base combine cgr.dev/chainguard/static --fallback docker.io/library/alpine:3.22 \\
      --platform linux/amd64,linux/s390x --to 10.1.2.3:5000/base/static
  image-build base dockerfile images/Dockerfile --platform linux/amd64,linux/s390x --to 10.1.2.3:5000/base/build

Every verb prints the reference by digest of what it pushed (or else the folder of the layout). Made again
from the same parts it has the same digest.

Exit codes: 0 it is made, and where it was to go; 1 a part lacks a platform or is for another one, or there is no
package for it; 2 the call or a file that it names is wrong; 3 a registry, a mirror or this machine failed; 5 a program
is missing.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// From Debian's packages, by a [build.NAME] of ci/images.toml
    Build(BuildArgs),
    /// For programs that need no library: certificates, time zones, user 65532; [build.static] of ci/images.toml
    Static(StaticArgs),
    /// From one root file system for each platform
    Rootfs(rootfs::Args),
    /// One index of several bases, as of Linux and of Windows; manifests stay what they are
    Combine(combine::Args),
    /// From a Dockerfile, by buildah, for all platforms
    Dockerfile(dockerfile::Args),
}

#[derive(Debug, clap::Args)]
struct BuildArgs {
    /// A [build.NAME] of ci/images.toml, for instance static
    name: String,
    #[command(flatten)]
    rest: StaticArgs,
}

#[derive(Debug, clap::Args)]
struct StaticArgs {
    #[command(flatten)]
    platforms: Platforms,
    /// Put what this folder holds on top of the root of that platform, as a layer of its own that belongs to root
    /// (repeatable)
    #[arg(long = "add", value_name = "PLATFORM=DIR")]
    added: Vec<rootfs::Root>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    ci: CiOptions,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    match &args.kind {
        Kind::Build(args) => build(&args.name, &args.rest, ui),
        Kind::Static(args) => build("static", args, ui),
        Kind::Rootfs(args) => rootfs::run(args, ui),
        Kind::Combine(args) => combine::run(args, ui),
        Kind::Dockerfile(args) => dockerfile::run(args, ui),
    }
}

fn build(name: &str, args: &StaticArgs, ui: &Ui) -> Result<Done> {
    args.target.check()?;
    let map = args.ci.open()?.images()?;
    let platforms = args.platforms.list();
    let made = make(&map, name, &platforms, ui)?;
    let (layout, index) = made.parts();
    let rows = platforms.iter().map(|platform| Row::new(platform, format!("[build.{name}]"))).collect();
    if args.added.is_empty() {
        return args.target.deliver(layout, index, rows, ui);
    }
    let (_folder, layout, index) = add::add(layout, index, &args.added)?;
    args.target.deliver(&layout, &index, rows, ui)
}
