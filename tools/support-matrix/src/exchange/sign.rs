//! Signatures in cosign's format: its payload, signed by ECDSA over P-256 with SHA-256, under the tag `sha256-HEX.sig`
//! (sigstore/cosign, specs/SIGNATURE_SPEC.md). `cosign verify --key` reads what is written here, and the other way
//! round.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use kit::{Cause, Context, Error, Result, rundir};
use oci::{Client, Layout, Place, Reference, digest_tag, spec::ImageManifest, spec::MediaType};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const KIND: &str = "cosign container image signature";
/// Before the point of a public key of P-256 (RFC 5480).
const PUBLIC_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Signatures of one artifact that are looked at.
const MAX_SIGNATURES: usize = 50;
/// Bytes of a payload, and of a key.
const MAX_PAYLOAD: u64 = 64 << 10;

/// A private key. It stands in no message and no record.
pub(super) struct Key(EcdsaKeyPair);

/// A public key: the point.
pub(super) struct PublicKey(Vec<u8>);

#[derive(Serialize, Deserialize)]
struct Payload {
    critical: Critical,
    optional: Option<Value>,
}

#[derive(Serialize, Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    r#type: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Identity {
    docker_reference: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: String,
}

impl Key {
    /// The key in a file.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it is none, or encrypted.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let der = pem(path, "PRIVATE KEY")?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &SystemRandom::new());
        let pair = pair.map_err(|error| Error::new(Cause::Usage, format!("{}: {error}", path.display())));
        pair.map(Self).map_err(|error| error.next("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"))
    }

    /// Its public half.
    pub(super) fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().to_vec())
    }
}

impl PublicKey {
    /// The key in a file.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it is none.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let der = pem(path, "PUBLIC KEY")?;
        match der.strip_prefix(PUBLIC_PREFIX).filter(|point| point.len() == 65) {
            Some(point) => Ok(Self(point.to_vec())),
            None => Err(Error::new(Cause::Usage, format!("{} is no public key of P-256", path.display()))
                .next("openssl pkey -in KEY -pubout")),
        }
    }
}

/// The content of the block `label`.
fn pem(path: &Path, label: &str) -> Result<Vec<u8>> {
    let bytes = rundir::read_limited(path, MAX_PAYLOAD)?;
    let text = String::from_utf8_lossy(&bytes);
    let block = text.split_once(&format!("-----BEGIN {label}-----"));
    let block = block.and_then(|(_, rest)| rest.split_once(&format!("-----END {label}-----")));
    let Some((block, _)) = block else {
        let what = format!("{} holds no block '{label}'", path.display());
        return Err(Error::new(Cause::Usage, what).next("write it as PEM, not encrypted"));
    };
    let digits: String = block.split_whitespace().collect();
    STANDARD.decode(digits).cause(Cause::Usage, || format!("{} is damaged", path.display()))
}

/// Signs the artifact `signed`, beside signatures that it has already. A second signature by the same key would be
/// another one, and say nothing more.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] naming what could not be pushed; [`Cause::PolicyRefused`] if it has so many
/// already that nobody would look at another.
pub(super) async fn sign(client: &Client, signed: &Reference, key: &Key) -> Result<()> {
    if is_signed(client, signed, &key.public()).await? {
        return Ok(());
    }
    let digest = signed.digest().unwrap_or_default().to_owned();
    let tag = digest_tag(signed, &digest, ".sig");
    let payload = Payload {
        critical: Critical {
            identity: Identity { docker_reference: format!("{}/{}", signed.registry(), signed.repository()) },
            image: Image { docker_manifest_digest: digest },
            r#type: KIND.into(),
        },
        optional: None,
    };
    let payload = serde_json::to_vec(&payload).cause(Cause::Internal, || "cannot write JSON")?;
    let signature = key.0.sign(&SystemRandom::new(), &payload);
    let signature = signature.map_err(|_| Error::new(Cause::Internal, "cannot sign"))?;
    let folder = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
    let layout = Layout::create(folder.path())?;
    let mut layers: Vec<Value> = Vec::new();
    if let Some(before) = client.find_manifest(&tag).await? {
        let place = Place::Registry(client.clone(), tag.clone());
        let manifest: ImageManifest = oci::pull(&place, &oci::subject(&before)?, &layout).await?.parse()?;
        layers.extend(manifest.layers().iter().map(|layer| json!(layer)));
    }
    if layers.len() >= MAX_SIGNATURES {
        let what = format!("{} has {} signatures already, and nobody looks at more", signed.whole(), layers.len());
        return Err(Error::new(Cause::PolicyRefused, what).next(format!("remove the tag {tag}, and sign it again")));
    }
    let blob = layout.write(MediaType::Other(PAYLOAD_TYPE.into()), &payload)?;
    let mut layer = json!(blob);
    layer["annotations"] = json!({ SIGNATURE: STANDARD.encode(signature.as_ref()) });
    layers.push(layer);
    let ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    let config = json!({ "architecture": "", "os": "", "config": {}, "rootfs": { "type": "layers", "diff_ids": ids } });
    let config = layout.write(MediaType::ImageConfig, &oci::canonical(&config)?)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest,
        "config": config,
        "layers": layers,
    });
    let image = layout.write(MediaType::ImageManifest, &oci::canonical(&manifest)?)?;
    oci::copy(client, &layout, &image, &tag).await.map(drop)
}

/// Refuses an artifact that this key did not sign.
///
/// # Errors
/// [`Cause::PolicyRefused`] if none is.
pub(super) async fn verify(client: &Client, signed: &Reference, key: &PublicKey) -> Result<()> {
    match fault(client, signed, key).await? {
        None => Ok(()),
        Some(why) => Err(Error::new(Cause::PolicyRefused, format!("{}: {why}", signed.whole()))),
    }
}

/// Whether one of the signatures of `signed` is by this key, and about nothing else.
///
/// # Errors
/// If they cannot be read.
pub(super) async fn is_signed(client: &Client, signed: &Reference, key: &PublicKey) -> Result<bool> {
    Ok(fault(client, signed, key).await?.is_none())
}

/// Why it is not signed by this key.
async fn fault(client: &Client, signed: &Reference, key: &PublicKey) -> Result<Option<&'static str>> {
    let digest = signed.digest().unwrap_or_default().to_owned();
    let tag = digest_tag(signed, &digest, ".sig");
    let Some(document) = client.find_manifest(&tag).await? else { return Ok(Some("it is not signed")) };
    let manifest: ImageManifest = document.parse()?;
    let sizes: u64 =
        manifest.layers().iter().map(|layer| layer.size()).fold(manifest.config().size(), u64::saturating_add);
    if manifest.layers().len() > MAX_SIGNATURES || sizes > MAX_PAYLOAD * (MAX_SIGNATURES as u64 + 1) {
        return Ok(Some("it has more signatures than anybody looks at"));
    }
    let folder = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
    let layout = Layout::create(folder.path())?;
    let place = Place::Registry(client.clone(), tag);
    oci::pull(&place, &oci::subject(&document)?, &layout).await?;
    for layer in manifest.layers() {
        let signature = layer.annotations().as_ref().and_then(|all| all.get(SIGNATURE));
        let Some(signature) = signature.and_then(|text| STANDARD.decode(text).ok()) else { continue };
        let Ok(payload) = rundir::read_limited(&layout.path(layer), MAX_PAYLOAD) else { continue };
        let about = serde_json::from_slice::<Payload>(&payload);
        let of_this = about.is_ok_and(|payload| {
            payload.critical.image.docker_manifest_digest == digest && payload.critical.r#type == KIND
        });
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.0);
        if of_this && key.verify(&payload, &signature).is_ok() {
            return Ok(None);
        }
    }
    Ok(Some("no signature is by this key"))
}
