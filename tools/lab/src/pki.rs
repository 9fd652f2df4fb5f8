//! The lab's certificates: made for each `up`, private, gone with `down`.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::Ipv4Addr,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use kit::{BoxError, Cause, Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::{
    layout::Layout,
    network::SERVICE_API,
    record::{Node, Record},
};

/// Whom a client's certificate speaks for: file name, user, group (Kubernetes reads CN and O).
const CLIENTS: &[(&str, &str, Option<&str>)] = &[
    ("admin", "other-arch:admin", Some("system:masters")),
    ("kube-controller-manager", "system:kube-controller-manager", None),
    ("kube-scheduler", "system:kube-scheduler", None),
    ("kube-proxy", "system:kube-proxy", None),
    ("dns", "other-arch:dns", None),
    ("storage", "other-arch:storage", None),
];

/// The name of the lab's authority.
const AUTHORITY: &str = "other-arch-lab";

/// Makes all keys and certificates and the kubeconfigs of all clients.
pub(crate) fn make(layout: &Layout, record: &Record) -> Result<()> {
    let folder = layout.state_of("pki");
    fs::create_dir_all(&folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
    let ca = Authority::new(AUTHORITY).cause(Cause::Internal, || "cannot make the lab's authority")?;
    let front = Authority::new("other-arch-lab-front").cause(Cause::Internal, || "cannot make the lab's authority")?;
    write_private(&folder.join("ca.crt"), &ca.certificate)?;
    write_private(&folder.join("ca.key"), &ca.key)?;
    write_private(&folder.join("front-ca.crt"), &front.certificate)?;
    let address = record.address();
    let server = ca.issue("kube-apiserver", None, &api_names(address));
    store(&folder, "kube-apiserver", server)?;
    store(&folder, "front", front.issue("front-proxy", None, &[]))?;
    store(&folder, "kubelet-client", ca.issue("other-arch:apiserver", Some("system:masters"), &[]))?;
    let accounts = KeyPair::generate().cause(Cause::Internal, || "cannot make the key of service accounts")?;
    write_private(&folder.join("accounts.key"), &accounts.serialize_pem())?;
    write_private(&folder.join("accounts.pub"), &accounts.public_key_pem())?;
    for (name, user, group) in CLIENTS {
        let kubeconfig = client(record, &ca, user, *group)?;
        write_private(&layout.state_of(&format!("conf/{name}.kubeconfig")), &kubeconfig)?;
        if *name == "admin" {
            write_private(&layout.kubeconfig(), &kubeconfig)?;
        }
    }
    record.nodes.iter().take(1).try_for_each(|node| kubelet(layout, record, &ca, node))
}

/// The certificate of a node that joins, made with the lab's authority.
pub(crate) fn node(layout: &Layout, record: &Record, node: &Node) -> Result<()> {
    let folder = layout.state_of("pki");
    let ca = Authority::open(AUTHORITY, &folder).cause(Cause::HostDisk, || "cannot read the lab's authority")?;
    kubelet(layout, record, &ca, node)
}

fn kubelet(layout: &Layout, record: &Record, ca: &Authority, node: &Node) -> Result<()> {
    let kubeconfig = client(record, ca, &format!("system:node:{}", node.name), Some("system:nodes"))?;
    write_private(&layout.state_of(&format!("conf/{}.kubeconfig", node.name)), &kubeconfig)
}

fn client(record: &Record, ca: &Authority, user: &str, group: Option<&str>) -> Result<String> {
    let (certificate, key) =
        ca.issue(user, group, &[]).cause(Cause::Internal, || format!("cannot make the certificate of {user}"))?;
    Ok(kubeconfig(record, &ca.certificate, &certificate, &key))
}

/// A kubeconfig that needs no other file.
fn kubeconfig(record: &Record, ca: &str, certificate: &str, key: &str) -> String {
    let name = format!("other-arch-lab-{}", record.name);
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {
            "server": record.api_server,
            "certificate-authority-data": BASE64.encode(ca),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "users": [{"name": name, "user": {
            "client-certificate-data": BASE64.encode(certificate),
            "client-key-data": BASE64.encode(key),
        }}],
    });
    // JSON is YAML.
    format!("{config:#}\n")
}

fn api_names(address: Ipv4Addr) -> Vec<String> {
    let short = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let mut names: Vec<_> = short.map(String::from).to_vec();
    names.push("kubernetes.default.svc.cluster.local".into());
    names.extend([address.to_string(), "127.0.0.1".into(), SERVICE_API.into()]);
    names
}

struct Authority {
    certificate: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Result<Self, BoxError> {
        let params = authority(name)?;
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, key: key.serialize_pem(), issuer: Issuer::new(params, key) })
    }

    /// The one of that name that is kept in `folder`.
    fn open(name: &str, folder: &Path) -> Result<Self, BoxError> {
        let (certificate, key) =
            (fs::read_to_string(folder.join("ca.crt"))?, fs::read_to_string(folder.join("ca.key"))?);
        let issuer = Issuer::new(authority(name)?, KeyPair::from_pem(&key)?);
        Ok(Self { certificate, key, issuer })
    }

    /// A certificate for servers (with `names`) and clients, and its key, both as PEM.
    fn issue(&self, user: &str, group: Option<&str>, names: &[String]) -> Result<(String, String), BoxError> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = subject(user, group);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !names.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        lifetime(&mut params);
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}

fn authority(name: &str) -> Result<CertificateParams, BoxError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = subject(name, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    lifetime(&mut params);
    Ok(params)
}

/// A lab may live as long as it likes, and a machine's clock may be wrong.
fn lifetime(params: &mut CertificateParams) {
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
}

fn subject(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    name
}

fn store(folder: &Path, name: &str, pair: Result<(String, String), BoxError>) -> Result<()> {
    let (certificate, key) = pair.cause(Cause::Internal, || format!("cannot make the certificate of {name}"))?;
    write_private(&folder.join(format!("{name}.crt")), &certificate)?;
    write_private(&folder.join(format!("{name}.key")), &key)
}

/// Writes a file that only its owner can read.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let write = || {
        // An earlier one may have other permissions, which opening it would keep.
        if let Err(error) = fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error);
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
    };
    write().cause(Cause::HostDisk, || format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn certificates_are_pem_and_say_whom_they_speak_for() {
        let ca = Authority::new("test").unwrap();
        let (certificate, key) =
            ca.issue("system:node:x", Some("system:nodes"), &api_names([10, 1, 2, 3].into())).unwrap();
        assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn keys_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "old").unwrap();
        write_private(&path, "new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }
}
