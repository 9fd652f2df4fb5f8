//! The configuration files of the lab's programs, as text.
//!
//! Paths are those inside the lab. Each setting that is there for a reason says which.

use kit::record::LabMachine;

use crate::{
    layout::{CONTAINERD, LAB},
    network::{self, PODS, SERVICE_DNS},
    record::{Node, Record},
};

/// The provisioner's name in the storage class.
pub(crate) const PROVISIONER: &str = "other-arch.dev/folder";
/// Where the lab's volumes are on the node.
pub(crate) const VOLUMES: &str = "/var/lib/other-arch/volumes";
/// The image that holds a pod's namespaces, loaded into the node's store by `up`.
pub(crate) const PAUSE: &str = "other-arch.lab/pause:1";
/// Where CoreDNS says that it is ready.
pub(crate) const DNS_READY_PORT: u16 = 8181;

/// All files: path under `state/conf/` and content. `cni` is the folder of the CNI plugins.
pub(crate) fn files(record: &Record, cgroup: &str, cni: &str) -> Vec<(String, String)> {
    let mut files = vec![
        ("registry.yaml".into(), registry(record)),
        ("containerd.toml".into(), containerd(cni)),
        ("cni/10-lab.conflist".into(), bridge(&network::pods(0))),
        ("kubelet.yaml".into(), kubelet(cgroup)),
        ("kube-proxy.yaml".into(), proxy(record.node())),
        ("Corefile".into(), corefile(record)),
        ("resolv.conf".into(), resolver(record)),
        ("addons.yaml".into(), addons(record)),
    ];
    files.extend(registries(record));
    files
}

/// The files of a node that is a virtual machine, which has one cgroup hierarchy to itself.
pub(crate) fn of_machine(record: &Record, node: &Node, machine: &LabMachine, cni: &str) -> Vec<(String, String)> {
    let mut files = vec![
        ("containerd.toml".into(), containerd(cni)),
        ("cni/10-lab.conflist".into(), bridge(&network::pods(machine.number))),
        ("kubelet.yaml".into(), kubelet("")),
        ("kube-proxy.yaml".into(), proxy(&node.name)),
        ("resolv.conf".into(), resolver(record)),
    ];
    files.extend(registries(record));
    files
}

fn resolver(record: &Record) -> String {
    format!("nameserver {}\n", record.address())
}

/// Where containerd gets images from.
fn registries(record: &Record) -> Vec<(String, String)> {
    let registry = &record.registry;
    let mut files = vec![
        ("certs.d/_default/hosts.toml".into(), nowhere(registry)),
        (format!("certs.d/{registry}/hosts.toml"), plain_http(registry)),
    ];
    files.extend(record.mirrors.iter().map(|host| (format!("certs.d/{host}/hosts.toml"), mirror(registry, host))));
    files
}

fn registry(record: &Record) -> String {
    format!(
        "version: 0.1\n\
         log: {{level: warn, accesslog: {{disabled: true}}}}\n\
         storage:\n  delete: {{enabled: true}}\n  filesystem: {{rootdirectory: {LAB}/registry}}\n\
         \x20 maintenance: {{uploadpurging: {{enabled: true, age: 24h, interval: 1h, dryrun: false}}}}\n\
         http: {{addr: '{}'}}\n",
        record.registry
    )
}

/// `restrict_oom_score_adj`: without CAP_SYS_RESOURCE (a sandboxed machine) a pod's score cannot be lowered.
fn containerd(cni: &str) -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "{CONTAINERD}"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE}"

[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{LAB}/conf/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{cni}"]
  conf_dir = "{LAB}/conf/cni"

[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"#
    )
}

fn bridge(pods: &str) -> String {
    let list = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "lab",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}]},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{list:#}\n")
}

/// `failCgroupV1`: machines with the old hierarchy can run the lab too. Evicting and collecting images
/// because the user's disk is fairly full would break tests for a reason of no interest to them.
fn kubelet(cgroup: &str) -> String {
    let config = serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        "failCgroupV1": false,
        "failSwapOn": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        "resolvConf": format!("{LAB}/conf/resolv.conf"),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{LAB}/pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [SERVICE_DNS],
        "clusterDomain": "cluster.local",
        "serializeImagePulls": false,
        "maxParallelImagePulls": 4,
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    });
    format!("{config:#}\n")
}

/// `maxPerCore: 0`: the table's size is the machine's, and the lab cannot (and must not) change it.
fn proxy(node: &str) -> String {
    let config = serde_json::json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": format!("{LAB}/conf/kube-proxy.kubeconfig")},
        "clusterCIDR": PODS,
        "hostnameOverride": node,
        "conntrack": {"maxPerCore": 0},
    });
    format!("{config:#}\n")
}

/// What is not in the cluster does not exist, and is said so at once: the lab has no way out.
fn corefile(record: &Record) -> String {
    let address = record.address();
    format!(
        r#".:53 {{
    bind {address}
    errors
    ready {address}:{DNS_READY_PORT}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {LAB}/conf/dns.kubeconfig
        pods insecure
        startup_timeout 1s
        fallthrough in-addr.arpa ip6.arpa
    }}
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
    cache 5
}}
"#
    )
}

fn plain_http(registry: &str) -> String {
    format!(
        "server = \"http://{registry}\"\n\n[host.\"http://{registry}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    )
}

/// A public registry's images, answered by the lab's own registry under a prefix.
fn mirror(registry: &str, host: &str) -> String {
    format!(
        "server = \"http://{registry}/v2/mirror/{host}\"\n\n[host.\"http://{registry}/v2/mirror/{host}\"]\n  \
         capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n"
    )
}

/// Any other registry: the lab has no way out, so the lab's registry says 'not found' instead of a time-out.
fn nowhere(registry: &str) -> String {
    mirror(registry, "other")
}

fn addons(record: &Record) -> String {
    include_str!("addons.yaml")
        .replace("@PROVISIONER@", PROVISIONER)
        .replace("@DNS@", SERVICE_DNS)
        .replace("@ADDRESS@", &record.address().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;

    fn record() -> Record {
        let layout = Layout::new("test").unwrap();
        crate::record::new(&layout, "10.213.7.0/24".parse().unwrap(), vec!["docker.io".into()])
    }

    fn file(name: &str) -> String {
        let files = files(&record(), "other-arch-test", "/run/bin/cni/1");
        files.into_iter().find(|(path, _)| path == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    #[test]
    fn a_public_name_is_answered_under_the_mirror_prefix() {
        let text = file("certs.d/docker.io/hosts.toml");
        assert!(text.contains("[host.\"http://10.213.7.2:5000/v2/mirror/docker.io\"]"), "{text}");
        assert!(text.contains("override_path = true"));
        assert!(file("certs.d/10.213.7.2:5000/hosts.toml").contains("server = \"http://10.213.7.2:5000\""));
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        for (path, text) in files(&record(), "other-arch-test", "/run/bin/cni/1") {
            assert!(!text.contains('@'), "{path}: {text}");
        }
    }

    #[test]
    fn pods_are_below_the_labs_own_cgroup() {
        assert!(file("kubelet.yaml").contains("\"cgroupRoot\": \"/other-arch-test\""));
    }

    #[test]
    fn nodes_pull_several_images_at_a_time() {
        for text in [kubelet("other-arch-test"), kubelet("")] {
            assert!(text.contains("\"serializeImagePulls\": false"), "{text}");
            assert!(text.contains("\"maxParallelImagePulls\": 4"), "{text}");
        }
    }
}
