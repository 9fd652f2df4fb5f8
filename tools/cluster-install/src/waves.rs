//! In which order a release's objects are sent: what others need comes first.

use cluster::objects::Object;

/// The waves, in their order. Within one, all objects are sent at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wave {
    /// Namespaces and custom resource definitions: places and kinds for the rest.
    Foundations,
    /// Accounts, permissions, configuration, services.
    Settings,
    /// What has pods.
    Workloads,
    /// Webhooks and extension APIs: the API server begins to ask them at once.
    Hooks,
    /// Objects of custom kinds: webhooks see them, so these must answer.
    Customs,
}

impl Wave {
    /// All of them, in their order.
    pub(crate) const ALL: [Self; 5] = [Self::Foundations, Self::Settings, Self::Workloads, Self::Hooks, Self::Customs];

    /// The wave of an object.
    pub(crate) fn of(object: &Object) -> Self {
        match (object.group(), object.key.kind.as_str()) {
            ("", "Namespace") | ("apiextensions.k8s.io", "CustomResourceDefinition") => Self::Foundations,
            ("admissionregistration.k8s.io", _) | ("apiregistration.k8s.io", "APIService") => Self::Hooks,
            _ if crate::pods::has_pods(object) => Self::Workloads,
            (group, _) if is_custom(group) => Self::Customs,
            _ => Self::Settings,
        }
    }
}

/// Whether a group is not Kubernetes' own: those have no dot, or end in `.k8s.io`
/// (kubernetes/community, api-review-process.md).
pub(crate) fn is_custom(group: &str) -> bool {
    group.contains('.') && !group.ends_with(".k8s.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_need_comes_first() {
        for (api_version, kind, wave) in [
            ("v1", "Namespace", Wave::Foundations),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition", Wave::Foundations),
            ("v1", "ConfigMap", Wave::Settings),
            ("rbac.authorization.k8s.io/v1", "ClusterRole", Wave::Settings),
            ("autoscaling/v2", "HorizontalPodAutoscaler", Wave::Settings),
            ("apps/v1", "Deployment", Wave::Workloads),
            ("batch/v1", "CronJob", Wave::Workloads),
            ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", Wave::Hooks),
            ("tekton.dev/v1", "Task", Wave::Customs),
        ] {
            let text = format!("{{apiVersion: {api_version}, kind: {kind}, metadata: {{name: a}}}}");
            assert_eq!(Wave::of(&cluster::objects::parse(&text, "r").unwrap()[0]), wave, "{kind}");
        }
        assert!(Wave::ALL.is_sorted());
    }
}
