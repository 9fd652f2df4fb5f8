//! What the state of a pod decides about a test that failed while it was so, as data.
//!
//! A pod that waits is no proof of anything, for many are deleted before they begin; only what a pod cannot help
//! counts.

use cluster::explain::Trouble;
use kit::Cause;

/// A cause that a pod's state shows, if what is said of it contains the words; the first that fits decides.
const DECIDES: &[(Cause, &str)] = &[
    (Cause::ImageWrongArch, ""),
    (Cause::ImageMissingPlatform, ""),
    (Cause::ImagePull, "image pull"),
    (Cause::Auth, "image pull"),
    (Cause::Dns, "image pull"),
    (Cause::HostDisk, "image pull"),
    (Cause::Quota, "unschedulable"),
    (Cause::Storage, "unschedulable"),
    (Cause::Storage, "cannot mount"),
    (Cause::Node, "unschedulable"),
    (Cause::Node, "evicted"),
];

/// Whether it is reason enough for a failure.
#[must_use]
pub fn decides(trouble: &Trouble) -> bool {
    DECIDES.iter().any(|(cause, words)| trouble.cause == *cause && trouble.line.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::explain;
    use serde_json::{Value, json};

    fn of(status: Value) -> Option<Cause> {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "r.example/x:1"}]},
            "status": status});
        let pod = serde_json::from_value(pod).unwrap();
        explain::pod(&pod, explain::Context::default()).filter(decides).map(|trouble| trouble.cause)
    }

    fn waits(reason: &str, message: &str) -> Value {
        json!({"phase": "Pending", "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}}]})
    }

    #[test]
    fn only_what_a_pod_cannot_help_decides() {
        let unscheduled = |message: &str| json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": message}]});
        for (status, cause) in [
            (waits("ErrImagePull", "failed to pull: connection refused"), Some(Cause::ImagePull)),
            (waits("ImagePullBackOff", "no match for platform in manifest"), Some(Cause::ImageMissingPlatform)),
            (waits("ErrImagePull", "401 unauthorized"), Some(Cause::Auth)),
            (waits("ContainerCreating", ""), None),
            (waits("CreateContainerConfigError", "secret \"x\" not found"), None),
            (waits("CrashLoopBackOff", ""), None),
            (json!({"phase": "Pending"}), None),
            (json!({"phase": "Succeeded"}), None),
            (json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}), Some(Cause::Node)),
            (unscheduled("0/1 nodes are available: 1 Insufficient memory."), Some(Cause::Quota)),
            (unscheduled("pod has unbound immediate PersistentVolumeClaims"), Some(Cause::Storage)),
        ] {
            assert_eq!(of(status.clone()), cause, "{status}");
        }
    }
}
