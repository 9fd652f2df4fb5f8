//! What the lint has to find.

use super::*;

#[test]
fn what_does_not_fit_is_named() {
    let wrong = |kind: &str, name: &str, from: &str, to: &str| {
        let mut documents = all();
        let document = documents.iter_mut().find(|one| one.kind() == kind && one.name() == name).unwrap();
        let text = serde_yaml_ng::to_string(&document.value).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        document.value = serde_yaml_ng::from_str(&text.replacen(from, to, 1)).unwrap();
        lint::problems(&documents).unwrap().join("\n")
    };
    for (kind, name, from, to, said) in [
        ("Task", "other-arch-install", "$(params.probe)", "$(params.prob)", "$(params.prob) is declared nowhere"),
        ("Task", "other-arch-install", "step-image://", "docker.io/", "is no step image"),
        ("Task", "other-arch-install", "mountPath: /workspace/target", "mountPath: /target", "at /workspace/target"),
        (
            "Task",
            "other-arch-install",
            "mountPath: /workspace/target",
            "optional: false",
            "workspaces.target is used by",
        ),
        ("Task", "other-arch-tests", "readOnly: true", "readOnly: false", "mount /workspace/run/given readOnly"),
        (
            "Pipeline",
            "other-arch-test",
            "subPath: given",
            "subPath: other",
            "belongs the folder given of the workspace run",
        ),
        (
            "Task",
            "other-arch-tests",
            "- name: cache",
            "- name: host\n  - name: cache",
            "must not see the workspace host",
        ),
        ("Task", "other-arch-finish", "mountPath: /workspace/target", "optional: false", "at /workspace/target"),
        (
            "Pipeline",
            "other-arch-test",
            "tasks.install.results.outcome",
            "tasks.install.results.out",
            "declared nowhere",
        ),
        (
            "Pipeline",
            "other-arch-test",
            "name: other-arch-tests",
            "name: other-arch-x",
            "there is no Task 'other-arch-x'",
        ),
        (
            "Pipeline",
            "other-arch-test",
            "$(params.shards[*])",
            "$(params.shards)",
            "$(params.shards) is declared nowhere",
        ),
        (
            "Pipeline",
            "other-arch-test",
            "$(params.suite)",
            "$(params.suite[*])",
            "$(params.suite[*]) is declared nowhere",
        ),
        (
            "Pipeline",
            "other-arch-build",
            "\n      - $(params.shards[*])",
            " $(params.suite)",
            "shards is a list on one side only",
        ),
        (
            "Pipeline",
            "other-arch-test",
            "input: $(tasks.install.results",
            "input: $(tasks.e2e.results",
            "declared nowhere",
        ),
        (
            "TriggerTemplate",
            "other-arch",
            "serviceAccountName: other-arch-end",
            "serviceAccountName: x",
            "no ServiceAccount 'x'",
        ),
        ("Pipeline", "other-arch-test", "install=$(tasks.install.status)", "", "does not hear how install ended"),
        ("TriggerTemplate", "other-arch", "finally:", "never:", "pipeline, tasks and finally are not all set"),
        ("TriggerTemplate", "other-arch", "tasks: 35h0m0s", "tasks: 4h0m0s", "shorter than its tasks and finally"),
        ("TriggerTemplate", "other-arch", "finally: 1h0m0s", "finally: 9m", "shorter than its finally"),
        // Which workspace is the last decides which node a pod waits for.
        ("TriggerTemplate", "other-arch", "- name: run\n", "- name: last\n", "its pod would find no node"),
        (
            "Pipeline",
            "other-arch-test",
            "- name: cache\n    - name: run\n",
            "- name: run\n    - name: cache\n",
            "release of other-arch-test: its pod would find no node",
        ),
        // What asks for a result that is not there does not run, and no more does what runs after it.
        (
            "Pipeline",
            "other-arch-build",
            "value: none",
            "value: $(tasks.probe.results.reference)",
            "no gate runs when build has found something",
        ),
        ("Pipeline", "other-arch-test", "    timeout: 10m\n", "", "sources of other-arch-test has no timeout"),
        (
            "TriggerTemplate",
            "other-arch",
            "- name: target\n",
            "- name: other\n",
            "workspaces: target of other-arch-test",
        ),
        ("TriggerBinding", "other-arch", "extensions.place", "extensions.plac", "extension plac is declared nowhere"),
    ] {
        let found = wrong(kind, name, from, to);
        assert!(found.contains(said), "{said}: {found}");
    }
}
