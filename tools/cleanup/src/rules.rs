//! What of a cluster is compared with its baseline: the rules of `rules.toml`, applied.

use std::sync::LazyLock;

use kit::record::ObjectKey;
use serde::Deserialize;
use serde_json::Value;

/// The rules that come with the tool.
pub(crate) static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let rules = kit::config::parse(include_str!("rules.toml"), "rules.toml");
    // The file is part of the program, and a test reads it.
    rules.expect("rules.toml is well-formed")
});

/// All rules.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Rules {
    leave_out: Vec<Selector>,
    derived: Vec<Selector>,
    ignore: Vec<Ignore>,
    protect: Vec<Selector>,
    system: Vec<Selector>,
    no_body: Vec<Selector>,
}

/// Which objects a rule is about: those that match every field that it has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Selector {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    /// A Secret's type.
    #[serde(rename = "type")]
    secret: Option<String>,
    /// A label that it has, with any value.
    label: Option<String>,
    why: String,
}

/// A part of objects that is not compared.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ignore {
    group: Option<String>,
    kind: Option<String>,
    path: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
    /// Only of objects that have this field.
    having: Option<String>,
    #[expect(dead_code, reason = "for whoever reads the file; the parser makes sure that it is there")]
    why: String,
}

impl Rules {
    /// Why an object is left out altogether, if it is.
    #[must_use]
    pub(crate) fn left_out(&self, key: &ObjectKey, object: &Value) -> Option<&str> {
        self.leave_out.iter().find(|rule| rule.matches(key, Some(object))).map(|rule| rule.why.as_str())
    }

    /// As [`Self::left_out`], for an object known by its key alone.
    #[must_use]
    pub(crate) fn left_out_by_key(&self, key: &ObjectKey) -> bool {
        self.leave_out.iter().any(|rule| rule.matches(key, None))
    }

    /// Whether every object of a kind is left out, so that none need be listed; `*` stands for all kinds of a group.
    #[must_use]
    pub(crate) fn kind_left_out(&self, group: &str, kind: &str) -> bool {
        self.leave_out.iter().any(|rule| {
            rule.of_kind(group, kind)
                && rule.namespace.is_none()
                && rule.name.is_none()
                && rule.secret.is_none()
                && rule.label.is_none()
        })
    }

    /// Whether the cluster makes objects of this kind for owners.
    #[must_use]
    pub(crate) fn derived(&self, key: &ObjectKey) -> bool {
        self.derived.iter().any(|rule| rule.matches(key, None))
    }

    /// Whether it must never be deleted.
    #[must_use]
    pub(crate) fn protected(&self, key: &ObjectKey) -> bool {
        self.protect.iter().any(|rule| rule.matches(key, None))
    }

    /// Whether it is the cluster's own unless a baseline says that it was added, or a release or inventory names it.
    #[must_use]
    pub(crate) fn system(&self, key: &ObjectKey) -> bool {
        self.system.iter().any(|rule| rule.matches(key, None))
    }

    /// Whether its body may be kept, so that it can be put back.
    #[must_use]
    pub(crate) fn keeps_body(&self, key: &ObjectKey) -> bool {
        !self.no_body.iter().any(|rule| rule.matches(key, None))
    }

    /// Takes out of an object what is not compared.
    pub(crate) fn strip(&self, key: &ObjectKey, object: &mut Value) {
        for rule in &self.ignore {
            let about = of_kind(rule.group.as_deref(), rule.kind.as_deref(), group_of(key), &key.kind);
            let has = rule.having.as_ref().is_none_or(|field| object.get(field).is_some_and(|value| !value.is_null()));
            if about && has && !rule.except.contains(&key.kind) {
                remove(object, &rule.path);
            }
        }
    }
}

impl Selector {
    /// A rule that looks at an object's content does not match one of which only the key is known.
    fn matches(&self, key: &ObjectKey, object: Option<&Value>) -> bool {
        let fits = |pattern: &Option<String>, text: &str| pattern.as_ref().is_none_or(|pattern| like(pattern, text));
        let content = self.secret.is_none() && self.label.is_none();
        self.of_kind(group_of(key), &key.kind)
            && fits(&self.namespace, &key.namespace)
            && fits(&self.name, &key.name)
            && object.map_or(content, |object| {
                let label = |label: &String| object["metadata"]["labels"].get(label).is_some();
                fits(&self.secret, object["type"].as_str().unwrap_or_default()) && self.label.as_ref().is_none_or(label)
            })
    }

    fn of_kind(&self, group: &str, kind: &str) -> bool {
        of_kind(self.group.as_deref(), self.kind.as_deref(), group, kind)
    }
}

fn of_kind(rule_group: Option<&str>, rule_kind: Option<&str>, group: &str, kind: &str) -> bool {
    rule_group.is_none_or(|wanted| wanted == group) && rule_kind.is_none_or(|wanted| wanted == kind)
}

/// The API group of an object, empty for the core group.
#[must_use]
pub(crate) fn group_of(key: &ObjectKey) -> &str {
    key.api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
#[must_use]
pub(crate) fn like(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

/// Removes what is at this path. Returns whether nothing is left of `value` by that: a list that only held what is
/// removed is the same as none.
fn remove(value: &mut Value, path: &[String]) -> bool {
    let Some((segment, rest)) = path.split_first() else { return false };
    match value {
        Value::Object(fields) => {
            let before = fields.len();
            fields.retain(|name, value| !(like(segment, name) && (rest.is_empty() || remove(value, rest))));
            before > 0 && fields.is_empty()
        }
        Value::Array(elements) => {
            let Some((field, pattern)) = segment.split_once('=') else { return false };
            let chosen =
                |element: &Value| element.get(field).and_then(Value::as_str).is_some_and(|text| like(pattern, text));
            let before = elements.len();
            elements.retain_mut(|element| {
                if !chosen(element) || rest.is_empty() {
                    return !chosen(element);
                }
                remove(element, rest);
                true
            });
            before > 0 && elements.is_empty()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(api_version: &str, kind: &str, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey { api_version: api_version.into(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }

    #[test]
    fn every_rule_gives_a_reason() {
        let rules = &*RULES;
        let lists = [&rules.leave_out, &rules.derived, &rules.protect, &rules.system, &rules.no_body];
        assert!(lists.iter().all(|list| !list.is_empty()) && !rules.ignore.is_empty());
        for rule in lists.into_iter().flatten() {
            assert!(rule.why.len() > 5, "{rule:?}");
            let names_something = [&rule.group, &rule.kind, &rule.namespace, &rule.name].iter().any(|x| x.is_some());
            assert!(names_something, "a rule that matches everything: {rule:?}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("*", "", true),
            ("aa*aa", "aaa", false),
        ] {
            assert_eq!(like(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn what_a_cluster_does_by_itself_is_left_out() {
        let none = json!({});
        for (key, out) in [
            (key("v1", "Event", "default", "x"), true),
            (key("events.k8s.io/v1", "Event", "default", "x"), true),
            (key("coordination.k8s.io/v1", "Lease", "kube-node-lease", "n1"), true),
            (key("v1", "Endpoints", "default", "kubernetes"), true),
            (key("v1", "ConfigMap", "new", "kube-root-ca.crt"), true),
            (key("v1", "ConfigMap", "new", "mine"), false),
            (key("v1", "Secret", "other-arch", "baseline"), true),
            (key("v1", "Namespace", "", "other-arch"), true),
            (key("v1", "ServiceAccount", "kube-system", "job-controller"), true),
            (key("v1", "ServiceAccount", "default", "default"), false),
            (key("v1", "Namespace", "", "other"), false),
            (key("certificates.k8s.io/v1", "CertificateSigningRequest", "", "csr-1"), true),
            (key("example.com/v1", "Endpoints", "default", "x"), false),
            (key("apiregistration.k8s.io/v1", "APIService", "", "v1.example.com"), false),
        ] {
            assert_eq!(RULES.left_out(&key, &none).is_some(), out, "{key}");
        }
    }

    #[test]
    fn some_rules_look_at_the_content() {
        let secret = key("v1", "Secret", "kube-system", "bootstrap-token-x");
        assert!(RULES.left_out(&secret, &json!({"type": "bootstrap.kubernetes.io/token"})).is_some());
        assert!(RULES.left_out(&secret, &json!({"type": "Opaque"})).is_none());
        assert!(!RULES.left_out_by_key(&secret));
        let service = key("apiregistration.k8s.io/v1", "APIService", "", "v1.example.com");
        let managed = json!({"metadata": {"labels": {"kube-aggregator.kubernetes.io/automanaged": "true"}}});
        assert!(RULES.left_out(&service, &managed).is_some());
    }

    #[test]
    fn whole_kinds_need_not_be_listed() {
        assert!(RULES.kind_left_out("", "Event"));
        assert!(RULES.kind_left_out("coordination.k8s.io", "Lease"));
        assert!(RULES.kind_left_out("metrics.k8s.io", "*") && !RULES.kind_left_out("storage.k8s.io", "*"));
        assert!(!RULES.kind_left_out("", "ConfigMap"));
        assert!(!RULES.kind_left_out("", "Secret"));
        assert!(!RULES.kind_left_out("apiregistration.k8s.io", "APIService"));
    }

    #[test]
    fn the_cluster_itself_is_never_deleted() {
        for protected in [
            key("v1", "Node", "", "guest"),
            key("v1", "Namespace", "", "kube-system"),
            key("v1", "Namespace", "", "default"),
            key("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", "", "system-nodes"),
            key("rbac.authorization.k8s.io/v1", "ClusterRole", "", "system:node"),
            key("v1", "Service", "default", "kubernetes"),
        ] {
            assert!(RULES.protected(&protected), "{protected}");
        }
        assert!(
            !RULES.protected(&key("v1", "Pod", "kube-system", "dns"))
                && RULES.system(&key("v1", "Pod", "kube-system", "dns"))
        );
        assert!(!RULES.system(&key("v1", "Pod", "default", "dns")));
        assert!(!RULES.protected(&key("v1", "Namespace", "", "kubernetes-tests")));
        assert!(!RULES.protected(&key("v1", "ConfigMap", "default", "default")));
    }

    #[test]
    fn secrets_have_no_body() {
        assert!(!RULES.keeps_body(&key("v1", "Secret", "a", "b")));
        assert!(RULES.keeps_body(&key("v1", "ConfigMap", "a", "b")));
    }

    #[test]
    fn parts_that_change_by_themselves_are_taken_out() {
        let mut node = json!({
            "metadata": {"annotations": {"csi": "x"}, "labels": {"disk": "ssd"}},
            "spec": {"taints": [{"key": "node.kubernetes.io/not-ready"}, {"key": "mine"}], "unschedulable": true},
            "status": {"conditions": []},
        });
        RULES.strip(&key("v1", "Node", "", "n1"), &mut node);
        assert_eq!(
            node,
            json!({
                "metadata": {"labels": {"disk": "ssd"}},
                "spec": {"taints": [{"key": "mine"}], "unschedulable": true},
            })
        );
        let mut tainted = json!({"spec": {"podCIDRs": [], "taints": [{"key": "node.kubernetes.io/not-ready"}]}});
        RULES.strip(&key("v1", "Node", "", "n1"), &mut tainted);
        assert_eq!(tainted, json!({"spec": {"podCIDRs": []}}), "as one that never had a taint");
        let mut crd = json!({"status": {"conditions": [1], "acceptedNames": {}, "storedVersions": ["v1"]}});
        RULES.strip(&key("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "x"), &mut crd);
        assert_eq!(crd, json!({"status": {"storedVersions": ["v1"]}}));
        let role = key("rbac.authorization.k8s.io/v1", "ClusterRole", "", "admin");
        let mut aggregated = json!({"aggregationRule": {"clusterRoleSelectors": []}, "rules": [1]});
        RULES.strip(&role, &mut aggregated);
        assert_eq!(aggregated, json!({"aggregationRule": {"clusterRoleSelectors": []}}));
        let mut plain = json!({"rules": [1]});
        RULES.strip(&role, &mut plain);
        assert_eq!(plain, json!({"rules": [1]}));
        let mut deployment = json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "3", "a": "b"}}});
        RULES.strip(&key("apps/v1", "Deployment", "x", "y"), &mut deployment);
        assert_eq!(deployment, json!({"metadata": {"annotations": {"a": "b"}}}));
    }
}
