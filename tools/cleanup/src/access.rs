//! Whether we may do what has to be done, asked before anything is done.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kit::{Cause, Error, Result};
use kube::{Api, Client, api::PostParams};

use crate::{
    api::{CONCURRENT, patiently},
    list::{Kind, name_of},
};

/// A verb on a kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Need {
    verb: &'static str,
    group: String,
    plural: String,
    shown: String,
}

impl Need {
    /// This verb on that kind, in every namespace.
    #[must_use]
    pub(crate) fn new(verb: &'static str, kind: &Kind) -> Self {
        let resource = &kind.resource;
        Self { verb, group: resource.group.clone(), plural: resource.plural.clone(), shown: name_of(resource) }
    }
}

/// Makes sure that all of it is allowed.
///
/// # Errors
/// [`Cause::Auth`] naming every verb and kind that is not; otherwise as [`cluster::cause_of`] says.
pub(crate) async fn check(client: &Client, needs: BTreeSet<Need>) -> Result<()> {
    if needs.is_empty() || may(client, "*", "*", "*").await? {
        return Ok(());
    }
    let asked = stream::iter(needs).map(|need| async move {
        let allowed = may(client, need.verb, &need.group, &need.plural).await?;
        Ok::<_, Error>((!allowed).then(|| format!("{} {}", need.verb, need.shown)))
    });
    let mut missing: Vec<String> =
        asked.buffer_unordered(CONCURRENT).try_filter_map(|need| async { Ok(need) }).try_collect().await?;
    if missing.is_empty() {
        return Ok(());
    }
    missing.sort();
    Err(Error::new(Cause::Auth, format!("may not {}", missing.join(", ")))
        .next("nothing was changed; grant these verbs in all namespaces, or use credentials that have them"))
}

/// Whether we may do that in every namespace.
///
/// # Errors
/// As [`cluster::cause_of`] says.
pub(crate) async fn may(client: &Client, verb: &str, group: &str, plural: &str) -> Result<bool> {
    let attributes = ResourceAttributes {
        verb: Some(verb.into()),
        group: Some(group.into()),
        resource: Some(plural.into()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let (api, params) = (Api::<SelfSubjectAccessReview>::all(client.clone()), PostParams::default());
    let answer = patiently(|| "cannot ask what we may do".into(), || api.create(&params, &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
