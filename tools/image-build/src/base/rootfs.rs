//! `image-build base rootfs`: a base from one root file system for each platform.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use kit::{Cause, Context, Done, Error, Platform, Result, Ui, Within};
use oci::Layout;

use super::{
    NONROOT, archive, folder,
    image::{self, Settings},
    spool::Spool,
    target::{Row, Target},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Root file system of a platform: a folder, or a tar archive (plain, gzip, zstd, xz); owners and modes are kept
    #[arg(long = "root", value_name = "PLATFORM=DIR|TAR", required = true)]
    roots: Vec<Root>,
    /// Leave out this path and all below it (repeatable), as in --drop /dev
    #[arg(long, value_name = "PATH")]
    drop: Vec<String>,
    /// User and group that it runs as; 'root' for root
    #[arg(long, value_name = "UID:GID", default_value = NONROOT)]
    user: String,
    /// A word of what it starts (repeatable)
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// A word of the arguments for that, or of the command where nothing is said (repeatable)
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// Variable of its environment, beside PATH (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Working directory
    #[arg(long, value_name = "PATH", default_value = "/")]
    workdir: String,
    #[command(flatten)]
    target: Target,
}

/// A platform and where its files are.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub(super) platform: Platform,
    pub(super) path: PathBuf,
}

impl std::str::FromStr for Root {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (platform, path) = text.split_once('=').filter(|(_, path)| !path.is_empty()).ok_or_else(|| {
            Error::new(Cause::Usage, format!("'{text}' is not PLATFORM=DIR|TAR"))
                .next("write for instance linux/s390x=root.tar")
        })?;
        Ok(Self { platform: platform.parse()?, path: path.into() })
    }
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    args.target.check()?;
    let roots = unique(&args.roots)?;
    let settings = settings(args)?;
    let temporary = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
    let layout = Layout::create(temporary.path())?;
    let mut manifests = Vec::new();
    let mut rows = Vec::new();
    for (platform, path) in roots {
        let step = ui.step(format!("root of {platform}"));
        let mut spool = Spool::new(&args.drop)?;
        read(path, &mut spool)?;
        spool.check(platform).within(|| path.display().to_string())?;
        let (layer, diff_id) = spool.write(&layout)?;
        manifests.push(image::write_manifest(&layout, &settings, platform, &layer, &diff_id)?);
        rows.push(Row::new(platform, path.display().to_string()));
        step.done(format!("{:.1} MB", layer.size() as f64 / 1e6));
    }
    let index = image::write_index(&layout, manifests)?;
    args.target.deliver(&layout, &index, rows, ui)
}

/// Each platform once, for Linux.
fn unique(roots: &[Root]) -> Result<BTreeMap<&Platform, &Path>> {
    let mut unique: BTreeMap<&Platform, &Path> = BTreeMap::new();
    for Root { platform, path } in roots {
        if platform.os != "linux" {
            let what = format!("{platform}: a root of {} is no set of files", platform.os);
            return Err(Error::new(Cause::Usage, what).next("add such a base with `image-build base combine`"));
        }
        if let Some(first) = unique.insert(platform, path) {
            let what = format!("{platform} has two roots, {} and {}", first.display(), path.display());
            return Err(Error::new(Cause::Usage, what));
        }
    }
    Ok(unique)
}

fn settings(args: &Args) -> Result<Settings> {
    let mut env = BTreeMap::new();
    for variable in &args.env {
        let (name, value) = variable
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Error::new(Cause::Usage, format!("--env '{variable}' is not NAME=VALUE")))?;
        env.insert(name.to_owned(), value.to_owned());
    }
    Ok(Settings {
        user: (args.user != "root").then(|| args.user.clone()),
        workdir: Some(args.workdir.clone()),
        env,
        entrypoint: args.entrypoint.clone(),
        cmd: args.cmd.clone(),
        made_by: "image-build base rootfs".into(),
    })
}

fn read(path: &Path, spool: &mut Spool) -> Result<()> {
    if path.is_dir() { folder::read(path, spool) } else { archive::read(path, spool) }
}
