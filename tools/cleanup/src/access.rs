//! Whether we may do what has to be done, asked before anything is done.

use std::collections::BTreeSet;

use cluster::NAMESPACE;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kit::{Cause, Error, Result};
use kube::{
    Api, Client,
    api::{ApiResource, PostParams},
};

use crate::{
    api::{CONCURRENT, patiently},
    blockers::Servers,
    list::{Kind, Listing, Object, name_of},
    order::is,
    scene::Now,
};

/// Everything that a cleanup asks for, as far as one look tells: what goes, what is put back, what may be in the way, and
/// our own state, which goes last.
#[must_use]
pub(crate) fn needs(listing: &Listing, now: &Now<'_>, forces: impl Fn(&ApiResource) -> bool) -> BTreeSet<Need> {
    let mut needs = BTreeSet::new();
    for kind in now.added.iter().filter_map(|object| listing.kind_of(&object.key)) {
        needs.insert(Need::new("delete", kind));
        needs.insert(Need::new("watch", kind));
        if forces(&kind.resource) {
            needs.insert(Need::new("patch", kind));
        }
    }
    // A definition whose server is gone loses its conversions.
    let servers = Servers::new(listing);
    let definition = |object: &&&Object| is(&object.key, "apiextensions.k8s.io", "CustomResourceDefinition");
    let blocking = now.added.iter().filter(definition).filter(|object| servers.blocker(object).is_some());
    needs.extend(blocking.filter_map(|object| listing.kind_of(&object.key)).map(|kind| Need::new("patch", kind)));
    for (verb, keys) in [("patch", &now.difference.changed), ("create", &now.difference.missing)] {
        for kind in keys.iter().filter_map(|key| listing.kind_of(key)) {
            needs.insert(Need::new("get", kind));
            needs.insert(Need::new(verb, kind));
        }
    }
    let own = |verb, group: &str, plural: &str| Need {
        verb,
        group: group.into(),
        plural: plural.into(),
        namespace: Some(NAMESPACE),
        shown: format!("{plural} in {NAMESPACE}"),
    };
    let state = ["secrets", "configmaps", "namespaces"].map(|plural| own("delete", "", plural));
    needs.extend(state.into_iter().chain([own("update", "coordination.k8s.io", "leases")]));
    needs
}

/// A verb on a kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Need {
    verb: &'static str,
    group: String,
    plural: String,
    /// Where; everywhere without it.
    namespace: Option<&'static str>,
    shown: String,
}

impl Need {
    /// This verb on that kind, in every namespace.
    #[must_use]
    pub(crate) fn new(verb: &'static str, kind: &Kind) -> Self {
        let resource = &kind.resource;
        let (group, plural) = (resource.group.clone(), resource.plural.clone());
        Self { verb, group, plural, namespace: None, shown: name_of(resource) }
    }
}

/// Makes sure that all of it is allowed.
///
/// # Errors
/// [`Cause::Auth`] naming every verb and kind that is not; otherwise as [`cluster::cause_of`] says.
pub(crate) async fn check(client: &Client, needs: BTreeSet<Need>) -> Result<()> {
    let asked = stream::iter(needs).map(|need| async move {
        let allowed = ask(client, need.verb, &need.group, &need.plural, need.namespace).await?;
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
    ask(client, verb, group, plural, None).await
}

async fn ask(client: &Client, verb: &str, group: &str, plural: &str, namespace: Option<&str>) -> Result<bool> {
    let attributes = ResourceAttributes {
        namespace: namespace.map(String::from),
        // A namespace is in itself, for the API server.
        name: namespace.filter(|_| plural == "namespaces").map(String::from),
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
