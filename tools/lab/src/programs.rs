//! What runs in a lab: every program with its part and its arguments, in the order of their start.

use kit::Result;

use crate::{
    config::{PROVISIONER, VOLUMES},
    guest,
    layout::{BIN, LAB},
    network::SERVICES,
    record::{Node, Record},
};

/// When a program can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// As soon as there is a network.
    Registry,
    /// As soon as a cluster is wanted.
    Foundation,
    /// Once the API server answers: these end when it does not.
    Cluster,
}

/// Where a program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The part that it is built with; there it has its own name.
    Part(&'static str),
    /// The system, under this name.
    System(&'static str),
}

/// A program of the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    /// Its name, also of its log.
    pub(crate) name: String,
    /// Where its file is.
    pub(crate) origin: Origin,
    /// When it can start.
    pub(crate) stage: Stage,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
}

impl Program {
    /// Its file as the lab sees it, or its name to be looked for.
    pub(crate) fn path(&self, record: &Record) -> String {
        match self.origin {
            Origin::Part(part) => format!("{}/{}", folder(record, part), self.name),
            Origin::System(name) => name.to_owned(),
        }
    }
}

/// The folder of a part's programs as the lab sees it.
pub(crate) fn folder(record: &Record, part: &str) -> String {
    format!("{BIN}/{part}/{}", record.parts.get(part).map_or("", String::as_str))
}

/// Where the lab's programs look for others: their own folders first, then Debian's.
pub(crate) fn search_path(record: &Record) -> String {
    let own = record.parts.keys().map(|part| folder(record, part));
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(String::from);
    own.chain(system).collect::<Vec<_>>().join(":")
}

/// All programs.
///
/// # Errors
/// If the record has a node that this version of the lab cannot start.
pub(crate) fn programs(record: &Record) -> Result<Vec<Program>> {
    let kubernetes = |name, stage, arguments| program(name, "kubernetes", stage, arguments);
    let mut programs = vec![
        program("registry", "registry", Stage::Registry, vec!["serve".into(), format!("{LAB}/conf/registry.yaml")]),
        program("etcd", "etcd", Stage::Foundation, etcd()),
        kubernetes("kube-apiserver", Stage::Foundation, api_server(record)),
        program("containerd", "containerd", Stage::Foundation, strings(&["--config", &conf("containerd.toml")])),
        kubernetes("kube-controller-manager", Stage::Cluster, controller_manager()),
        kubernetes("kube-scheduler", Stage::Cluster, scheduler()),
        kubernetes("kubelet", Stage::Cluster, kubelet(record)),
        kubernetes("kube-proxy", Stage::Cluster, strings(&["--config", &conf("kube-proxy.yaml")])),
        program("dns", "dns", Stage::Cluster, strings(&["-conf", &conf("Corefile")])),
        program("storage", "storage", Stage::Cluster, storage(record)),
    ];
    for node in record.nodes.iter().filter(|node| node.machine.is_some()) {
        programs.push(machine(record, node).map_err(|error| error.within(format!("node {}", node.name)))?);
    }
    Ok(programs)
}

fn program(name: &'static str, part: &'static str, stage: Stage, arguments: Vec<String>) -> Program {
    Program { name: name.into(), origin: Origin::Part(part), stage, arguments }
}

/// A node that is a virtual machine. It takes longest, so it is started with the first.
fn machine(record: &Record, node: &Node) -> Result<Program> {
    let (program, arguments) = guest::arguments(record, node)?;
    let (name, origin) = (node.name.clone(), Origin::System(program));
    Ok(Program { name, origin, stage: Stage::Foundation, arguments })
}

/// `--unsafe-no-fsync`: a lab's data need not survive the machine, and waiting for the disk is most of a start.
fn etcd() -> Vec<String> {
    strings(&[
        "--name=lab",
        "--data-dir=/var/lib/etcd",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=lab=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ])
}

/// `--kubelet-preferred-address-types`: nobody resolves the nodes' names, and logs are fetched from the kubelet.
/// `--enable-aggregator-routing`: webhooks are called at their pods' addresses, without waiting for kube-proxy.
fn api_server(record: &Record) -> Vec<String> {
    let address = record.address();
    let mut arguments = strings(&[
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--enable-aggregator-routing=true",
        "--kubelet-preferred-address-types=InternalIP",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
    ]);
    arguments.push(format!("--advertise-address={address}"));
    arguments.push(format!("--service-cluster-ip-range={SERVICES}"));
    let files = [
        ("tls-cert-file", "kube-apiserver.crt"),
        ("tls-private-key-file", "kube-apiserver.key"),
        ("client-ca-file", "ca.crt"),
        ("service-account-key-file", "accounts.pub"),
        ("service-account-signing-key-file", "accounts.key"),
        ("kubelet-client-certificate", "kubelet-client.crt"),
        ("kubelet-client-key", "kubelet-client.key"),
        ("requestheader-client-ca-file", "front-ca.crt"),
        ("proxy-client-cert-file", "front.crt"),
        ("proxy-client-key-file", "front.key"),
    ];
    arguments.extend(files.map(|(flag, file)| format!("--{flag}={LAB}/pki/{file}")));
    arguments
}

/// Nodes are told their pods' addresses by the lab. The limits of requests are raised because tests make and delete many namespaces at once.
fn controller_manager() -> Vec<String> {
    let mut arguments = with_kubeconfig("kube-controller-manager");
    arguments.extend(strings(&[
        "--use-service-account-credentials=true",
        "--allocate-node-cidrs=false",
        "--leader-elect=false",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--concurrent-namespace-syncs=20",
        "--flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins",
    ]));
    arguments.push(format!("--service-account-private-key-file={LAB}/pki/accounts.key"));
    arguments.push(format!("--root-ca-file={LAB}/pki/ca.crt"));
    arguments.push(format!("--cluster-signing-cert-file={LAB}/pki/ca.crt"));
    arguments.push(format!("--cluster-signing-key-file={LAB}/pki/ca.key"));
    arguments
}

fn scheduler() -> Vec<String> {
    let mut arguments = with_kubeconfig("kube-scheduler");
    arguments.push("--leader-elect=false".into());
    arguments
}

fn kubelet(record: &Record) -> Vec<String> {
    let node = record.node();
    strings(&[
        &format!("--config={}", conf("kubelet.yaml")),
        &format!("--kubeconfig={}", conf(&format!("{node}.kubeconfig"))),
        &format!("--hostname-override={node}"),
        &format!("--node-ip={}", record.address()),
        "--root-dir=/var/lib/kubelet",
    ])
}

fn storage(record: &Record) -> Vec<String> {
    let config = conf("storage.kubeconfig");
    strings(&["-kubeconfig", &config, "-node", record.node(), "-root", VOLUMES, "-provisioner", PROVISIONER])
}

fn with_kubeconfig(name: &str) -> Vec<String> {
    let config = conf(&format!("{name}.kubeconfig"));
    ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
        .iter()
        .map(|flag| format!("--{flag}={config}"))
        .collect()
}

fn conf(file: &str) -> String {
    format!("{LAB}/conf/{file}")
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{layout::Layout, parts};

    #[test]
    fn every_program_belongs_to_a_part_and_is_found_in_it() {
        let layout = Layout::new("test").unwrap();
        let mut record = crate::record::new(&layout, "10.213.7.0/24".parse().unwrap(), vec![]);
        record.parts.insert("etcd".into(), "abc".into());
        for program in programs(&record).unwrap() {
            let Origin::Part(name) = program.origin else { panic!("{}", program.name) };
            let part = parts::part(name).unwrap();
            assert!(part.programs.contains(&program.name.as_str()), "{}", program.name);
        }
        assert_eq!(programs(&record).unwrap()[1].path(&record), "/run/bin/etcd/abc/etcd");
        assert!(search_path(&record).starts_with("/run/bin/etcd/abc:/usr/local/sbin"));
    }
    #[test]
    fn a_node_that_cannot_be_started_is_named_and_not_left_out() {
        let (_, mut record) = guest::tests::record_with(&["linux/s390x"]);
        assert_eq!(programs(&record).unwrap().last().unwrap().name, "test-s390x");
        record.nodes[1].platform = "linux/riscv64".parse().unwrap();
        let said = programs(&record).unwrap_err().to_string();
        assert!(said.contains("node test-s390x") && said.contains("linux/riscv64"), "{said}");
    }
}
