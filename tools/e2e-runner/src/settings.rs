//! The component's own settings while tests run: values of its ConfigMaps, set for a round of tests and put
//! back exactly afterwards.
//!
//! What they were before stands in an annotation of each ConfigMap, written before the first change: when we
//! are killed, the next run on the cluster finds it there and puts them back. (So does cleanup, for which they
//! are part of what differs from the baseline, or of what goes with the component.)

use std::{collections::BTreeMap, time::Duration};

use cluster::KubeContext;
use k8s_openapi::api::core::v1::ConfigMap;
use kit::{Cause, Context, Error, Result, ci, record::Setting};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// Holds the whole `data` from before.
const BEFORE: &str = "other-arch/before-tests";
/// How the API server knows our changes.
const MANAGER: &str = "other-arch-tests";
/// All annotations of an object together may be 256 KiB (apimachinery, `TotalAnnotationSizeLimitB`).
const LIMIT: usize = 200 << 10;
/// No component has as many.
const MAPS: u32 = 500;
/// How long it is tried when others write at the same time, or when the API server is away.
const PATIENCE: Duration = Duration::from_secs(30);

type Data = BTreeMap<String, String>;

/// The ConfigMaps of a component's namespace.
pub struct Settings {
    api: Api<ConfigMap>,
    namespace: String,
}

impl Settings {
    /// Those of `namespace`.
    #[must_use]
    pub fn of(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.into() }
    }

    /// Keeps in the ConfigMaps themselves what they are now.
    ///
    /// # Errors
    /// [`Cause::Usage`] naming the ConfigMap that the component does not have, or as `cluster::cause_of` says.
    pub async fn remember(&self, names: impl IntoIterator<Item = &String>) -> Result<()> {
        for name in names {
            self.change(name, |_, now| (now.clone(), true)).await?;
        }
        Ok(())
    }

    /// Sets every remembered ConfigMap to what it was, with the values of `wanted` over it. What a test has left
    /// there in an earlier round is gone with that.
    ///
    /// # Errors
    /// As `cluster::cause_of` says.
    pub async fn set(&self, wanted: &ci::Settings) -> Result<Vec<Setting>> {
        let mut set = Vec::new();
        for name in self.remembered().await? {
            let values = wanted.get(&name).cloned().unwrap_or_default();
            let before = self.change(&name, |before, _| (with(before, &values), true)).await?;
            set.extend(values.into_iter().map(|(key, value)| Setting {
                config_map: format!("{}/{name}", self.namespace),
                before: before.get(&key).cloned(),
                key,
                value,
            }));
        }
        Ok(set)
    }

    /// Puts back what was there before, and forgets it; returns the ConfigMaps.
    ///
    /// # Errors
    /// As `cluster::cause_of` says, or that it took too long.
    pub async fn put_back(&self) -> Result<Vec<String>> {
        let names = self.remembered().await?;
        for name in &names {
            self.change(name, |before, _| (before.clone(), false)).await?;
        }
        Ok(names)
    }

    /// The ConfigMaps that hold what they were before.
    async fn remembered(&self) -> Result<Vec<String>> {
        let what = || format!("cannot list the ConfigMaps of {}", self.namespace);
        let list = patiently(|| async { self.api.list(&ListParams::default().limit(MAPS)).await.kube(what) }).await?;
        let held = list.iter().filter(|map| map.annotations().contains_key(BEFORE));
        Ok(held.map(ResourceExt::name_any).collect())
    }

    /// Reads a ConfigMap and writes what `wanted` makes of what it was before and of what it is now, and says
    /// whether the former is still to be kept. Returns what it was before.
    async fn change(&self, name: &str, wanted: impl Fn(&Data, &Data) -> (Data, bool)) -> Result<Data> {
        let shown = format!("ConfigMap {}/{name}", self.namespace);
        patiently(|| async {
            let map = self.api.get_opt(name).await.kube(|| format!("cannot read {shown}"))?;
            let map = map.ok_or_else(|| {
                Error::new(Cause::Usage, format!("{shown} does not exist, and a suite sets values in it"))
                    .next("see 'settings' in ci/components.toml")
            })?;
            let now = map.data.clone().unwrap_or_default();
            let before = match map.annotations().get(BEFORE) {
                Some(text) => serde_json::from_str(text)
                    .cause(Cause::Usage, || format!("{shown}: the annotation {BEFORE} cannot be read"))?,
                None => now.clone(),
            };
            let (then, keep) = wanted(&before, &now);
            let mut patch = patch(&now, &then, keep.then_some(&before), &shown)?;
            patch["metadata"]["resourceVersion"] = json!(map.resource_version());
            let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
            match self.api.patch(name, &params, &Patch::Merge(&patch)).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    Err(Error::new(Cause::Apiserver, format!("{shown}: others write it all the time")))
                }
                written => written.kube(|| format!("cannot set {shown}")).map(|_| before),
            }
        })
        .await
    }
}

/// Tries again while somebody else writes, or the API server or a webhook is away.
pub(crate) async fn patiently<T, F: Future<Output = Result<T>>>(mut attempt: impl FnMut() -> F) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    let mut delays = kit::retry::delays();
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let passes = matches!(error.cause, Cause::Apiserver | Cause::ClusterUnreachable | Cause::Webhook);
        let delay = delays.next().unwrap_or(PATIENCE);
        if !passes || Instant::now() + delay > deadline {
            return Err(error);
        }
        tokio::time::sleep(delay).await;
    }
}

fn with(before: &Data, values: &Data) -> Data {
    before.iter().chain(values).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The merge patch from `now` to `then`, with what is to be kept in the annotation.
fn patch(now: &Data, then: &Data, before: Option<&Data>, shown: &str) -> Result<Value> {
    let gone = now.keys().filter(|key| !then.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let set = then.iter().map(|(key, value)| (key.clone(), json!(value)));
    let data: Map<String, Value> = gone.chain(set).collect();
    let kept = before.map(serde_json::to_string).transpose();
    let kept = kept.cause(Cause::Internal, || format!("cannot keep what {shown} was"))?;
    if kept.as_ref().is_some_and(|kept| kept.len() > LIMIT) {
        return Err(Error::new(Cause::Usage, format!("{shown} is too large to be kept while tests change it")));
    }
    Ok(json!({ "metadata": { "annotations": { BEFORE: kept } }, "data": data }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(pairs: &[(&str, &str)]) -> Data {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_patch_sets_what_is_wanted_and_takes_away_what_was_added() {
        let before = data(&[("a", "1"), ("b", "2")]);
        let set = with(&before, &data(&[("b", "3"), ("c", "4")]));
        assert_eq!(set, data(&[("a", "1"), ("b", "3"), ("c", "4")]));
        let forth = patch(&before, &set, Some(&before), "x").unwrap();
        assert_eq!(forth["data"], json!({"a": "1", "b": "3", "c": "4"}));
        assert_eq!(forth["metadata"]["annotations"][BEFORE], r#"{"a":"1","b":"2"}"#);
        let back = patch(&set, &before, None, "x").unwrap();
        assert_eq!(back["data"], json!({"a": "1", "b": "2", "c": null}));
        assert_eq!(back["metadata"]["annotations"][BEFORE], Value::Null);
    }

    #[test]
    fn what_cannot_be_kept_is_not_changed() {
        let large = data(&[("a", &"x".repeat(LIMIT))]);
        assert_eq!(patch(&large, &large, Some(&large), "x").unwrap_err().cause, Cause::Usage);
    }
}
