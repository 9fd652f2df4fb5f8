//! What `tektoncd/plumbing` has for its nightly tests of s390x and ppc64le, by kind and name: in its folders
//! `tekton/resources/nightly-tests` and `tekton/cronjobs/{bases,nightly_oci}/nightly-tests`, and what their READMEs say was
//! made by hand. Of what is in the objects only what says how many they are, and who refers to whom.

use serde_json::{Value, json};

pub(crate) const COMPONENTS: [&str; 6] = ["pipeline", "triggers", "cli", "operator", "dashboard", "catalog"];
/// Architecture and the namespace in which its runs are.
pub(crate) const PLACES: [(&str, &str); 2] = [("s390x", "bastion-z"), ("ppc64le", "bastion-p")];
const LISTENER: &str = "test-nightly";
const ACCOUNT: &str = "tekton-test-nightly";
const ROLES: [&str; 2] = ["tekton-test-triggers-nightly", "tekton-test-triggers-nightly-clusterrole"];
/// Tasks of each place; one more is named by its architecture. Written as v1beta1 there, which needs Tekton's own webhook
/// to be read: a name is the same in every version.
const TASKS: [&str; 5] = [
    "git-clone",
    "deploy-tekton-component-nightly",
    "test-e2e-tekton-component",
    "test-e2e-tekton-cli",
    "cleanup-tekton-nightly",
];

fn object(version: &str, kind: &str, namespace: Option<&str>, name: &str, rest: Value) -> Value {
    let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name } });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    object
}

/// All of it.
pub(crate) fn objects() -> Vec<Value> {
    let rbac = "rbac.authorization.k8s.io/v1";
    let here = Some("default");
    let triggers = "triggers.tekton.dev/v1beta1";
    let subject = json!([{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default" }]);
    let role = |at: usize| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLES[at] });
    let template = |component: &str, arch: &str| format!("tekton-{component}-nightly-test-{arch}");
    let mut all = vec![object("v1", "ServiceAccount", here, ACCOUNT, json!({}))];
    all.extend(ROLES.map(|name| object(rbac, "ClusterRole", None, name, json!({ "rules": [] }))));
    let bound = json!({ "subjects": subject, "roleRef": role(1) });
    all.push(object(rbac, "ClusterRoleBinding", None, "tekton-test-triggers-nigthly-clusterbinding", bound));
    let binding = "trigger-to-deploy-test-tekton-project";
    all.push(object(triggers, "TriggerBinding", here, binding, json!({ "spec": { "params": [] } })));
    let mut listened = Vec::new();
    for (arch, place) in PLACES {
        all.push(object("v1", "Namespace", None, place, json!({})));
        let bound = json!({ "subjects": subject, "roleRef": role(0) });
        all.push(object(rbac, "RoleBinding", Some(place), &format!("tekton-test-nightly-trigger-{place}"), bound));
        // An owner's host: its key, and its address.
        let key = json!({ "stringData": { "privatekey": "none" } });
        all.push(object("v1", "Secret", Some(place), &format!("{arch}-k8s-ssh"), key));
        let service = json!({ "spec": { "clusterIP": "None", "ports": [{ "port": 22 }] } });
        all.push(object("v1", "Service", Some(place), &format!("{arch}-cluster"), service));
        let setup = format!("create-delete-k8s-cluster-{arch}");
        for task in TASKS.into_iter().chain([setup.as_str()]) {
            let steps = json!({ "spec": { "steps": [{ "name": "one", "image": "r.example/image" }] } });
            all.push(object("tekton.dev/v1", "Task", Some(place), task, steps));
        }
        for component in COMPONENTS {
            let run = json!({ "apiVersion": "tekton.dev/v1beta1", "kind": "PipelineRun" });
            let made = json!({ "spec": { "params": [], "resourcetemplates": [run] } });
            all.push(object(triggers, "TriggerTemplate", here, &template(component, arch), made));
            let filter = format!("body['trigger-template'] == '{component}' && body.params.target.arch == '{arch}'");
            listened.push(json!({
                "name": format!("{component}-nightly-test-trigger-{arch}"),
                "interceptors": [{ "ref": { "name": "cel" }, "params": [{ "name": "filter", "value": filter }] }],
                "bindings": [{ "ref": binding }],
                "template": { "ref": template(component, arch) },
            }));
            let pod = json!({
                "restartPolicy": "Never", "containers": [{ "name": "trigger", "image": "r.example/curl" }],
            });
            let job = json!({ "spec": { "template": { "spec": pod } } });
            let cron = json!({ "spec": { "schedule": "0 19 * * *", "jobTemplate": job } });
            all.push(object("batch/v1", "CronJob", here, &format!("nightly-test-trigger-{component}-{arch}"), cron));
        }
    }
    let listener = json!({ "spec": { "serviceAccountName": ACCOUNT, "triggers": listened } });
    all.push(object(triggers, "EventListener", here, LISTENER, listener));
    // What Triggers makes of it.
    let service = json!({ "spec": { "ports": [{ "port": 8080 }] } });
    all.push(object("v1", "Service", here, &format!("el-{LISTENER}"), service));
    all
}
