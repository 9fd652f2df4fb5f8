//! Every row of the preflight's table, good once and bad once for its real reason.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kit::Platform;
use serde_json::{Value, json};

use crate::{
    Part, deployment, other, own_image,
    support::{Ended, Lab, Run},
};

pub(crate) const PARTS: &[(&str, Part)] = &[
    ("fit", a_cluster_that_can_do_the_job),
    ("unfit", what_a_cluster_cannot_do_and_why),
    ("rights", an_account_that_may_little_and_expires_soon),
    ("taken", a_cluster_that_others_have_and_left),
];

/// The real probe, built once.
fn probe(lab: &Lab) -> &'static str {
    static PROBE: OnceLock<String> = OnceLock::new();
    PROBE.get_or_init(|| {
        lab.beside("image-build", &["probe", "--repo", &lab.registry, "--platform", &Platform::host().to_string()])
    })
}

fn preflight(run: &Run<'_>, release: &str, args: &[&str]) -> Ended {
    let file = run.folder.join("given.yaml");
    std::fs::write(&file, release.replace("NAMESPACE", &run.namespace)).unwrap();
    let began = Instant::now();
    let fixed = ["preflight", "--component", "try", "--release", file.to_str().unwrap(), "--output", "json"];
    let ended = run.tool(&[&fixed, args].concat());
    eprintln!("preflight {}: {:.1} s", run.namespace, began.elapsed().as_secs_f64());
    ended
}

struct Rows(Value);

impl Rows {
    #[track_caller]
    fn of(ended: &Ended, code: i32) -> Self {
        assert_eq!(ended.code, code, "{}\n{}", ended.stdout, ended.stderr);
        Self(serde_json::from_str(&ended.stdout).unwrap())
    }

    fn row(&self, check: &str) -> &Value {
        self.0["rows"].as_array().unwrap().iter().find(|row| row["check"] == check).unwrap()
    }

    /// The row is unfit, for this cause, and says these words.
    #[track_caller]
    fn unfit(&self, check: &str, cause: &str, words: &[&str]) {
        let row = self.row(check);
        assert_eq!((&row["answer"], &row["cause"]), (&json!("unfit"), &json!(cause)), "{row}");
        for word in words {
            assert!(row["line"].as_str().unwrap().contains(word), "'{word}' is not in {row}");
        }
    }
}

fn a_cluster_that_can_do_the_job(run: &Run<'_>) {
    let release = deployment(&own_image(run.lab), "sleep 1000", "");
    let args =
        ["--probe", probe(run.lab), "--internet", &run.lab.registry, "--native", "--disk", "1Mi", "--memory", "1Mi"];
    let rows = Rows::of(&preflight(run, &release, &args), 0);
    assert_eq!(rows.0["fit"], true);
    for row in rows.0["rows"].as_array().unwrap() {
        assert_eq!(row["answer"], "fit", "{row}");
    }
    // Nothing of it stays, and nobody holds the cluster.
    let left = run.lab.kubectl(&[
        "get",
        "pods,persistentvolumeclaims",
        "-n",
        "other-arch",
        "-o",
        "name",
        "--ignore-not-found",
    ]);
    let left: Vec<_> = left.lines().filter(|line| !line.is_empty()).collect();
    assert!(left.is_empty(), "{left:?}");
    run.tool(&["lease", "show"]).says(0, &["nobody holds the cluster"]);
}

const DANGLING: &str = "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: install-test-dangling}
webhooks:
- name: dangling.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  rules: [{apiGroups: [install-test.example.com], apiVersions: [v1], operations: [CREATE], resources: [nothings]}]
  clientConfig: {service: {name: nobody, namespace: nowhere}}
";

/// Whatever is put into the cluster here is taken away again, so that the parts after this one find it whole.
fn what_a_cluster_cannot_do_and_why(run: &Run<'_>) {
    let (lab, host) = (run.lab, Platform::host());
    let default = |value: &str| {
        let mark = format!("storageclass.kubernetes.io/is-default-class={value}");
        lab.kubectl(&["annotate", "storageclass", "standard", "--overwrite", &mark]);
    };
    let dns = |ready: bool| {
        let patch = json!([{"op": "replace", "path": "/endpoints/0/conditions/ready", "value": ready}]).to_string();
        lab.kubectl(&["patch", "endpointslice", "kube-dns-lab", "-n", "kube-system", "--type=json", "-p", &patch]);
    };
    let hook = run.folder.join("hook.yaml");
    std::fs::write(&hook, DANGLING).unwrap();
    let none = format!("{}/install-test/none:1", lab.registry);
    let away = "127.0.0.1:1/install-test/away:1";
    let release = deployment(&none, "sleep 1", "")
        + "---\n"
        + &deployment(away, "sleep 1", "").replace("name: web", "name: away");
    let release = release.replacen("---\napiVersion: v1\nkind: Namespace\nmetadata: {name: NAMESPACE}\n", "", 1);
    let ci = run.folder.join("ci");
    std::fs::create_dir_all(&ci).unwrap();
    let declared = format!(
        "[[architecture]]\nplatform = '{host}'\nworkers = 9\nprocessors = ['none']\n\
         [[cluster]]\nname = 'lab-{}'\nnature = 'emulated'\nworkers = 7\nowner = 'somebody'\n",
        lab.name
    );
    std::fs::write(ci.join("architectures.toml"), declared).unwrap();

    default("false");
    dns(false);
    lab.kubectl(&["apply", "-f", hook.to_str().unwrap()]);
    let done = AtomicBool::new(false);
    let ended = std::thread::scope(|threads| {
        // Somebody whose clock is five minutes ahead renews the node's lease.
        threads.spawn(|| {
            let node = lab.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
            while !done.load(Ordering::SeqCst) {
                let ahead = jiff::Timestamp::now() + Duration::from_secs(300);
                let patch = json!({"spec": {"renewTime": format!("{ahead:.6}")}}).to_string();
                lab.kubectl(&["patch", "lease", node.trim(), "-n", "kube-node-lease", "--type=merge", "-p", &patch]);
            }
        });
        let asked = [
            "--kubernetes",
            "1.99",
            "--disk",
            "900Ti",
            "--memory",
            "900Ti",
            "--internet",
            "127.0.0.1:1",
            "--for",
            "900000h",
            "--timeout",
            "60s",
        ];
        let ended =
            preflight(run, &release, &[&asked[..], &["--probe", probe(lab), "--ci", ci.to_str().unwrap()]].concat());
        done.store(true, Ordering::SeqCst);
        ended
    });
    default("true");
    dns(true);
    lab.kubectl(&["delete", "-f", hook.to_str().unwrap()]);

    let rows = Rows::of(&ended, 3);
    rows.unfit("version", "apiserver", &["1.99 or newer is wanted"]);
    rows.unfit("workers", "node", &["1 of", "at least 7 are wanted"]);
    rows.unfit("nature", "usage", &["somebody declares", "emulated"]);
    rows.unfit("processor", "node", &["not none"]);
    rows.unfit("disk", "host-disk", &["and 921600.0 GiB are wanted"]);
    rows.unfit("memory", "node", &["and 921600.0 GiB are wanted"]);
    rows.unfit("clock", "node", &["ahead of this machine"]);
    rows.unfit("webhooks", "webhook", &["dangling.example.com", "nowhere/nobody has no ready endpoint"]);
    rows.unfit("storage", "storage", &["no storage class is the default one", "standard"]);
    rows.unfit("dns", "dns", &["kubernetes.default.svc from a pod on"]);
    rows.unfit("internet", "cluster-unreachable", &["127.0.0.1:1 from a pod", "refused"]);
    // A lab sends its nodes nowhere for hosts that it does not know: they say no, and are there.
    assert_eq!(rows.row("registries")["answer"], "fit", "{}", rows.row("registries"));
    rows.unfit("images", "image-pull", &["the registry has no", &none, away]);
    rows.unfit(
        "credentials",
        "auth",
        &["the client certificate expires in", "the API server's certificate expires in"],
    );
    for fit in ["api", "lease", "leftovers", "access"] {
        assert_eq!(rows.row(fit)["answer"], "fit", "{}", rows.row(fit));
    }
}

const ACCOUNT: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: NAMESPACE}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: little, namespace: NAMESPACE}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: NAMESPACE}
rules: [{apiGroups: [''], resources: [namespaces, nodes], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: NAMESPACE}
subjects: [{kind: ServiceAccount, name: little, namespace: NAMESPACE}]
";

fn an_account_that_may_little_and_expires_soon(run: &Run<'_>) {
    let file = run.folder.join("account.yaml");
    std::fs::write(&file, ACCOUNT.replace("NAMESPACE", &run.namespace)).unwrap();
    run.lab.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    let token = run.lab.kubectl(&["create", "token", "little", "-n", &run.namespace, "--duration=30m"]);
    let config = run.lab.kubectl(&["config", "view", "--raw", "-o", "json"]);
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let kubeconfig = run.folder.join("little.json");
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let given = run.folder.join("given.yaml");
    std::fs::write(&given, deployment(&own_image(run.lab), "sleep 1", "").replace("NAMESPACE", &run.namespace))
        .unwrap();
    let args = ["preflight", "--kubeconfig", kubeconfig.to_str().unwrap(), "--component", "try", "--output", "json"];
    let ended = Ended::of(run.command(&args).args(["--release", given.to_str().unwrap()]).output().unwrap());
    for what in ["clusterrolebinding", "clusterrole"] {
        run.lab.kubectl(&["delete", what, &run.namespace]);
    }
    assert!(!ended.stdout.contains(token.trim()) && !ended.stderr.contains(token.trim()));
    let rows = Rows::of(&ended, 3);
    rows.unfit("lease", "auth", &["forbidden"]);
    rows.unfit("access", "auth", &["things are forbidden", "create namespaces"]);
    rows.unfit("credentials", "auth", &["the token expires in", "the run may last 120 min"]);
    assert_eq!(rows.row("images")["answer"], "not-tried");
}

fn a_cluster_that_others_have_and_left(run: &Run<'_>) {
    let release = deployment(&own_image(run.lab), "sleep 1000", "");
    run.install(&release, &[]).says(0, &[]);
    let id = run.record()["run"].as_str().unwrap().to_owned();
    run.tool(&["lease", "release", "--force"]).says(0, &[]);
    run.tool(&["lease", "take", "--run", "another"]).says(0, &[]);
    let rows = Rows::of(&preflight(run, &release, &["--platform", &other().to_string()]), 3);
    rows.unfit("lease", "lease-held", &["run another holds the cluster since"]);
    rows.unfit("leftovers", "not-at-baseline", &[&format!("try unknown of run {id}")]);
    rows.unfit("workers", "node", &["ready and takes pods"]);
    assert_eq!(rows.row("storage")["answer"], "not-tried");
    // A run's own installation is none of an earlier one.
    run.tool(&["lease", "release", "--force"]).says(0, &[]);
    let own = ["--run-dir", run.folder.to_str().unwrap(), "--disk", "1Mi", "--memory", "1Mi"];
    let rows = Rows::of(&preflight(run, &release, &own), 0);
    assert_eq!(rows.row("leftovers")["answer"], "fit");
    run.tool(&["lease", "show"]).says(0, &[&format!("run {id} holds the cluster")]);
    let text = run.tool(&["preflight", "--run-dir", run.folder.to_str().unwrap(), "--kubernetes", "1.99"]);
    text.says(3, &["CHECK", "version", "UNFIT", "apiserver", "is not fit: version"]);
    run.tool(&["lease", "show"]).says(0, &["nobody holds the cluster"]);
}
