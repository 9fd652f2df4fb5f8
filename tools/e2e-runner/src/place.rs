//! Where the tests run: the cluster that was named, its nodes, what is installed there.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use cluster::{Guard, KubeContext, Opened, inventory::Kept, objects::Object};
use kit::{
    Cause, Context, Error, Outcome, Platform, Result, RunDir, Ui,
    record::{ClusterId, Input, Install, Nature, Record},
    rundir,
};
use kube::api::{Patch, PatchParams};

use crate::{
    shard::Shard,
    turns::{Presence, Turns},
};

/// A release, as the input of a record.
const RELEASE: &str = "release.yaml";
/// How long a node may take to be ready for pods.
const NODES: Duration = Duration::from_secs(30);

/// An open cluster and what is known of it.
pub struct Place {
    /// The cluster.
    pub opened: Opened,
    /// Which it is.
    pub id: ClusterId,
    /// The platform that is tested.
    pub platform: Platform,
    /// What the nodes of that platform are, the worst of them.
    pub nature: Nature,
    /// Held for the run.
    pub lease: Option<Guard>,
    /// Whether the run held it before us, so that it goes on holding it after us.
    pub held_before: bool,
    /// Other parts of the suite that run here at the same time.
    pub turns: Turns,
    /// How they know of us.
    pub here: Presence,
}

/// What `install.json` says that matters here.
#[derive(Debug, Clone, Default)]
pub struct Installed {
    /// Digest of the release.
    pub release: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The records, by content; of what has none here, the release.
    pub inputs: Vec<Input>,
    /// Of a component that is not installed itself, what it needs.
    pub needs: Vec<String>,
    /// What the nodes are, as somebody looked.
    pub nature: Option<Nature>,
    /// How much slower they are than this machine.
    pub slowdown: Option<f64>,
}

impl Installed {
    /// For people.
    #[must_use]
    pub fn in_words(&self) -> String {
        match &self.release {
            Some(release) => release.clone(),
            None if self.needs.is_empty() => "no install.json".into(),
            None => format!("none, tested with {}", self.needs.join(" and ")),
        }
    }
}

impl Place {
    /// Opens the cluster for a part of `run`; `wanted` names the platform where its nodes have several.
    ///
    /// # Errors
    /// As `cluster::open` says; [`Cause::Usage`] if the platform is not clear, [`Cause::Node`] if no node has it.
    pub async fn open(
        options: &cluster::Options,
        wanted: Option<&Platform>,
        run: &str,
        part: Shard,
        ui: &Ui,
    ) -> Result<Self> {
        let opened = cluster::open(options, ui).await?;
        let uid = if part.is_part() { cluster::identity(&opened).await?.uid } else { String::new() };
        let turns = Turns::new(part, &uid)?;
        let here = turns.enter(ui)?;
        if here.is_first() {
            recover(&opened, run, ui).await?;
        }
        let (id, platform) = nodes(&opened, wanted, ui).await?;
        let natures = id.nodes.iter().filter(|node| node.ready && node.platform == platform).map(|node| node.nature);
        let nature = natures.max().unwrap_or(Nature::Unknown);
        Ok(Self { opened, id, platform, nature, lease: None, held_before: false, turns, here })
    }

    /// Whether the cluster has nodes of other platforms as well.
    #[must_use]
    pub fn is_mixed(&self) -> bool {
        self.id.nodes.iter().any(|node| node.platform != self.platform)
    }

    /// Takes the lease for `run`, or goes on with it.
    ///
    /// # Errors
    /// [`Cause::LeaseHeld`] if another run has it.
    pub async fn hold(&mut self, run: &str) -> Result<()> {
        let before = cluster::lease::show(&self.opened.client).await?;
        self.held_before = before.holder.as_deref() == Some(run);
        self.lease = Some(cluster::lease::take(&self.opened.client, run).await?);
        Ok(())
    }

    /// Gives the cluster back, if nobody took it before us in this run: the tests were all of it.
    pub async fn give_back(&mut self, ui: &Ui) {
        let Some(lease) = self.lease.take().filter(|_| !self.held_before) else { return };
        let late = || Error::new(Cause::ClusterUnreachable, "it does not answer");
        if let Err(error) = cluster::within(Duration::from_secs(10), late, lease.release()).await {
            ui.warn(format!("the lease was not given back, it ends by itself in 15 minutes: {error}"));
        }
    }

    /// Reads `install.json` of the cell, if it is there: it must be of this very cluster. Where the cluster goes by
    /// another name than when the component was installed, it lies in the cell of that name.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it is of another one; its own cause if the install did not succeed.
    pub fn installed(&self, cell: &Path) -> Result<Installed> {
        let mut found = Vec::new();
        for cell in installed_cells(cell)? {
            let (install, digest) = rundir::read_record::<Install>(&cell)?;
            found.push((cell.join(Install::FILE), install, digest));
        }
        let ours = found.iter().position(|(_, install, _)| install.cluster.uid == self.id.uid);
        if found.is_empty() {
            return Ok(Installed::default());
        }
        let (path, install, digest) = found.swap_remove(ours.unwrap_or(0));
        if ours.is_none() {
            let what = format!(
                "{} is of cluster {} (uid {}), and this is {} (uid {})",
                path.display(),
                install.cluster.name,
                install.cluster.uid,
                self.id.name,
                self.id.uid
            );
            return Err(Error::new(Cause::Usage, what)
                .next("name the cluster that the component was installed on, or another run directory"));
        }
        if install.head.outcome != Outcome::Passed {
            // Whatever the tests found, it would be said of something that is not there.
            let cause = install.head.cause.unwrap_or(Cause::Unclassified);
            let what = format!("{}: the install did not succeed", path.display());
            let why = install.head.message.unwrap_or_default();
            return Err(Error::new(cause, what).line(why).next("install it first, with this run directory"));
        }
        let inputs = vec![Input { name: Install::FILE.into(), digest }];
        // Of the nodes of another platform it says nothing.
        let same = install.platform == self.platform;
        let (nature, slowdown) = (Some(install.nature).filter(|_| same), install.slowdown.filter(|_| same));
        let (release, version) = (Some(install.release), Some(install.version));
        Ok(Installed { release, version, inputs, needs: Vec::new(), nature, slowdown })
    }

    /// Of a component that is not installed itself: what it needs, by the records of this run, and otherwise by what the
    /// cluster itself keeps of installations.
    ///
    /// # Errors
    /// As [`Self::installed`]; [`Cause::Usage`] for something that nobody has installed: whatever the tests found, it would be
    /// said of a component that had nothing to work with.
    pub async fn installed_needs(&self, component: &str, needs: &[String], run: &RunDir) -> Result<Installed> {
        let (mut all, mut kept) = (Installed::default(), None);
        for need in needs {
            let mut one = self.installed(&run.cell(need, &self.platform, &self.opened.name))?;
            if one.release.is_none() {
                if kept.is_none() {
                    kept = Some(cluster::inventory::all(&self.opened.client).await?);
                }
                // What was sent is noted at the end of an installation.
                let whole = |one: &&Kept| one.inventory.component == *need && !one.sent.is_empty();
                let found = kept.iter().flatten().find(whole).map(|kept| &kept.inventory).ok_or_else(|| {
                    let what = format!("{component} needs {need}, and we have not installed it on {}", self.id.name);
                    Error::new(Cause::Usage, what)
                        .next(format!("cluster-install install --component {need} on that cluster"))
                })?;
                (one.release, one.version) = (Some(found.release.clone()), Some(found.version.clone()));
                one.inputs = vec![Input { name: RELEASE.into(), digest: found.release.clone() }];
            }
            let name = |input: Input| Input { name: format!("{} of {need}", input.name), ..input };
            all.inputs.extend(one.inputs.into_iter().map(name));
            let (version, release) = (one.version.unwrap_or_default(), one.release.unwrap_or_default());
            all.needs.push(format!("{need} {version} ({release})"));
            // They are about the same nodes.
            (all.nature, all.slowdown) = (all.nature.or(one.nature), all.slowdown.or(one.slowdown));
        }
        Ok(all)
    }

    /// Refuses a cluster that holds another release of the component than this one: by its install.json, or by what the
    /// cluster itself keeps of installations.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it does, or nothing says what it holds; or as `cluster::cause_of` says.
    pub async fn holds(&self, component: &str, release: &str, installed: &Installed) -> Result<()> {
        let mut found: Vec<String> = installed.release.iter().cloned().collect();
        if found.is_empty() {
            let kept = cluster::inventory::list(&self.opened.client).await?;
            found.extend(kept.into_iter().filter(|kept| kept.component == component).map(|kept| kept.release));
        }
        if found.iter().any(|found| found == release) {
            return Ok(());
        }
        let held = if found.is_empty() { "no release that anybody has noted".into() } else { found.join(", ") };
        let what = format!("{} holds {held} of {component}, and the tests are to be about {release}", self.id.name);
        Err(Error::new(Cause::Usage, what).next("install that release first, or leave out --release"))
    }

    /// Applies what tests need beside the release: each file below these folders of the sources.
    ///
    /// # Errors
    /// [`Cause::Usage`] for a folder that is not there, or as `cluster::cause_of` says.
    pub async fn apply(&self, root: &Path, folders: &[String], ui: &Ui) -> Result<()> {
        let objects = manifests(folders.iter().map(|folder| root.join(folder)))?;
        if objects.is_empty() {
            return Ok(());
        }
        let kinds = cluster::Kinds::discover(&self.opened.client).await?;
        for (name, mut object) in objects {
            let kind = kinds.place(&mut object, &name)?;
            let api = kind.api(&self.opened.client, &object.key.namespace);
            let params = PatchParams::apply(cluster::FIELD_MANAGER).force();
            let applied = api.patch(&object.key.name, &params, &Patch::Apply(&object.value)).await;
            applied.kube(|| format!("cannot apply {} of {name}", object.key))?;
            ui.note(format!("applied for the tests: {}", object.key));
        }
        Ok(())
    }
}

/// The cell, if something was installed there, and otherwise those of the same component and platform on clusters of
/// other names.
fn installed_cells(cell: &Path) -> Result<Vec<PathBuf>> {
    let is_installed = |cell: &Path| cell.join(Install::FILE).is_file();
    if is_installed(cell) {
        return Ok(vec![cell.to_path_buf()]);
    }
    let Some(folder) = cell.parent().filter(|folder| folder.is_dir()) else { return Ok(Vec::new()) };
    let entries = std::fs::read_dir(folder).cause(Cause::HostDisk, || format!("cannot read {}", folder.display()))?;
    let mut cells: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|cell| is_installed(cell)).collect();
    cells.sort();
    Ok(cells)
}

/// The objects of these files, and of the files in these folders, each with the name of its file.
///
/// # Errors
/// [`Cause::Usage`] naming what cannot be read.
pub fn manifests(places: impl IntoIterator<Item = PathBuf>) -> Result<Vec<(String, Object)>> {
    let mut all = Vec::new();
    for place in places {
        for file in files(&place)? {
            let name = file.display().to_string();
            let bytes = rundir::read_limited(&file, cluster::objects::FILE_LIMIT)?;
            let text = String::from_utf8(bytes).cause(Cause::Usage, || format!("{name} is not UTF-8"))?;
            all.extend(cluster::objects::parse(&text, &name)?.into_iter().map(|object| (name.clone(), object)));
        }
    }
    Ok(all)
}

/// Gives back the nodes that a run has set aside that was killed, unless it is another one's that still works.
async fn recover(opened: &Opened, run: &str, ui: &Ui) -> Result<()> {
    if cluster::lease::show(&opened.client).await?.held_by_another(run, jiff::Timestamp::now()) {
        return Ok(());
    }
    for node in cluster::aside::give_back(&opened.client).await? {
        ui.note(format!("takes pods again, as before a run that was killed: node {node}"));
    }
    Ok(())
}

/// The cluster's identity once a node of the platform takes pods: of a cluster that has just started, the
/// node is ready some seconds before its taints are gone.
async fn nodes(opened: &Opened, wanted: Option<&Platform>, ui: &Ui) -> Result<(ClusterId, Platform)> {
    let deadline = Instant::now() + NODES;
    let mut step = None;
    for delay in kit::retry::delays() {
        let id = cluster::identity(opened).await?;
        // Only a node that is there can become ready.
        let hope = id.nodes.iter().any(|node| !node.ready && wanted.is_none_or(|wanted| node.platform == *wanted));
        match platform(&id, wanted) {
            Ok(platform) => return Ok((id, platform)),
            Err(error) if !hope || Instant::now() >= deadline => return Err(error),
            Err(error) => _ = step.get_or_insert_with(|| ui.step(error.summary())),
        }
        tokio::time::sleep(delay).await;
    }
    Err(Error::new(Cause::Node, format!("{} has no ready node", opened.name)))
}

fn platform(id: &ClusterId, wanted: Option<&Platform>) -> Result<Platform> {
    let mut found: Vec<_> = id.nodes.iter().filter(|node| node.ready).map(|node| node.platform.clone()).collect();
    found.sort();
    found.dedup();
    let list: Vec<_> = found.iter().map(ToString::to_string).collect();
    match (wanted, &found[..]) {
        (Some(wanted), found) if found.contains(wanted) => Ok(wanted.clone()),
        (Some(wanted), _) => Err(Error::new(Cause::Node, format!("{} has no ready node of {wanted}", id.name))
            .line(format!("ready nodes: {}", if list.is_empty() { "none".into() } else { list.join(", ") }))),
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(Error::new(Cause::Node, format!("{} has no ready node", id.name))),
        (None, _) => Err(Error::new(Cause::Usage, format!("{} has nodes of {}", id.name, list.join(", ")))
            .next("say with --platform which of them the tests are about")),
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot read {}, which ci/components.toml names as manifests", folder.display());
    if folder.is_file() {
        return Ok(vec![folder.to_path_buf()]);
    }
    let entries = std::fs::read_dir(folder).cause(Cause::Usage, failed)?;
    let yaml = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml");
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(yaml).collect();
    files.sort();
    if files.is_empty() {
        let what = format!("{} holds no manifests, and ci/components.toml says so", folder.display());
        return Err(Error::new(Cause::Usage, what).next("name the folder that holds the files themselves"));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::record::Node;

    #[test]
    fn the_platform_is_named_or_the_only_one() {
        let node = |platform: &str, ready| -> Node {
            let node = serde_json::json!({
                "name": "n", "platform": platform, "nature": "native", "kubelet": "", "kernel": "", "ready": ready
            });
            serde_json::from_value(node).unwrap()
        };
        let id = |nodes| ClusterId { uid: "u".into(), name: "c".into(), kubernetes: String::new(), nodes };
        let s390x = "linux/s390x".parse().unwrap();
        let one = id(vec![node("linux/amd64", true), node("linux/s390x", false)]);
        assert_eq!(platform(&one, None).unwrap().to_string(), "linux/amd64");
        assert_eq!(platform(&one, Some(&s390x)).unwrap_err().cause, Cause::Node);
        let two = id(vec![node("linux/amd64", true), node("linux/s390x", true)]);
        assert_eq!(platform(&two, None).unwrap_err().cause, Cause::Usage);
        assert_eq!(platform(&two, Some(&s390x)).unwrap(), s390x);
        assert_eq!(platform(&id(vec![]), None).unwrap_err().cause, Cause::Node);
    }
}
