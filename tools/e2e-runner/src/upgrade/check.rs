//! After the upgrade: each object that is remembered is read again, and another like it is made.

use std::time::Duration;

use cluster::{Kind, Kinds, KubeContext};
use k8s_openapi::api::core::v1::Namespace;
use kit::{
    Cause, Result,
    record::{ObjectKey, Remembered, Upgrade},
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    Seen,
    make::{MANAGER, apply, as_value, settle, why},
    salt,
    same::{self, State},
};
use crate::settings::patiently;

/// Whether the namespace of what was made is there, and not about to go.
///
/// # Errors
/// As `cluster::cause_of` says.
pub(super) async fn has_namespace(client: &Client, record: &Upgrade) -> Result<bool> {
    let (all, name) = (Api::<Namespace>::all(client.clone()), &record.namespace);
    let found =
        patiently(|| async { all.get_opt(name).await.kube(|| format!("cannot read namespace {name}")) }).await?;
    let same = |found: &Namespace| found.uid().is_some_and(|uid| uid == record.namespace_uid);
    Ok(found.is_some_and(|found| same(&found) && found.metadata.deletion_timestamp.is_none()))
}

/// Whether all that was made is there.
///
/// # Errors
/// As `cluster::cause_of` says.
pub(super) async fn is_there(client: &Client, record: &Upgrade) -> Result<bool> {
    if !has_namespace(client, record).await? {
        return Ok(false);
    }
    let kinds = patiently(|| Kinds::discover(client)).await?;
    for was in &record.objects {
        let Some(kind) = kinds.get(&was.key.api_version, &was.key.kind) else { return Ok(false) };
        let api = kind.api(client, &was.key.namespace);
        let found = api.get_metadata_opt(&was.key.name).await.kube(|| format!("cannot read {}", was.key))?;
        if found.and_then(|found| found.uid()).as_ref() != Some(&was.uid) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An object that is to come to the same end again, and the one like it.
struct Run<'r> {
    index: usize,
    was: &'r Remembered,
    kind: Kind,
    what: &'r str,
    copy: Option<String>,
}

/// Looks at each object.
///
/// # Errors
/// What kept it from looking; what is lost or changed is no error.
pub(super) async fn check(client: &Client, record: &Upgrade, limit: Duration) -> Result<Vec<Seen>> {
    let kinds = patiently(|| Kinds::discover(client)).await?;
    let (mut all, mut runs, salt) = (Vec::new(), Vec::new(), salt());
    for (index, was) in record.objects.iter().enumerate() {
        let mut seen = Seen::new(&was.key);
        match served(&kinds, &was.key) {
            Some(kind) => {
                look(client, kind, was, &mut seen).await;
                let copy = copy(client, kind, was, &salt, &mut seen).await;
                if let Some(reached) = &was.reached {
                    runs.push(Run { index, was, kind: kind.clone(), what: &reached.what, copy });
                }
            }
            None => seen
                .fail(Cause::Product, format!("no {} of {} is served any more", was.key.kind, same::group(&was.key))),
        }
        all.push(seen);
    }
    let names =
        |run: &Run<'_>| [Some(run.was.key.name.clone()), run.copy.clone()].into_iter().flatten().collect::<Vec<_>>();
    let waited = runs.iter().flat_map(|run| names(run).into_iter().map(move |name| (run.kind.clone(), name, run.what)));
    let ends = settle(client, &record.namespace, &waited.collect::<Vec<_>>(), limit).await?;
    for run in &runs {
        let seen = &mut all[run.index];
        let end = |name: &str| ends.get(&(run.was.key.kind.clone(), name.to_owned()));
        match (end(&run.was.key.name), &run.was.reached) {
            (Some((State::Reached, now)), Some(reached)) => match same::forgotten(reached, now) {
                Some(why) => seen.fail(Cause::Product, why),
                None => seen.say(format!("still says that it has reached {}", run.what)),
            },
            (now, _) => seen.fail_waiting(format!("had reached {}, and now: {}", run.what, why(now))),
        }
        if let Some(name) = &run.copy {
            match end(name) {
                Some((State::Reached, _)) => seen.say(format!("one like it, {name}, reached {}", run.what)),
                now => seen.fail_waiting(format!("one like it, {name}, did not reach {}: {}", run.what, why(now))),
            }
        }
    }
    Ok(all)
}

/// How the object is reached now: in its version, or else in the most stable one of its kind.
fn served<'k>(kinds: &'k Kinds, key: &ObjectKey) -> Option<&'k Kind> {
    let same = |kind: &&Kind| kind.resource.kind == key.kind && kind.resource.group == same::group(key);
    let rank = |kind: &&Kind| {
        let version = kind.resource.version.clone();
        (!version.contains("alpha"), !version.contains("beta"), version)
    };
    kinds.get(&key.api_version, &key.kind).or_else(|| kinds.iter().filter(same).max_by_key(rank))
}

/// Whether it is the same object, as it was, and can still be written.
async fn look(client: &Client, kind: &Kind, was: &Remembered, seen: &mut Seen) {
    let (key, api) = (&was.key, kind.api(client, &was.key.namespace));
    let read = patiently(|| async { api.get_opt(&key.name).await.kube(|| format!("cannot read {key}")) }).await;
    let now = match read {
        Ok(Some(now)) => now,
        Ok(None) => return seen.fail(Cause::Product, "it is gone"),
        Err(error) => return seen.fail(error.cause, error.summary()),
    };
    let version = &kind.resource.api_version;
    seen.say(format!("there, read as {version}"));
    if now.uid().as_ref() != Some(&was.uid) {
        let uid = now.uid().unwrap_or_default();
        seen.fail(Cause::Product, format!("it is another one: its uid was {}, and is {uid}", was.uid));
    }
    if now.metadata.deletion_timestamp.is_some() {
        seen.fail(Cause::Product, "it is being deleted");
    }
    match as_value(&now) {
        // Between versions fields have other names.
        Ok(_) if *version != key.api_version => {
            seen.say(format!("{} is not served any more, so its fields are not compared", key.api_version));
        }
        Ok(now) => match same::lost(&was.body, &same::body(&now)) {
            Some(why) => seen.fail(Cause::Product, why),
            None => seen.say("all that was set is still set"),
        },
        Err(error) => seen.fail(error.cause, error.summary()),
    }
    let params = PatchParams { dry_run: true, field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"metadata": {"labels": {"other-arch.dev/upgraded": "true"}}}));
    let tried = || async { api.patch(&key.name, &params, &patch).await.kube(|| "it cannot be changed any more") };
    match patiently(tried).await {
        Ok(_) => seen.say("a change was accepted, for a try"),
        Err(error) => seen.fail(error.cause, error.summary()),
    }
}

/// Makes one like it, of those that come to an end by themselves; returns its name.
async fn copy(client: &Client, kind: &Kind, was: &Remembered, salt: &str, seen: &mut Seen) -> Option<String> {
    let reached = was.reached.as_ref()?;
    if kind.resource.api_version != was.key.api_version {
        seen.say(format!("{} is not served any more, so none like it is made", was.key.api_version));
        return None;
    }
    let mut manifest = reached.manifest.clone();
    let name = format!("{}-{salt}", was.key.name);
    *manifest.get_mut("metadata")?.get_mut("name")? = Value::String(name.clone());
    let key = ObjectKey { name: name.clone(), ..was.key.clone() };
    match apply(client, kind, &key, &manifest).await {
        Ok(()) => Some(name),
        Err(error) => {
            seen.fail(error.cause, format!("one like it cannot be made: {}", error.summary()));
            None
        }
    }
}
