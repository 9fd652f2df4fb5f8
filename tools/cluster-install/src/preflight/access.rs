//! Whether we may do what an installation needs: the API server itself is asked (a SelfSubjectAccessReview
//! changes nothing), for every kind of the release.

use std::collections::BTreeSet;

use cluster::{KubeContext, NAMESPACE};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kit::{Cause, Error, Result};
use kube::{Api, Client, api::PostParams};

use super::row::Row;
use crate::apply::{PARALLEL, Placed};

/// A thing that has to be allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Need {
    group: String,
    resource: String,
    namespace: String,
    verb: &'static str,
}

impl Need {
    fn new(group: &str, resource: &str, namespace: &str, verb: &'static str) -> Self {
        Self { group: group.into(), resource: resource.into(), namespace: namespace.into(), verb }
    }

    fn words(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let place = if self.namespace.is_empty() { String::new() } else { format!(" in {}", self.namespace) };
        format!("{} {}{group}{place}", self.verb, self.resource)
    }
}

/// What an installation of these objects does, and what our own state needs.
fn needs(placed: &[Placed]) -> BTreeSet<Need> {
    let mut needs = BTreeSet::from([
        Need::new("", "nodes", "", "list"),
        Need::new("", "namespaces", "", "create"),
        Need::new("", "namespaces", "", "list"),
        Need::new("", "pods", NAMESPACE, "create"),
        Need::new("", "pods", NAMESPACE, "delete"),
    ]);
    for verb in ["list", "create", "patch"] {
        needs.insert(Need::new("", "configmaps", NAMESPACE, verb));
    }
    for verb in ["get", "create", "update"] {
        needs.insert(Need::new("coordination.k8s.io", "leases", NAMESPACE, verb));
    }
    for item in placed {
        let (resource, namespace) = (&item.kind.resource, &item.object.key.namespace);
        for verb in ["list", "watch", "create", "patch", "delete"] {
            needs.insert(Need::new(&resource.group, &resource.plural, namespace, verb));
        }
        if crate::pods::has_pods(&item.object) {
            for resource in ["pods", "events"] {
                needs.extend(["list", "watch"].map(|verb| Need::new("", resource, namespace, verb)));
            }
            needs.insert(Need::new("", "pods/log", namespace, "get"));
        }
        // Whether webhooks have somebody who answers.
        for (namespace, _) in crate::webhooks::services(&item.object.value) {
            let need = |verb| Need::new("discovery.k8s.io", "endpointslices", &namespace, verb);
            needs.extend(["list", "watch"].map(need));
        }
    }
    needs
}

/// Asks whether all of that is allowed.
pub(crate) async fn row(client: &Client, placed: &[Placed]) -> Row {
    match ask(client, placed).await {
        Ok((count, wrong)) if wrong.is_empty() => Row::fit("access", format!("all of {count} things are allowed")),
        Ok((count, wrong)) => {
            let shown: Vec<_> = wrong.iter().take(8).map(Need::words).collect();
            let more = if wrong.len() > 8 { format!(", and {} more", wrong.len() - 8) } else { String::new() };
            let line = format!("{} of {count} things are forbidden: {}{more}", wrong.len(), shown.join(", "));
            Row::unfit("access", Cause::Auth, line).next("let the cluster's owner grant them to this user")
        }
        Err(error) => Row::error("access", &error),
    }
}

async fn ask(client: &Client, placed: &[Placed]) -> Result<(usize, Vec<Need>)> {
    let needs = needs(placed);
    // Who may do everything need not be asked for each.
    if allowed(client, &Need::new("*", "*", "", "*")).await? {
        return Ok((needs.len(), Vec::new()));
    }
    let count = needs.len();
    let asked = needs.into_iter().map(|need| async move {
        let allowed = allowed(client, &need).await?;
        Ok::<_, Error>((!allowed).then_some(need))
    });
    let answers: Vec<_> = stream::iter(asked).buffered(PARALLEL).try_collect().await?;
    Ok((count, answers.into_iter().flatten().collect()))
}

async fn allowed(client: &Client, need: &Need) -> Result<bool> {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let (resource, subresource) = need.resource.split_once('/').unwrap_or((&need.resource, ""));
    let attributes = ResourceAttributes {
        group: Some(need.group.clone()),
        resource: some(resource),
        subresource: some(subresource),
        namespace: some(&need.namespace),
        verb: some(need.verb),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await;
    let answer = answer.kube(|| format!("cannot ask whether we may {}", need.words()))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::Kind;
    use kube::api::{ApiResource, GroupVersionKind};

    #[test]
    fn each_kind_of_the_release_is_asked_for_once() {
        let text = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: n}}\n---\n\
                    {apiVersion: apps/v1, kind: Deployment, metadata: {name: b, namespace: n},
                     webhooks: [{clientConfig: {service: {namespace: hooks, name: w}}}]}";
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
        let kind = Kind { resource, namespaced: true };
        let objects = cluster::objects::parse(text, "r").unwrap();
        let placed: Vec<_> = objects.into_iter().map(|object| Placed { object, kind: kind.clone() }).collect();
        let words: Vec<_> = needs(&placed).iter().map(Need::words).collect();
        assert!(words.contains(&"patch deployments.apps in n".to_owned()), "{words:?}");
        assert!(words.contains(&"get pods/log in n".to_owned()), "{words:?}");
        for verb in ["get", "create", "update"] {
            assert!(words.contains(&format!("{verb} leases.coordination.k8s.io in other-arch")), "{words:?}");
        }
        assert!(words.contains(&"list configmaps in other-arch".to_owned()), "{words:?}");
        assert!(words.contains(&"watch endpointslices.discovery.k8s.io in hooks".to_owned()), "{words:?}");
        assert_eq!(words.iter().filter(|words| words.contains("deployments.apps")).count(), 5);
    }
}
