//! What is to go, where not everything beyond the baseline is: by label, run, age, inventory or release file.
//! Several conditions have to hold together. Pure, but for reading the file and the inventories.

use std::{
    collections::{BTreeSet, HashSet},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use cluster::{inventory::Inventory, objects};
use jiff::Timestamp;
use kit::{Cause, Context, Error, Result, record::ObjectKey, rundir::read_limited};
use kube::Client;

use crate::{
    list::{Listing, Object},
    order::is,
    rules::{RULES, group_of},
    state::RUN,
};

/// Which objects; without any option everything beyond the baseline.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Selection {
    /// Only what has this label, and everything in namespaces that have it
    #[arg(long = "label", value_name = "KEY[=VALUE]", help_heading = HEADING)]
    pub labels: Vec<Label>,
    /// Only what this run left: what its inventories name, or has the label other-arch/run with it
    #[arg(long, value_name = "RUN", help_heading = HEADING)]
    pub of_run: Option<String>,
    /// Only what is older: 90s, 30m, 2h, 3d (without a baseline never alone)
    #[arg(long, value_name = "AGE", help_heading = HEADING)]
    pub older_than: Option<Age>,
    /// Only what cluster-install's inventory of the component names
    #[arg(long, help_heading = HEADING)]
    pub inventory: bool,
    /// Only what this release file names
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    pub release: Option<PathBuf>,
}

const HEADING: &str = "Only a part (several conditions have to hold together)";

/// A label that an object must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    key: String,
    value: Option<String>,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)));
        let fits = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        if key.is_empty() || !fits(key) || !value.is_none_or(fits) {
            return Err("a label is KEY or KEY=VALUE".into());
        }
        Ok(Self { key: key.into(), value: value.map(String::from) })
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.key)?;
        self.value.iter().try_for_each(|value| write!(f, "={value}"))
    }
}

impl Label {
    /// Whether it is among these.
    #[must_use]
    pub(crate) fn is_on(&self, labels: &[(String, String)]) -> bool {
        labels.iter().any(|(key, found)| *key == self.key && self.value.as_ref().is_none_or(|wanted| wanted == found))
    }
}

/// A length of time as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age(pub Duration);

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "an age is a number with its unit: 90s, 30m, 2h, 3d".to_owned();
        let unit = text.chars().last().ok_or_else(wrong)?;
        let seconds: u64 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
        // Longer than any cluster lives; and no sum of it with a time can be too large.
        if number > 36_500 * 86_400 / seconds {
            return Err(wrong());
        }
        Ok(Self(Duration::from_secs(number * seconds)))
    }
}

impl std::fmt::Display for Age {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs();
        let unit = [(86_400, 'd'), (3600, 'h'), (60, 'm')]
            .into_iter()
            .find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
        match unit {
            Some((unit, name)) => write!(f, "{}{name}", seconds / unit),
            None => write!(f, "{seconds}s"),
        }
    }
}

impl Age {
    /// What was made before this moment is older.
    #[must_use]
    pub(crate) fn before(self, now: Timestamp) -> Timestamp {
        now.checked_sub(self.0).unwrap_or(Timestamp::MIN)
    }
}

impl Selection {
    /// Whether it selects at all.
    #[must_use]
    pub(crate) fn is_any(&self) -> bool {
        !self.labels.is_empty()
            || self.of_run.is_some()
            || self.older_than.is_some()
            || self.inventory
            || self.release.is_some()
    }

    /// The options that say the same.
    #[must_use]
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut add = |name: &str, value: String| words.extend([name.to_owned(), value]);
        self.labels.iter().for_each(|label| add("--label", label.to_string()));
        self.of_run.iter().for_each(|run| add("--of-run", run.clone()));
        self.older_than.iter().for_each(|age| add("--older-than", age.to_string()));
        self.release.iter().for_each(|file| add("--release", file.display().to_string()));
        words.extend(self.inventory.then(|| "--inventory".to_owned()));
        words
    }

    /// Reads what it names.
    ///
    /// # Errors
    /// [`Cause::Usage`] for a release file or an inventory that cannot be read, or that is not there.
    pub(crate) async fn resolve(&self, client: &Client, component: &str) -> Result<Option<Chosen>> {
        if !self.is_any() {
            return Ok(None);
        }
        let needs_inventories = self.inventory || self.of_run.is_some();
        let inventories = if needs_inventories { cluster::inventory::list(client).await? } else { vec![] };
        self.choose(&inventories, component, Timestamp::now()).map(Some)
    }

    fn choose(&self, inventories: &[Inventory], component: &str, now: Timestamp) -> Result<Chosen> {
        let mut named: Vec<HashSet<Id>> = Vec::new();
        if self.inventory {
            let of_it = inventories.iter().filter(|inventory| inventory.component == component);
            let objects: HashSet<Id> = of_it.flat_map(|inventory| inventory.objects.iter().map(id)).collect();
            if objects.is_empty() {
                return Err(Error::new(Cause::Usage, format!("the cluster holds no inventory of '{component}'"))
                    .next("name the release instead: --release FILE"));
            }
            named.push(objects);
        }
        if let Some(path) = &self.release {
            let name = path.display().to_string();
            let bytes = read_limited(path, objects::FILE_LIMIT)?;
            let text = String::from_utf8(bytes).cause(Cause::Usage, || format!("{name} is not UTF-8"))?;
            let objects = objects::parse(&text, &name)?;
            if objects.is_empty() {
                return Err(Error::new(Cause::Usage, format!("{name} names no object")));
            }
            named.push(objects.iter().map(|object| id(&object.key)).collect());
        }
        let of_run = self.of_run.as_ref().map(|run| {
            let of_it = inventories.iter().filter(|inventory| inventory.run == *run);
            (run.clone(), of_it.flat_map(|inventory| inventory.objects.iter().map(id)).collect())
        });
        Ok(Chosen {
            words: self.words(component),
            labels: self.labels.clone(),
            of_run,
            before: self.older_than.map(|age| age.before(now)),
            named,
            installation: self.inventory || self.release.is_some(),
            baseless: false,
        })
    }

    fn words(&self, component: &str) -> Vec<String> {
        let mut words: Vec<String> = self.labels.iter().map(|label| format!("label {label}")).collect();
        words.extend(self.of_run.iter().map(|run| format!("of run {run}")));
        words.extend(self.older_than.iter().map(|age| format!("older than {age}")));
        words.extend(self.inventory.then(|| format!("inventory of {component}")));
        words.extend(self.release.iter().map(|file| format!("release {}", file.display())));
        words
    }
}

/// Group, kind, namespace, name: a release may leave the namespace out, and name another version.
type Id = (String, String, String, String);

fn id(key: &ObjectKey) -> Id {
    (group_of(key).to_owned(), key.kind.clone(), key.namespace.clone(), key.name.clone())
}

/// A selection with everything that it names.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    /// In words.
    pub words: Vec<String>,
    labels: Vec<Label>,
    of_run: Option<(String, HashSet<Id>)>,
    before: Option<Timestamp>,
    named: Vec<HashSet<Id>>,
    /// Whether it stands for an installation as a whole.
    pub installation: bool,
    /// Whether no baseline says what was there before, so that everything counts as added.
    baseless: bool,
}

impl Chosen {
    /// What has this label: for tests.
    #[cfg(test)]
    pub(crate) fn labelled(label: &str) -> Self {
        Self { labels: label.parse().into_iter().collect(), ..Self::default() }
    }

    /// The same where no baseline says what was there before.
    ///
    /// # Errors
    /// [`Cause::Usage`] if only an age selects: everything that is older would go, the cluster's own included.
    pub(crate) fn without_baseline(self) -> Result<Self> {
        if self.labels.is_empty() && !self.is_ours() {
            return Err(Error::new(
                Cause::Usage,
                "without a baseline --older-than alone would select whatever is older, and not only what was added",
            )
            .next("say what is meant as well: --label, --of-run, --inventory or --release; or take a baseline first"));
        }
        Ok(Self { baseless: true, ..self })
    }

    /// Whether what it selects is known to be of a run or an installation.
    #[must_use]
    pub(crate) fn is_ours(&self) -> bool {
        self.of_run.is_some() || !self.named.is_empty()
    }

    /// Whether something that only has a label, or an age, is likely the cluster's own.
    fn is_the_clusters(&self, key: &ObjectKey) -> bool {
        self.baseless && !self.is_ours() && RULES.system(key)
    }

    /// What is selected of `added`, with what goes with it: everything in a namespace, of a definition, or of
    /// owners that are all selected.
    #[must_use]
    pub(crate) fn of<'a>(&self, added: Vec<&'a Object>, listing: &Listing) -> Vec<&'a Object> {
        // What is protected stays, with whatever is in it.
        let may_go = |object: &Object| !RULES.protected(&object.key) && !self.is_the_clusters(&object.key);
        let direct: Vec<&Object> = added.iter().copied().filter(|object| self.fits(object) && may_go(object)).collect();
        let namespaces: HashSet<&str> = direct
            .iter()
            .filter(|object| is(&object.key, "", "Namespace"))
            .map(|object| object.key.name.as_str())
            .collect();
        let definitions: BTreeSet<&str> = direct
            .iter()
            .filter(|object| is(&object.key, "apiextensions.k8s.io", "CustomResourceDefinition"))
            .map(|object| object.key.name.as_str())
            .collect();
        let mut chosen: HashSet<&str> = direct.iter().map(|object| object.uid.as_str()).collect();
        for object in &added {
            let defined = || {
                let resource = &listing.kind_of(&object.key)?.resource;
                Some(definitions.contains(format!("{}.{}", resource.plural, resource.group).as_str()))
            };
            let goes = namespaces.contains(object.key.namespace.as_str())
                || (!definitions.is_empty() && defined() == Some(true));
            if goes {
                chosen.insert(&object.uid);
            }
        }
        // Chains of owners are short: Deployment, ReplicaSet, Pod.
        for _ in 0..8 {
            let owners = |object: &Object| object.owner.iter().chain(&object.owners).cloned().collect::<Vec<_>>();
            let follow: Vec<&Object> = added
                .iter()
                .copied()
                .filter(|object| !chosen.contains(object.uid.as_str()))
                .filter(|object| {
                    let owners = owners(object);
                    !owners.is_empty() && owners.iter().all(|owner| chosen.contains(owner.as_str()))
                })
                .collect();
            if follow.is_empty() {
                break;
            }
            chosen.extend(follow.iter().map(|object| object.uid.as_str()));
        }
        added.into_iter().filter(|object| chosen.contains(object.uid.as_str())).collect()
    }

    fn fits(&self, object: &Object) -> bool {
        let named = |ids: &HashSet<Id>| {
            let mut id = id(&object.key);
            // A release file may leave out the namespace `default`.
            ids.contains(&id)
                || (id.2 == "default" && {
                    id.2.clear();
                    ids.contains(&id)
                })
        };
        let of_run = |(run, ids): &(String, HashSet<Id>)| {
            object.labels.iter().any(|(key, value)| key == RUN && value == run) || named(ids)
        };
        self.labels.iter().all(|label| label.is_on(&object.labels))
            && self.of_run.as_ref().is_none_or(of_run)
            && self.before.is_none_or(|before| object.created.is_some_and(|created| created < before))
            && self.named.iter().all(named)
    }

    /// Whether something that could not be listed may be among what is selected.
    #[must_use]
    pub(crate) fn may_hide(&self, unlisted: &str) -> bool {
        let Some((kind, group)) = unlisted.split_once('.') else { return true };
        let is = |id: &Id| id.0 == group && (kind == "*" || id.1 == kind);
        self.named.iter().all(|ids| ids.iter().any(is))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compare::tests::object, list::Kind};
    use kube::api::ApiResource;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cluster() -> Listing {
        let labelled = |id: &str, uid: &str| {
            let mut object = object(id, uid);
            object.labels = [("tekton.dev/test-e2e".to_owned(), "true".to_owned())].into();
            object
        };
        let objects = vec![
            Object { created: Some(at("2026-01-01T00:00:00Z")), ..labelled("Namespace.v1 old", "1") },
            Object { created: Some(at("2026-01-02T00:00:00Z")), ..labelled("Namespace.v1 new", "2") },
            object("ConfigMap.v1 old/c", "3"),
            object("ConfigMap.v1 new/c", "4"),
            object("ConfigMap.v1 default/c", "5"),
            object("CustomResourceDefinition.apiextensions.k8s.io/v1 runs.tekton.dev", "6"),
            object("Run.tekton.dev/v1 default/r", "7"),
            object("Deployment.apps/v1 default/d", "8"),
            Object { owner: Some("8".into()), ..object("ReplicaSet.apps/v1 default/d-1", "9") },
            Object { owner: Some("9".into()), ..object("Pod.v1 default/d-1-x", "10") },
            Object { owners: vec!["8".into(), "5".into()], ..object("Secret.v1 default/two", "11") },
        ];
        let resource = ApiResource {
            group: "tekton.dev".into(),
            version: "v1".into(),
            api_version: "tekton.dev/v1".into(),
            kind: "Run".into(),
            plural: "runs".into(),
        };
        let kind = Kind { resource, namespaced: true, deletable: true };
        Listing { objects, kinds: [(("tekton.dev".to_owned(), "Run".to_owned()), kind)].into(), ..Listing::default() }
    }

    fn names(selection: &Selection, inventories: &[Inventory]) -> Vec<String> {
        let listing = cluster();
        let chosen = selection.choose(inventories, "pipeline", at("2026-01-02T01:00:00Z")).unwrap();
        chosen.of(listing.objects.iter().collect(), &listing).iter().map(|object| object.uid.clone()).collect()
    }

    fn inventory(run: &str, objects: &[&str]) -> Inventory {
        Inventory {
            schema_version: "1.0".into(),
            component: "pipeline".into(),
            version: "v1".into(),
            release: String::new(),
            run: run.into(),
            platform: kit::Platform::host(),
            installed: at("2026-01-01T00:00:00Z"),
            objects: objects.iter().map(|id| object(id, "").key).collect(),
        }
    }

    #[test]
    fn a_label_takes_everything_in_its_namespaces_and_an_age_only_the_old() {
        let labelled = Selection { labels: vec!["tekton.dev/test-e2e=true".parse().unwrap()], ..Selection::default() };
        assert_eq!(names(&labelled, &[]), ["1", "2", "3", "4"]);
        let old = Selection { older_than: Some("2h".parse().unwrap()), ..labelled.clone() };
        assert_eq!(names(&old, &[]), ["1", "3"]);
        let other = Selection { labels: vec!["tekton.dev/test-e2e=false".parse().unwrap()], ..Selection::default() };
        assert!(names(&other, &[]).is_empty());
        assert!(!Selection::default().is_any() && old.is_any());
    }

    #[test]
    fn an_installation_takes_what_its_objects_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("release.yaml");
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\n\
                    apiVersion: apiextensions.k8s.io/v1beta1\nkind: CustomResourceDefinition\nmetadata: {name: runs.tekton.dev}\n";
        std::fs::write(&path, text).unwrap();
        let release = Selection { release: Some(path.clone()), ..Selection::default() };
        // Not the Secret, which somebody else owns as well.
        assert_eq!(names(&release, &[]), ["6", "7", "8", "9", "10"]);
        assert!(release.choose(&[], "x", at("2026-01-01T00:00:00Z")).unwrap().installation);

        let inventories =
            [inventory("r1", &["ConfigMap.v1 default/c"]), inventory("r2", &["Deployment.apps/v1 default/d"])];
        let run = Selection { of_run: Some("r1".into()), ..Selection::default() };
        assert_eq!(names(&run, &inventories), ["5"]);
        let all = Selection { inventory: true, ..Selection::default() };
        assert_eq!(names(&all, &inventories), ["5", "8", "9", "10", "11"]);
        // Both have to hold.
        let both = Selection { release: Some(path), ..all.clone() };
        assert_eq!(names(&both, &inventories), ["8", "9", "10"]);
        let error = all.choose(&[], "other", at("2026-01-01T00:00:00Z")).unwrap_err();
        assert!(error.to_string().contains("no inventory of 'other'"), "{error}");
    }

    #[test]
    fn what_is_protected_is_never_selected_nor_what_is_in_it() {
        let mut listing = cluster();
        listing.objects = vec![object("Namespace.v1 kube-system", "1"), object("Pod.v1 kube-system/dns", "2")];
        let named = [id(&listing.objects[0].key)].into();
        let chosen = Chosen { named: vec![named], ..Chosen::default() };
        assert!(chosen.of(listing.objects.iter().collect(), &listing).is_empty());
    }

    #[test]
    fn without_a_baseline_an_age_is_not_enough_and_a_label_takes_nothing_of_the_cluster() {
        let labels: Vec<Label> = vec!["app=dns".parse().unwrap()];
        let choose = |selection: Selection| {
            let chosen = selection.choose(&[], "x", at("2026-01-02T00:00:00Z")).unwrap();
            chosen.without_baseline()
        };
        let old = Selection { older_than: Some(Age(Duration::ZERO)), ..Selection::default() };
        let error = choose(old.clone()).unwrap_err();
        assert_eq!(error.cause, Cause::Usage);
        assert!(error.to_string().contains("--older-than alone"), "{error}");

        let mut listing = cluster();
        let labelled = |id: &str, uid: &str| {
            let created = Some(at("2026-01-01T00:00:00Z"));
            Object { labels: vec![("app".to_owned(), "dns".to_owned())], created, ..object(id, uid) }
        };
        listing.objects =
            vec![labelled("Deployment.apps/v1 kube-system/dns", "1"), labelled("Deployment.apps/v1 default/mine", "2")];
        let all: Vec<&Object> = listing.objects.iter().collect();
        let uids = |chosen: &Chosen| -> Vec<String> {
            chosen.of(all.clone(), &listing).iter().map(|object| object.uid.clone()).collect()
        };
        let both = Selection { labels: labels.clone(), ..old };
        assert_eq!(uids(&choose(both.clone()).unwrap()), ["2"]);
        // With a baseline both were added, and whatever is named is meant.
        assert_eq!(uids(&both.choose(&[], "x", at("2026-01-02T00:00:00Z")).unwrap()), ["1", "2"]);
        let named = [id(&listing.objects[0].key)].into();
        let named = Chosen { named: vec![named], ..Chosen::default() }.without_baseline().unwrap();
        assert_eq!(uids(&named), ["1"]);
    }

    #[test]
    fn only_what_may_be_among_the_selected_can_hide() {
        let listing = |name: &str| Chosen { named: vec![[id(&object(name, "").key)].into()], ..Chosen::default() };
        assert!(listing("Run.tekton.dev/v1 a/b").may_hide("*.tekton.dev"));
        assert!(listing("Run.tekton.dev/v1 a/b").may_hide("Run.tekton.dev"));
        assert!(!listing("Run.tekton.dev/v1 a/b").may_hide("*.dead.example.com"));
        assert!(Chosen::default().may_hide("*.dead.example.com"));
    }

    #[test]
    fn ages_and_labels_are_checked() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("2h", 7200), ("3d", 259_200)] {
            let age: Age = text.parse().unwrap();
            assert_eq!(age.0.as_secs(), seconds);
            assert_eq!(age.to_string().parse::<Age>().unwrap(), age);
        }
        for wrong in ["", "2", "h", "-1h", "2 h", "1w", "99999999999999999999s", "9999999999d", "ü"] {
            assert!(wrong.parse::<Age>().is_err(), "{wrong}");
        }
        for wrong in ["", "=x", "a b", "a=b,c=d", "a!=b"] {
            assert!(wrong.parse::<Label>().is_err(), "{wrong}");
        }
        let selection = Selection {
            labels: vec!["a=b".parse().unwrap(), "c".parse().unwrap()],
            older_than: Some(Age(Duration::from_secs(7200))),
            inventory: true,
            ..Selection::default()
        };
        assert_eq!(selection.arguments().join(" "), "--label a=b --label c --older-than 2h --inventory");
    }
}
