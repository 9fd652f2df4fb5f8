//! What keeps other objects from going: webhooks and APIs whose server is gone. Pure.

use std::collections::{HashMap, HashSet};

use crate::{
    list::{Listing, Object},
    order::{is, services_of},
};

/// Why an object blocks others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocker {
    /// `namespace/name` of the service that should answer.
    pub service: String,
    /// Whether the service itself is there.
    pub exists: bool,
}

impl Blocker {
    /// In words.
    #[must_use]
    pub(crate) fn why(&self) -> String {
        let Self { service, exists } = self;
        if *exists {
            format!("nothing answers behind its service {service}")
        } else {
            format!("its service {service} is gone")
        }
    }
}

/// What answers for whom, read from one listing.
pub(crate) struct Servers<'a> {
    services: HashSet<(&'a str, &'a str)>,
    ready: HashMap<(&'a str, &'a str), bool>,
}

impl<'a> Servers<'a> {
    /// From everything that a cluster holds, with what it made itself.
    #[must_use]
    pub(crate) fn new(listing: &'a Listing) -> Self {
        let mut servers = Self { services: HashSet::new(), ready: HashMap::new() };
        for object in &listing.objects {
            let key = &object.key;
            if is(key, "", "Service") {
                servers.services.insert((&key.namespace, &key.name));
            } else if is(key, "discovery.k8s.io", "EndpointSlice") {
                let service =
                    object.view["metadata"]["labels"]["kubernetes.io/service-name"].as_str().unwrap_or_default();
                *servers.ready.entry((&key.namespace, service)).or_default() |= has_ready_endpoint(object);
            }
        }
        servers
    }

    /// Whether nothing can answer for this webhook configuration, aggregated API or conversion. One of
    /// several webhooks without a server is enough.
    #[must_use]
    pub(crate) fn blocker(&self, object: &Object) -> Option<Blocker> {
        services_of(object).into_iter().find_map(|(namespace, name)| {
            let id = (namespace.as_str(), name.as_str());
            let exists = self.services.contains(&id);
            let answers = exists && self.ready.get(&id).copied().unwrap_or(false);
            (!answers).then(|| Blocker { service: format!("{namespace}/{name}"), exists })
        })
    }
}

fn has_ready_endpoint(slice: &Object) -> bool {
    let endpoints = slice.view["endpoints"].as_array();
    // Nothing said means ready (discovery/v1, EndpointConditions).
    endpoints.into_iter().flatten().any(|endpoint| endpoint["conditions"]["ready"] != false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::object;
    use serde_json::{Value, json};

    fn slice(service: &str, endpoints: Value) -> Object {
        let labels = json!({"labels": {"kubernetes.io/service-name": service}});
        Object {
            view: json!({"metadata": labels, "endpoints": endpoints}),
            ..object("EndpointSlice.discovery.k8s.io/v1 n/x", "e")
        }
    }

    fn hook(service: &str) -> Object {
        let client = json!({"service": {"namespace": "n", "name": service}});
        let id = "ValidatingWebhookConfiguration.admissionregistration.k8s.io/v1 h";
        Object { view: json!({"webhooks": [{"clientConfig": client}]}), ..object(id, "h") }
    }

    fn found(objects: Vec<Object>, hook: &Object) -> Option<String> {
        let listing = Listing { objects, ..Listing::default() };
        Servers::new(&listing).blocker(hook).map(|blocker| blocker.why())
    }

    #[test]
    fn a_webhook_needs_a_service_with_a_ready_endpoint() {
        let service = || object("Service.v1 n/s", "s");
        let ready = json!([{"conditions": {"ready": true}}]);
        assert_eq!(found(vec![], &hook("s")).unwrap(), "its service n/s is gone");
        assert_eq!(found(vec![service()], &hook("s")).unwrap(), "nothing answers behind its service n/s");
        let dead = slice("s", json!([{"conditions": {"ready": false}}]));
        assert!(found(vec![service(), dead], &hook("s")).is_some());
        assert!(found(vec![service(), slice("s", ready.clone())], &hook("s")).is_none());
        assert!(found(vec![service(), slice("other", ready)], &hook("s")).is_some());
        assert!(found(vec![service(), slice("s", json!([{}]))], &hook("s")).is_none());
    }

    #[test]
    fn a_webhook_outside_the_cluster_is_not_judged() {
        let id = "MutatingWebhookConfiguration.admissionregistration.k8s.io/v1 h";
        let outside = Object { view: json!({"webhooks": [{"clientConfig": {"url": "https://x"}}]}), ..object(id, "h") };
        assert!(found(vec![], &outside).is_none());
    }
}
