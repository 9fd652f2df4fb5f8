//! What every verb works on: a run's cell, the cluster, its baseline.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use cluster::Opened;
use kit::{
    Cause, Error, Outcome, Platform, Result, RunDir, Ui,
    record::{Baseline, BaselineObject, ClusterId, Difference, Head, ObjectKey, Record},
    rundir::{self, read_record},
};
use kube::Client;
use serde_json::Value;

use crate::{
    TOOL, VERSION, bodies,
    compare::{compare, name, without_derived},
    list::{Listing, Object, With, is_unlisted},
    rules::RULES,
    select::Chosen,
    state::{self, State},
};

/// Which cell of a run, and which cluster.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// The run's folder
    #[arg(long, value_name = "DIR")]
    pub run_dir: PathBuf,
    /// The component whose install is cleaned up
    #[arg(long, value_name = "NAME")]
    pub component: String,
    /// The platform that is tested [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", default_value_t = Platform::host(), hide_default_value = true)]
    pub platform: Platform,
    /// The cluster.
    #[command(flatten)]
    pub cluster: cluster::Options,
}

impl Place {
    /// The command that does the same again.
    #[must_use]
    pub(crate) fn command(&self, verb: &str) -> String {
        let run_dir = self.run_dir.display().to_string();
        let platform = self.platform.to_string();
        let mut words = vec!["--run-dir", &run_dir, "--component", &self.component, "--platform", &platform];
        let cluster = self.cluster.arguments();
        words.extend(cluster.iter().map(String::as_str));
        let words: Vec<_> = words.into_iter().map(kit::process::quote).collect();
        format!("cargo xtask cleanup {verb} {}", words.join(" "))
    }

    /// # Errors
    /// [`Cause::Usage`] for a name that cannot be a folder's.
    fn check(&self) -> Result<()> {
        if rundir::slug(&self.component) == self.component {
            return Ok(());
        }
        Err(Error::new(Cause::Usage, format!("'{}' is not the name of a component", self.component)))
    }
}

/// An open cluster and the cell that it is about.
pub(crate) struct Scene {
    /// The cluster.
    pub opened: Opened,
    /// Which it is.
    pub id: ClusterId,
    /// The run's id.
    pub run: String,
    /// The cell's folder.
    pub cell: PathBuf,
}

impl Scene {
    /// Opens the cluster.
    ///
    /// # Errors
    /// As [`cluster::open`].
    pub(crate) async fn open(place: &Place, run: &RunDir, ui: &Ui) -> Result<Self> {
        Ok(Self::open_and(place, run, ui, async |_, _| Ok(())).await?.0)
    }

    /// Opens the cluster, and asks at the same time which one it is and what `ask` wants to know, with the cell's
    /// folder: a far API server answers as soon for all of it as for one question.
    ///
    /// # Errors
    /// As [`Self::open`], or those of `ask`.
    pub(crate) async fn open_and<T>(
        place: &Place,
        run: &RunDir,
        ui: &Ui,
        ask: impl AsyncFnOnce(&Client, &Path) -> Result<T>,
    ) -> Result<(Self, T)> {
        place.check()?;
        let opened = cluster::open(&place.cluster, ui).await?;
        let cell = run.cell(&place.component, &place.platform, &opened.name);
        let (id, answer) = tokio::try_join!(cluster::identity(&opened), ask(&opened.client, &cell))?;
        Ok((Self { opened, id, run: run.id(), cell }, answer))
    }

    /// Makes sure that the cluster was named, before anything is changed in it: of several contexts of a kubeconfig
    /// the current one may be anybody's.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it was not.
    pub(crate) fn named(&self, cluster_uid: Option<&str>) -> Result<()> {
        if !self.opened.assumed || cluster_uid.is_some() {
            return Ok(());
        }
        let (name, uid) = (&self.id.name, &self.id.uid);
        Err(Error::new(
            Cause::Usage,
            format!("the kubeconfig has several contexts, and none was named ('{name}' is current)"),
        )
        .next(format!("if cluster {uid} is meant: --context NAME, or for `run` --cluster-uid {uid}")))
    }

    /// The baseline of this cell, which must be of this cluster.
    ///
    /// # Errors
    /// [`Cause::Usage`] if there is none, if it is damaged, or if it is of another cluster.
    pub(crate) async fn baseline(&self) -> Result<Before> {
        self.at(Kept::read(&self.opened.client, &self.cell).await?)
    }

    /// A baseline that was read, which must be of this cluster.
    ///
    /// # Errors
    /// As [`Self::baseline`].
    pub(crate) fn at(&self, kept: Kept) -> Result<Before> {
        let Kept { file, state, .. } = kept;
        let (baseline, digest) =
            file.map_err(|error| error.next("take a baseline before the install: cargo xtask cleanup snapshot"))?;
        belongs(&baseline, &self.id)?;
        Ok(Before { baseline, digest: Some(digest), state, cell: self.cell.clone(), chosen: None })
    }

    /// What a part of the cluster is compared with: the baseline if there is one, which nothing that is in it
    /// leaves; otherwise nothing.
    ///
    /// # Errors
    /// As [`Self::baseline`], but for a baseline that is not there; [`Cause::Usage`] for a selection that needs one.
    pub(crate) fn part(&self, kept: Kept, chosen: Chosen, ui: &Ui) -> Result<Before> {
        if self.cell.join(Baseline::FILE).exists() {
            return Ok(Before { chosen: Some(chosen), ..self.at(kept)? });
        }
        let chosen = chosen.without_baseline()?;
        ui.note("without a baseline: whatever is selected counts as added");
        let baseline = Baseline {
            head: Head::new(TOOL, VERSION, &self.run, jiff::Timestamp::now()),
            cluster: self.id.clone(),
            objects: vec![],
            unlisted: vec![],
            bodies: None,
            nodes: vec![],
        };
        Ok(Before { baseline, digest: None, state: None, cell: self.cell.clone(), chosen: Some(chosen) })
    }
}

/// A baseline's file, and what the cluster keeps of it.
pub(crate) struct Kept {
    /// The record with its digest, or why it cannot be read.
    file: Result<(Baseline, String)>,
    state: Option<State>,
    /// Whether our namespace is on its way out, with all that the cluster keeps.
    pub going: bool,
}

impl Kept {
    /// Reads it.
    ///
    /// # Errors
    /// As [`cluster::cause_of`] says; what is wrong with the file is told when it is needed.
    pub(crate) async fn read(client: &Client, cell: &Path) -> Result<Self> {
        let file = read_record::<Baseline>(cell);
        let find = async {
            match &file {
                Ok((_, digest)) => state::find(client, digest).await,
                Err(_) => Ok(None),
            }
        };
        let (state, going) = tokio::try_join!(find, cluster::namespace::going(client))?;
        Ok(Self { file, state: state.filter(|_| !going), going })
    }
}

/// A baseline, and what the cluster knows of it.
pub(crate) struct Before {
    /// The record.
    pub baseline: Baseline,
    /// The digest of its file; nothing if there is none, and only a part is to go.
    pub digest: Option<String>,
    /// What the cluster keeps of it, unless that is gone.
    pub state: Option<State>,
    /// Where its bodies lie.
    pub cell: PathBuf,
    /// What is to go, if that is not everything.
    pub chosen: Option<Chosen>,
}

/// Where a cluster differs from its baseline, with the objects behind the names.
pub(crate) struct Now<'a> {
    /// What differs.
    pub difference: Difference,
    /// The objects that were added.
    pub added: Vec<&'a Object>,
    /// What could not be listed, and could when the baseline was taken.
    pub unproven: Vec<String>,
}

impl Now<'_> {
    /// Whether the cluster is at its baseline, and everything was seen.
    #[must_use]
    pub(crate) fn is_clean(&self) -> bool {
        self.difference.is_empty() && self.unproven.is_empty()
    }
}

impl Before {
    /// Compares it with a listing.
    #[must_use]
    pub(crate) fn compare<'a>(&self, listing: &'a Listing) -> Now<'a> {
        let objects = &self.baseline.objects;
        let names: std::collections::HashSet<_> = objects.iter().map(|object| name(&object.key)).collect();
        let known = |key: &ObjectKey| names.contains(&name(key));
        let blind = |key: &ObjectKey| is_unlisted(key, self.baseline.unlisted.iter().map(String::as_str));
        let dark = |key: &ObjectKey| is_unlisted(key, listing.unlisted.keys().map(String::as_str));
        let now = without_derived(&listing.objects, known);
        let now: Vec<&Object> = now.into_iter().filter(|object| !blind(&object.key)).collect();
        let mut difference = compare(objects, &now);
        // What cannot be seen now is not known to be missing.
        difference.missing.retain(|key| !dark(key));
        difference.unseen.clone_from(&self.baseline.unlisted);
        let added = now.into_iter().filter(|object| !known(&object.key)).collect();
        let unproven = listing.unlisted.iter().filter(|(what, _)| !self.baseline.unlisted.contains(*what));
        let said = |(what, why): (&String, &String)| format!("{what}: {why}");
        let Some(chosen) = &self.chosen else {
            return Now { difference, added, unproven: unproven.map(said).collect() };
        };
        let added = chosen.of(added, listing);
        // Nothing is put back where only a part is to go.
        let keys = added.iter().map(|object| object.key.clone()).collect();
        let mut unseen = difference.unseen;
        unseen.retain(|what| chosen.may_hide(what));
        difference = Difference { added: keys, unseen, ..Difference::default() };
        let unproven = unproven.filter(|(what, _)| chosen.may_hide(what)).map(said).collect();
        Now { difference, added, unproven }
    }

    /// Whether what goes is known to be of a run or an installation: added since a baseline, or named.
    #[must_use]
    pub(crate) fn is_ours(&self) -> bool {
        self.digest.is_some() || self.chosen.as_ref().is_some_and(Chosen::is_ours)
    }

    /// How a listing that is compared with it is made.
    #[must_use]
    pub(crate) fn with(&self) -> With<'_> {
        With { key: self.state.as_ref().map(|state| &state.key), bodies: None }
    }

    /// The bodies of these objects of the baseline, each with its object.
    ///
    /// # Errors
    /// [`Cause::Usage`] if their file cannot be read.
    pub(crate) fn bodies(&self, keys: &[ObjectKey]) -> Result<Vec<(&BaselineObject, Option<Value>)>> {
        let known: HashMap<_, _> = self.baseline.objects.iter().map(|object| (name(&object.key), object)).collect();
        let objects: Vec<_> = keys.iter().filter_map(|key| known.get(&name(key)).copied()).collect();
        let filed = objects.iter().filter(|object| object.body.is_none() && RULES.keeps_body(&object.key));
        let wanted = filed.map(|object| (object.digest.clone(), object.key.clone())).collect();
        let found = if self.baseline.bodies.is_some() { bodies::find(&self.cell, &wanted)? } else { BTreeMap::new() };
        let body = |object: &BaselineObject| object.body.clone().or_else(|| found.get(&object.digest).cloned());
        Ok(objects.into_iter().map(|object| (object, body(object))).collect())
    }

    /// The object of the baseline by that key.
    #[must_use]
    pub(crate) fn object(&self, key: &ObjectKey) -> Option<&BaselineObject> {
        self.baseline.objects.iter().find(|object| name(&object.key) == name(key))
    }
}

/// # Errors
/// [`Cause::Usage`] if a baseline is not one that may be gone back to on this cluster.
fn belongs(baseline: &Baseline, id: &ClusterId) -> Result<()> {
    let refuse = |why: String| Err(Error::new(Cause::Usage, why));
    if baseline.head.outcome != Outcome::Passed {
        return refuse("the baseline was not taken completely: its snapshot failed".into());
    }
    if baseline.cluster.uid != id.uid {
        let (then, now) = (&baseline.cluster, id);
        return refuse(format!(
            "the baseline is of cluster {} ({}), and this is cluster {} ({})",
            then.uid, then.name, now.uid, now.name
        ));
    }
    let system = |object: &BaselineObject| object.key.kind == "Namespace" && object.key.name == "kube-system";
    if !baseline.objects.iter().any(system) {
        return refuse("the baseline is damaged: it holds no namespace kube-system".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::{baseline as objects, object};
    use kit::record::Head;

    fn id(uid: &str) -> ClusterId {
        ClusterId { uid: uid.into(), name: format!("name-{uid}"), kubernetes: "v1.37.2".into(), nodes: vec![] }
    }

    fn before(unlisted: &[&str]) -> Before {
        let held = [object("Namespace.v1 kube-system", "1"), object("ConfigMap.v1 default/c", "2")];
        let baseline = Baseline {
            head: Head::new("cleanup", "0.1.0", "r", jiff::Timestamp::now()),
            cluster: id("a"),
            objects: objects(&held),
            unlisted: unlisted.iter().map(|name| (*name).to_owned()).collect(),
            bodies: None,
            nodes: vec![],
        };
        Before { baseline, digest: None, state: None, cell: PathBuf::new(), chosen: None }
    }

    #[test]
    fn a_baseline_of_another_cluster_is_refused_with_both_uids() {
        let before = before(&[]);
        belongs(&before.baseline, &id("a")).unwrap();
        let error = belongs(&before.baseline, &id("b")).unwrap_err();
        assert_eq!(error.cause, Cause::Usage);
        assert!(error.to_string().contains("cluster a (name-a)") && error.to_string().contains("cluster b (name-b)"));
    }

    #[test]
    fn a_failed_or_empty_baseline_is_refused() {
        let mut failed = before(&[]);
        failed.baseline.head.outcome = Outcome::Failed;
        assert!(belongs(&failed.baseline, &id("a")).is_err());
        let mut empty = before(&[]);
        empty.baseline.objects.clear();
        assert!(belongs(&empty.baseline, &id("a")).unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn what_the_baseline_could_not_see_is_never_cleaned() {
        let listing = Listing {
            objects: vec![
                object("Namespace.v1 kube-system", "1"),
                object("ConfigMap.v1 default/c", "2"),
                object("Thing.x.dev/v1 t", "3"),
            ],
            ..Listing::default()
        };
        assert_eq!(before(&[]).compare(&listing).added.len(), 1);
        assert!(before(&["*.x.dev"]).compare(&listing).is_clean());
    }

    #[test]
    fn a_part_never_takes_what_is_in_the_baseline_and_puts_nothing_back() {
        let labelled = |id: &str, uid: &str| {
            let labels = [("test".to_owned(), "true".to_owned())].into();
            Object { labels, digest: "sha256:changed".into(), ..object(id, uid) }
        };
        let listing = Listing {
            objects: vec![
                labelled("Namespace.v1 kube-system", "1"),
                labelled("ConfigMap.v1 default/new", "3"),
                object("ConfigMap.v1 default/other", "4"),
            ],
            ..Listing::default()
        };
        let mut before = before(&[]);
        let whole = before.compare(&listing).difference;
        assert_eq!((whole.added.len(), whole.missing.len(), whole.changed.len()), (2, 1, 1));
        before.chosen = Some(Chosen::labelled("test=true"));
        let part = before.compare(&listing);
        assert_eq!(part.difference.added, [object("ConfigMap.v1 default/new", "").key]);
        assert_eq!(part.difference.len(), 1);
    }

    #[test]
    fn what_cannot_be_seen_now_is_not_proven() {
        let listing = || Listing { objects: vec![object("Namespace.v1 kube-system", "1")], ..Listing::default() };
        let full = listing();
        assert_eq!(before(&[]).compare(&full).difference.missing.len(), 1);
        let mut dark = listing();
        dark.unlisted.insert("ConfigMap.".into(), "503".into());
        let now = before(&[]).compare(&dark);
        assert!(now.difference.is_empty() && !now.is_clean());
    }
}
