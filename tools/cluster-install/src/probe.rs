//! What the nodes are: a probe looks on each, and does the same small piece of work there and here.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use cluster::{
    Opened,
    nature::{Facts, settle},
    probe,
};
use futures::{StreamExt, TryStreamExt, stream};
use kit::{
    Cause, Context, Error, Platform, Process, Result, Ui, Within,
    ci::{CiOptions, Cluster, Declared},
    record::{ClusterId, Node},
};
use oci::{Client, Place};

/// Nodes probed at the same time. Those of a lab share this machine, and would slow each other down.
const PARALLEL: usize = 4;
/// The probe is a program of a few megabytes.
const PROGRAM_LIMIT: usize = 64 << 20;
/// How long it may take here.
const HERE: Duration = Duration::from_secs(60);

/// Who looks, and with what.
pub(crate) struct Look<'a> {
    pub(crate) opened: &'a Opened,
    /// Nodes of this platform; of every one if it says none.
    pub(crate) platform: Option<&'a Platform>,
    /// The probe's image; without it only what others say is put together.
    pub(crate) image: Option<&'a str>,
    /// What it is asked beyond what it always says.
    pub(crate) arguments: &'a [String],
    pub(crate) declared: &'a [Declared],
    /// For each node.
    pub(crate) limit: Duration,
    pub(crate) ui: &'a Ui,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By the node's name.
    pub(crate) nodes: BTreeMap<String, Facts>,
    /// On this machine.
    pub(crate) here: Option<Facts>,
}

impl Seen {
    /// How much longer the work takes on a node than here; 1 if it takes no longer.
    pub(crate) fn slowdown_of(&self, node: &str) -> Option<f64> {
        let (there, here) = (self.nodes.get(node)?.work()?, self.here.as_ref()?.work()?);
        #[allow(clippy::cast_precision_loss, reason = "nobody counts the nanoseconds of an hour's work")]
        let ratio = there as f64 / here as f64;
        Some((ratio.max(1.0) * 100.0).round() / 100.0)
    }

    /// That of the slowest node.
    pub(crate) fn slowdown(&self) -> Option<f64> {
        self.nodes.keys().filter_map(|node| self.slowdown_of(node)).max_by(f64::total_cmp)
    }
}

/// Refuses the name of an image that could be another one tomorrow: its program also runs here.
///
/// # Errors
/// [`Cause::Usage`].
pub(crate) fn check_image(image: &str) -> Result<()> {
    match oci::parse(image)?.digest() {
        Some(_) => Ok(()),
        None => Err(Error::new(Cause::Usage, format!("the probe '{image}' is not named by its digest"))
            .next("name it as `cargo xtask image-build probe` prints it")),
    }
}

/// What owners declare; nothing outside a workspace.
///
/// # Errors
/// [`Cause::Usage`] with file, line and field.
pub(crate) fn declared(options: &CiOptions) -> Result<Vec<Declared>> {
    match options.open() {
        Ok(ci) if ci.folder().join("architectures.toml").is_file() => {
            Ok(ci.architectures()?.cluster.iter().filter_map(Cluster::declared).collect())
        }
        _ => Ok(Vec::new()),
    }
}

impl Look<'_> {
    /// Looks on each node, and writes into `id` what the nodes are, also if that is an error.
    ///
    /// # Errors
    /// What keeps the probe from running on a node; [`Cause::Usage`] if an owner declared what is not so.
    pub(crate) async fn at(&self, id: &mut ClusterId) -> Result<Seen> {
        let (seen, wrong) = self.see(id).await;
        wrong.map_or(Ok(seen), Err)
    }

    /// The same, for who wants to know what was seen also if it is not what was declared.
    pub(crate) async fn see(&self, id: &mut ClusterId) -> (Seen, Option<Error>) {
        let seen = match self.image {
            Some(image) => match self.probe(image, id).await {
                Ok(seen) => seen,
                Err(error) => return (Seen::default(), Some(error)),
            },
            None => Seen::default(),
        };
        let mut wrong = None;
        for node in &mut id.nodes {
            let declared = self.declared.iter().find(|declared| declared.is_of(&id.name, &id.uid, &node.platform));
            let settled = settle(node, seen.nodes.get(&node.name), &id.name, declared);
            wrong = wrong.or(settled.err());
        }
        (seen, wrong)
    }

    async fn probe(&self, image: &str, id: &ClusterId) -> Result<Seen> {
        // The probe speaks of Linux only.
        let meant = |node: &&Node| self.platform.is_none_or(|platform| node.platform == *platform);
        let wanted = |node: &&Node| node.ready && node.platform.os == "linux" && meant(node);
        let nodes: Vec<_> = id.nodes.iter().filter(wanted).collect();
        let client = &self.opened.client;
        let step = self.ui.step(format!("probing {} nodes", nodes.len()));
        probe::forget(client).await?;
        let looks = nodes.into_iter().map(|node| async move {
            let facts = probe::run(client, image, self.arguments, node, self.limit).await?;
            Ok::<_, Error>((node.name.clone(), facts))
        });
        let together = if self.opened.lab.is_some() { 1 } else { PARALLEL };
        let nodes = stream::iter(looks).buffer_unordered(together).try_collect().await?;
        let here = match here(image).await {
            Ok(facts) => Some(facts),
            // What the nodes are is known all the same.
            Err(error) if error.cause != Cause::Interrupted => {
                self.ui.warn(format!("how fast this machine is was not measured: {error}"));
                None
            }
            Err(error) => return Err(error),
        };
        let seen = Seen { nodes, here };
        step.done(seen.slowdown().map_or_else(String::new, times));
        Ok(seen)
    }
}

/// A slowdown in words.
pub(crate) fn times(slowdown: f64) -> String {
    if slowdown < 1.05 { "as fast as here".into() } else { format!("{slowdown:.1} times as slow as here") }
}

/// Runs the probe's own program on this machine.
async fn here(image: &str) -> Result<Facts> {
    let host = Platform::host();
    let program = oci::program(&Place::Registry(Client::new()?, oci::parse(image)?), &host, PROGRAM_LIMIT).await?;
    let run = tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
        let path = folder.path().join("probe");
        let write =
            fs::write(&path, program).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o700)));
        write.cause(Cause::HostDisk, || format!("cannot write {}", path.display()))?;
        let mut command = Command::new(&path);
        command.env_clear();
        Process::new("the probe on this machine", command).limit(HERE).read()
    });
    let answer = run.await.cause(Cause::Internal, || "the probe on this machine stopped")??;
    Facts::parse(&answer).within(|| "the probe on this machine")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(work: u64) -> Facts {
        Facts { work_nanoseconds: vec![work], ..Facts::default() }
    }

    #[test]
    fn the_slowest_node_counts() {
        let nodes = [("a", 30_000), ("b", 124_560), ("c", 9_000)];
        let nodes = nodes.into_iter().map(|(name, work)| (name.to_owned(), facts(work))).collect();
        let seen = Seen { nodes, here: Some(facts(10_000)) };
        assert_eq!(seen.slowdown(), Some(12.46));
        assert_eq!((seen.slowdown_of("a"), seen.slowdown_of("c")), (Some(3.0), Some(1.0)));
        assert_eq!(Seen { here: None, ..seen }.slowdown(), None);
        assert_eq!(Seen::default().slowdown(), None);
    }

    #[test]
    fn the_probe_is_named_by_digest() {
        let digest = kit::digest::sha256(b"");
        check_image(&format!("r.example/probe@{digest}")).unwrap();
        let error = check_image("r.example/probe:latest").unwrap_err();
        assert!(error.cause == Cause::Usage && error.to_string().contains("image-build probe"), "{error}");
    }
}
