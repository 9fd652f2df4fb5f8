//! Whether webhooks answer: their services have endpoints, and an object that they want to see is
//! created for a try (a dry run, which changes nothing) without the API server failing to reach them.

use std::time::Duration;

use cluster::{Kind, Kinds, describe, explain::Trouble};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kit::Cause;
use kube::{
    Client, ResourceExt,
    api::{DynamicObject, PostParams},
};
use serde_json::{Value, json};

/// A webhook takes at most 30 s (admissionregistration.k8s.io/v1, timeoutSeconds); a little more for the way.
const LIMIT: Duration = Duration::from_secs(35);
/// The name of the object that is tried.
const NAME: &str = "other-arch-probe";

/// One webhook and an object that it wants to see.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Probe {
    /// The webhook's name.
    pub(crate) webhook: String,
    kind: Kind,
    namespace: String,
    object: Value,
}

/// A namespace with its labels: webhooks select by them.
pub(crate) type Namespaces = Vec<(String, Value)>;

/// Services that the API server calls for an object: of webhook configurations and of definitions
/// that convert.
pub(crate) fn services(object: &Value) -> Vec<(String, String)> {
    let hooks = object["webhooks"].as_array().into_iter().flatten().map(|hook| &hook["clientConfig"]["service"]);
    let conversion = &object["spec"]["conversion"]["webhook"]["clientConfig"]["service"];
    let extension = &object["spec"]["service"];
    let named =
        |service: &Value| Some((service["namespace"].as_str()?.to_owned(), service["name"].as_str()?.to_owned()));
    hooks.chain([conversion, extension]).filter_map(named).collect()
}

/// Whether a slice has an endpoint of that service that takes requests.
pub(crate) fn has_endpoint(slice: &EndpointSlice, namespace: &str, service: &str) -> bool {
    slice.namespace().as_deref() == Some(namespace)
        && slice.labels().get("kubernetes.io/service-name").map(String::as_str) == Some(service)
        && slice
            .endpoints
            .iter()
            .flatten()
            .any(|endpoint| endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready != Some(false)))
}

/// The probes for a webhook configuration as it is in the cluster, or what it lacks to be probed.
pub(crate) fn probes(config: &Value, kinds: &Kinds, namespaces: &Namespaces) -> Result<Vec<Probe>, Trouble> {
    let mut probes = Vec::new();
    for hook in config["webhooks"].as_array().into_iter().flatten() {
        let name = hook["name"].as_str().unwrap_or_default();
        let rules = hook["rules"].as_array().map_or(&[][..], Vec::as_slice);
        if rules.is_empty() {
            let line = format!("webhook {name} has no rules yet: its controller has not filled them in");
            return Err(Trouble::new(Cause::Webhook, line));
        }
        if let Some(probe) = rules.iter().find_map(|rule| probe(name, hook, rule, kinds, namespaces)) {
            probes.push(probe);
        }
    }
    Ok(probes)
}

fn probe(name: &str, hook: &Value, rule: &Value, kinds: &Kinds, namespaces: &Namespaces) -> Option<Probe> {
    let list = |field: &str| rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
    let any = |field: &str, value: &str| list(field).iter().any(|found| *found == value || *found == "*");
    if !any("operations", "CREATE") {
        return None;
    }
    let wanted = |kind: &&Kind| {
        let resource = &kind.resource;
        // `configmaps/*` is also configmaps themselves (k8s.io/apiserver, predicates/rules).
        let named = list("resources").into_iter().map(|name| name.strip_suffix("/*").unwrap_or(name));
        let named = named.into_iter().any(|name| name == "*" || name == resource.plural);
        any("apiGroups", &resource.group) && any("apiVersions", &resource.version) && named
    };
    // Of everything, something harmless.
    let kind = kinds.get("v1", "ConfigMap").filter(wanted).or_else(|| kinds.iter().find(wanted))?;
    let namespace = match kind.namespaced {
        true => namespaces.iter().find(|(_, labels)| selects(&hook["namespaceSelector"], labels))?.0.clone(),
        false => String::new(),
    };
    let labels = labels_for(&hook["objectSelector"])?;
    let mut object = json!({
        "apiVersion": kind.resource.api_version, "kind": kind.resource.kind,
        "metadata": {"name": NAME, "labels": labels},
    });
    if kind.namespaced {
        object["metadata"]["namespace"] = namespace.clone().into();
    }
    Some(Probe { webhook: name.to_owned(), kind: kind.clone(), namespace, object })
}

/// Whether a label selector (meta/v1 LabelSelector) selects these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = |(key, value): (&String, &Value)| labels[key] == *value;
    let matches = selector["matchLabels"].as_object().is_none_or(|wanted| wanted.iter().all(equal));
    matches
        && selector["matchExpressions"].as_array().into_iter().flatten().all(|expression| {
            let found = expression["key"].as_str().map_or(&Value::Null, |key| &labels[key]);
            let among = expression["values"].as_array().is_some_and(|values| values.contains(found));
            match expression["operator"].as_str() {
                Some("In") => among,
                Some("NotIn") => !among,
                Some("Exists") => !found.is_null(),
                Some("DoesNotExist") => found.is_null(),
                _ => false,
            }
        })
}

/// Labels that a selector selects.
fn labels_for(selector: &Value) -> Option<Value> {
    let mut labels = selector["matchLabels"].as_object().cloned().unwrap_or_default();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str()?;
        match expression["operator"].as_str()? {
            "In" => drop(labels.insert(key.into(), expression["values"].as_array()?.first()?.clone())),
            "Exists" => drop(labels.entry(key).or_insert_with(|| "x".into())),
            _ => {}
        }
    }
    let labels = Value::Object(labels);
    selects(selector, &labels).then_some(labels)
}

/// What a trial shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The webhook was asked, and answered, whatever it said.
    Answered,
    /// The API server refused the object for another reason: it may not have come as far as the webhook.
    Untried(String),
    /// It did not answer.
    Missing(Trouble),
}

/// Tries it.
pub(crate) async fn ask(client: &Client, probe: &Probe) -> Answer {
    let object: DynamicObject = match serde_json::from_value(probe.object.clone()) {
        Ok(object) => object,
        Err(error) => return Answer::Untried(format!("cannot make a probe: {error}")),
    };
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let api = probe.kind.api(client, &probe.namespace);
    match tokio::time::timeout(LIMIT, api.create(&params, &object)).await {
        Ok(Ok(_)) => Answer::Answered,
        Ok(Err(error)) => judge(&probe.webhook, &error),
        Err(_) => Answer::Missing(Trouble::new(
            Cause::Webhook,
            format!("webhook {} gave no answer within {} s", probe.webhook, LIMIT.as_secs()),
        )),
    }
}

/// What an error of the trial says of the webhook: only a refusal in its own name shows that it answers
/// (k8s.io/apiserver, plugin/webhook/errors/statuserror.go).
fn judge(webhook: &str, error: &kube::Error) -> Answer {
    let said = describe(error);
    if said.contains(&format!("admission webhook \"{webhook}\" denied")) {
        return Answer::Answered;
    }
    let missing = matches!(error, kube::Error::Api(status) if status.code == 404);
    match cluster::cause_of(error) {
        Cause::Webhook => Answer::Missing(Trouble::new(Cause::Webhook, format!("webhook {webhook}: {said}"))),
        cause @ (Cause::ClusterUnreachable | Cause::Apiserver | Cause::Dns | Cause::NotAtBaseline) => {
            Answer::Missing(Trouble::new(cause, said))
        }
        // A kind that was just defined, or a namespace that is just going.
        _ if missing => Answer::Missing(Trouble::new(Cause::Apiserver, said)),
        _ => Answer::Untried(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn kinds() -> Kinds {
        let text = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: x},
            spec: {group: greeter.dev, scope: Namespaced, names: {kind: Greeting, plural: greetings}, versions: [{name: v1}]}}";
        let mut kinds = Kinds::default();
        kinds.learn(&cluster::objects::parse(text, "r").unwrap());
        kinds
    }

    fn config(rules: Value, namespaces: Value, objects: Value) -> Value {
        json!({"webhooks": [{"name": "w.greeter.dev", "rules": rules, "namespaceSelector": namespaces, "objectSelector": objects,
            "clientConfig": {"service": {"namespace": "g", "name": "webhook"}}}]})
    }

    fn rules() -> Value {
        json!([{"apiGroups": ["greeter.dev"], "apiVersions": ["*"], "operations": ["UPDATE", "CREATE"], "resources": ["greetings/status", "greetings/*"]}])
    }

    fn namespaces() -> Namespaces {
        vec![("default".into(), json!({})), ("g".into(), json!({"team": "greeter"}))]
    }

    #[test]
    fn an_object_is_made_that_the_webhook_wants_to_see() {
        let objects = json!({"matchExpressions": [{"key": "part", "operator": "In", "values": ["one", "two"]}, {"key": "skip", "operator": "DoesNotExist"}]});
        let config = config(rules(), json!({"matchLabels": {"team": "greeter"}}), objects);
        let found = probes(&config, &kinds(), &namespaces()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].object["metadata"],
            json!({"name": "other-arch-probe", "namespace": "g", "labels": {"part": "one"}})
        );
        assert_eq!(services(&config), [("g".to_owned(), "webhook".to_owned())]);
    }

    #[test]
    fn a_webhook_without_rules_is_not_ready() {
        let trouble = probes(&config(json!([]), json!({}), json!({})), &kinds(), &namespaces()).unwrap_err();
        assert!(trouble.line.contains("w.greeter.dev has no rules yet"), "{}", trouble.line);
    }

    #[test]
    fn nothing_is_tried_that_no_rule_wants() {
        let none = [
            config(
                json!([{"apiGroups": ["other"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["*"]}]),
                json!({}),
                json!({}),
            ),
            config(
                json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["DELETE"], "resources": ["*"]}]),
                json!({}),
                json!({}),
            ),
            config(
                rules(),
                json!({"matchExpressions": [{"key": "team", "operator": "In", "values": ["other"]}]}),
                json!({}),
            ),
        ];
        for config in none {
            assert_eq!(probes(&config, &kinds(), &namespaces()).unwrap(), []);
        }
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let api = |code, message: &str| kube::Error::Api(Box::new(Status::failure(message, "").with_code(code)));
        assert_eq!(judge("w", &api(400, "admission webhook \"w\" denied the request: no spec")), Answer::Answered);
        for (code, message) in [
            (422, "spec: Required value"),
            (403, "configmaps is forbidden: User \"u\" cannot create"),
            (400, "admission webhook \"another\" denied the request: no spec"),
        ] {
            assert_eq!(judge("w", &api(code, message)), Answer::Untried(message.into()), "who knows");
        }
        let missing = |code, message: &str| match judge("w", &api(code, message)) {
            Answer::Missing(trouble) => trouble.cause,
            other => panic!("{other:?}"),
        };
        let refused = "Internal error occurred: failed calling webhook \"w\": dial tcp: connect: connection refused";
        assert_eq!(missing(500, refused), Cause::Webhook);
        assert_eq!(missing(503, "etcd"), Cause::Apiserver);
        assert_eq!(missing(404, "the server could not find the requested resource"), Cause::Apiserver);
    }
}
