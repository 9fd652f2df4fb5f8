//! Logins and certificates for the release's pods: a Secret and a ConfigMap of our own in each of their
//! namespaces, and the fields of their pods that name them.

use std::{collections::BTreeSet, path::Path};

use cluster::{Kinds, objects::Object};
use kit::{Cause, Context, Error, Result, record::ObjectKey, rundir::read_limited};
use serde_json::{Value, json};

use crate::{apply::Placed, pods};

/// A larger file is none of these.
const LIMIT: u64 = 1 << 20;
/// The Secret with the logins.
const PULL: &str = "other-arch-pull";
/// The ConfigMap with the certificates, and where pods see it.
const CA: &str = "other-arch-ca";
const CA_FOLDER: &str = "/etc/other-arch-ca";
/// Where Go and OpenSSL look for certificates beside those of the system (crypto/x509, SSL_CERT_DIR).
const CA_VARIABLE: &str = "SSL_CERT_DIR";
/// What it is where an image says nothing: Go then looks there.
const CA_DEFAULT: &str = "/etc/ssl/certs";

/// Reads a Docker config.json. What is in it is a secret: no message quotes it.
pub(super) fn pull_secret(file: &Path) -> Result<String> {
    let bytes = read_limited(file, LIMIT)?;
    let config: Option<Value> = serde_json::from_slice(&bytes).ok();
    let logins = config.as_ref().and_then(|config| config["auths"].as_object());
    if logins.is_none_or(serde_json::Map::is_empty) {
        let what = format!("{} is no Docker config.json with logins ('auths')", file.display());
        return Err(
            Error::new(Cause::Usage, what).next("a helper of the desktop keeps them elsewhere: log in to a file")
        );
    }
    String::from_utf8(bytes).cause(Cause::Usage, || format!("{} is not UTF-8", file.display()))
}

/// Reads certificates.
pub(super) fn ca_bundle(file: &Path) -> Result<String> {
    let text = String::from_utf8(read_limited(file, LIMIT)?).ok();
    let good = |text: &String| text.contains("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE KEY");
    text.filter(good).ok_or_else(|| {
        Error::new(Cause::Usage, format!("{} has no certificates in PEM, or more than certificates", file.display()))
    })
}

pub(super) fn add_pull_secret(placed: &mut Vec<Placed>, kinds: &Kinds, config: &str) -> Result<()> {
    for item in placed.iter_mut() {
        let account = item.object.is("", "ServiceAccount").then_some(&mut item.object.value);
        let holders = match account {
            Some(account) => Some(account),
            None => pods::spec_mut(&mut item.object),
        };
        if let Some(Value::Object(holder)) = holders {
            push(holder.entry("imagePullSecrets").or_insert_with(|| json!([])), json!({ "name": PULL }));
        }
    }
    let data = json!({ "type": "kubernetes.io/dockerconfigjson", "stringData": { ".dockerconfigjson": config } });
    in_each_namespace(placed, kinds, "Secret", PULL, &data)
}

pub(super) fn add_ca_bundle(placed: &mut Vec<Placed>, kinds: &Kinds, bundle: &str) -> Result<()> {
    for item in placed.iter_mut() {
        let Some(spec) = pods::spec_mut(&mut item.object) else { continue };
        push(&mut spec["volumes"], json!({ "name": CA, "configMap": { "name": CA } }));
        for list in ["initContainers", "containers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                push(&mut container["volumeMounts"], json!({ "name": CA, "mountPath": CA_FOLDER, "readOnly": true }));
                trust(container);
            }
        }
    }
    in_each_namespace(placed, kinds, "ConfigMap", CA, &json!({ "data": { "ca.crt": bundle } }))
}

/// Adds our folder to those where a container looks for certificates.
fn trust(container: &mut Value) {
    let variables = container.get_mut("env").and_then(Value::as_array_mut);
    let known = variables.into_iter().flatten().find(|variable| variable["name"] == CA_VARIABLE);
    match known {
        Some(variable) => {
            let folders = variable["value"].as_str().unwrap_or(CA_DEFAULT);
            variable["value"] = format!("{folders}:{CA_FOLDER}").into();
        }
        None => {
            push(&mut container["env"], json!({ "name": CA_VARIABLE, "value": format!("{CA_DEFAULT}:{CA_FOLDER}") }))
        }
    }
}

fn push(list: &mut Value, item: Value) {
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

/// Adds such an object to each namespace that has pods.
fn in_each_namespace(placed: &mut Vec<Placed>, kinds: &Kinds, kind: &str, name: &str, more: &Value) -> Result<()> {
    let found = kinds.get("v1", kind).cloned();
    let found = found.ok_or_else(|| Error::new(Cause::Apiserver, format!("the cluster knows no {kind}")))?;
    let with_pods = placed.iter().filter(|item| pods::has_pods(&item.object));
    let namespaces: BTreeSet<_> = with_pods.map(|item| item.object.key.namespace.clone()).collect();
    for namespace in namespaces {
        let mut value = json!({
            "apiVersion": "v1", "kind": kind, "metadata": { "name": name, "namespace": namespace },
        });
        if let (Some(value), Some(more)) = (value.as_object_mut(), more.as_object()) {
            value.extend(more.clone());
        }
        let key = ObjectKey { api_version: "v1".into(), kind: kind.into(), namespace, name: name.into() };
        placed.push(Placed { object: Object { key, value }, kind: found.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::Kind;
    use kube::api::{ApiResource, GroupVersionKind};

    const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: n}
spec:
  template:
    spec:
      containers: [{name: a, env: [{name: SSL_CERT_DIR, value: /etc/config}]}, {name: b}]
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: web, namespace: n}}
";

    fn placed() -> Vec<Placed> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "X"));
        let kind = Kind { resource, namespaced: true };
        cluster::objects::parse(DEPLOYMENT, "r")
            .unwrap()
            .into_iter()
            .map(|object| Placed { object, kind: kind.clone() })
            .collect()
    }

    fn kinds() -> Kinds {
        let mut kinds = Kinds::default();
        for kind in ["Secret", "ConfigMap"] {
            kinds.insert(Kind {
                resource: ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind)),
                namespaced: true,
            });
        }
        kinds
    }

    #[test]
    fn pods_and_accounts_get_the_logins() {
        let mut placed = placed();
        add_pull_secret(&mut placed, &kinds(), "{\"auths\": {}}").unwrap();
        let spec = &placed[0].object.value["spec"]["template"]["spec"];
        assert_eq!(spec["imagePullSecrets"], json!([{"name": PULL}]));
        assert_eq!(placed[1].object.value["imagePullSecrets"], json!([{"name": PULL}]));
        assert_eq!(placed[2].object.key.to_string(), "Secret.v1 n/other-arch-pull");
        assert_eq!(placed.len(), 3);
    }

    #[test]
    fn containers_look_for_certificates_in_one_more_folder() {
        let mut placed = placed();
        add_ca_bundle(&mut placed, &kinds(), "PEM").unwrap();
        let spec = &placed[0].object.value["spec"]["template"]["spec"];
        let variable = |index: usize| spec["containers"][index]["env"][0]["value"].as_str().unwrap();
        assert_eq!((variable(0), variable(1)), ("/etc/config:/etc/other-arch-ca", "/etc/ssl/certs:/etc/other-arch-ca"));
        assert_eq!(spec["containers"][1]["volumeMounts"][0]["mountPath"], CA_FOLDER);
        assert_eq!(spec["volumes"][0]["configMap"]["name"], CA);
        assert_eq!(placed[2].object.value["data"]["ca.crt"], "PEM");
    }

    #[test]
    fn files_that_are_something_else_are_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        for text in ["hunter2", "{\"auths\": {}}", "{\"credsStore\": \"hunter2\"}"] {
            std::fs::write(&file, text).unwrap();
            let error = pull_secret(&file).unwrap_err();
            assert!(error.cause == Cause::Usage && !error.to_string().contains("hunter2"), "{error}");
        }
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----").unwrap();
        assert_eq!(ca_bundle(&file).unwrap_err().cause, Cause::Usage);
    }
}
