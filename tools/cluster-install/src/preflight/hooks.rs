//! Webhooks and extension APIs that point to nothing: each of them makes an installation hang or fail for a
//! reason that is not its own.

use cluster::KubeContext;
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    discovery::v1::EndpointSlice,
};
use kit::{Cause, Result};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::row::Row;
use crate::webhooks::{has_endpoint, services};

/// Looks at every configuration of the cluster.
pub(crate) async fn row(client: &Client) -> Row {
    match look(client).await {
        Ok((count, wrong, lax)) if wrong.is_empty() && !lax.is_empty() => Row::note(
            "webhooks",
            format!("{count} point to something; failures of these are ignored: {}", lax.join("; ")),
        ),
        Ok((count, wrong, _)) => {
            Row::of("webhooks", Cause::Webhook, &wrong, format!("all of {count} point to something"))
                .next_if_unfit("remove what is left of it, or repair what it belongs to")
        }
        Err(error) => Row::error("webhooks", &error),
    }
}

async fn look(client: &Client) -> Result<(usize, Vec<String>, Vec<String>)> {
    let slices = Api::<EndpointSlice>::all(client.clone());
    let apis = ApiResource::from_gvk(&GroupVersionKind::gvk("apiregistration.k8s.io", "v1", "APIService"));
    let apis = Api::<DynamicObject>::all_with(client.clone(), &apis);
    let all = ListParams::default();
    let (mutating, validating, slices, apis) = tokio::join!(
        list::<MutatingWebhookConfiguration>(client, "mutating webhooks"),
        list::<ValidatingWebhookConfiguration>(client, "validating webhooks"),
        slices.list(&all),
        apis.list(&all),
    );
    let slices = slices.kube(|| "cannot list the endpoints")?.items;
    let apis = apis.kube(|| "cannot list the extension APIs")?;
    let (mut count, mut wrong, mut lax) = (0, Vec::new(), Vec::new());
    for (config, value) in mutating?.into_iter().chain(validating?) {
        for hook in value["webhooks"].as_array().into_iter().flatten() {
            count += 1;
            let Some(line) = dangling(&config, hook, &slices) else { continue };
            // (admissionregistration.k8s.io/v1: Fail is the default.)
            if hook["failurePolicy"] == "Ignore" { lax.push(line) } else { wrong.push(line) }
        }
    }
    for api in apis {
        let value = serde_json::to_value(&api).unwrap_or_default();
        if value["spec"]["service"].is_null() {
            continue;
        }
        count += 1;
        if let Some(trouble) = crate::ready::missing("APIService", &value) {
            wrong.push(format!("extension API {}: {}", api.name_any(), trouble.line));
        }
    }
    Ok((count, wrong, lax))
}

async fn list<K>(client: &Client, what: &str) -> Result<Vec<(String, Value)>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let list =
        Api::<K>::all(client.clone()).list(&ListParams::default()).await.kube(|| format!("cannot list the {what}"))?;
    Ok(list.iter().map(|config| (config.name_any(), serde_json::to_value(config).unwrap_or_default())).collect())
}

/// Why nobody answers a webhook; nothing of one that is reached by an address.
fn dangling(config: &str, hook: &Value, slices: &[EndpointSlice]) -> Option<String> {
    let one = serde_json::json!({ "webhooks": [hook] });
    let (namespace, service) = services(&one).into_iter().next()?;
    let reached = slices.iter().any(|slice| has_endpoint(slice, &namespace, &service));
    let name = hook["name"].as_str().unwrap_or_default();
    (!reached).then(|| format!("{name} of {config}: its service {namespace}/{service} has no ready endpoint"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_webhook_needs_an_endpoint_or_an_address() {
        let slice = |ready: bool| -> EndpointSlice {
            serde_json::from_value(
                json!({"metadata": {"name": "x", "namespace": "n", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]}),
            )
            .unwrap()
        };
        let hook = json!({"name": "w.x", "clientConfig": {"service": {"namespace": "n", "name": "web"}}});
        assert_eq!(dangling("c", &hook, &[slice(true)]), None);
        let line = "w.x of c: its service n/web has no ready endpoint";
        assert_eq!(dangling("c", &hook, &[slice(false)]).unwrap(), line);
        assert_eq!(dangling("c", &hook, &[]).unwrap(), line);
        assert_eq!(dangling("c", &json!({"name": "w", "clientConfig": {"url": "https://x"}}), &[]), None);
    }
}
