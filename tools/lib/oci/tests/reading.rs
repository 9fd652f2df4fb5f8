//! Layers are read as far as is needed and no further, also from registries that misbehave.

mod support;

use kit::{Cause, digest::sha256, record::Unseen};
use oci::{Checked, Client, Place};
use serde_json::json;
use support::{Answer, File, Made, Registry, elf, gzip, layer};

fn verify(registry: &Registry, name: &str) -> Checked {
    let reference = oci::parse(&format!("{}/{name}", registry.host)).unwrap();
    let platform = ["linux/amd64".parse().unwrap()];
    oci::run(async { Ok(oci::verify(&Place::Registry(Client::new()?, reference), &platform).await) }).unwrap()
}

fn cause(checked: &Checked) -> Option<Cause> {
    checked.rows[0].cause
}

fn problem(checked: &Checked) -> &str {
    checked.rows[0].problem.as_deref().unwrap_or_default()
}

/// Bytes that do not get smaller.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// An image whose program comes first in a layer with much behind it; returns the layer and its path.
fn large(registry: &Registry, name: &str, settings: serde_json::Value, size: usize) -> (Vec<u8>, String) {
    let program = [elf("amd64"), noise(size)].concat();
    let bytes = gzip(&layer(&[("app/x", File::Content(&program))]));
    let path = format!("/v2/{name}/blobs/{}", sha256(&bytes));
    Made { settings, layers: vec![bytes.clone()], ..Made::new("amd64", "amd64") }.push(registry, name);
    (bytes, path)
}

fn digest_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// Where links or other folders could change the answer a layer is read to its end.
fn to_the_end() -> serde_json::Value {
    json!({ "Cmd": ["x"], "Env": ["PATH=/a:/app"] })
}

#[test]
fn a_download_ends_when_the_program_s_header_is_there() {
    let registry = Registry::start();
    let settings = json!({ "Entrypoint": ["/app/x"] });
    let (_, path) = large(&registry, "ranges", settings.clone(), 8 << 20);
    let checked = verify(&registry, "ranges:plain");
    // That it ended there is said, for a later entry could be the program.
    assert_eq!((cause(&checked), checked.rows[0].unseen), (None, Some(Unseen::LayerEnd)));
    // And four bytes of the end, which say that nothing follows the program.
    assert_eq!((registry.served(&path), registry.requests(&format!("GET {path}"))), ((32 << 10) + 4, 2));
    // A registry that knows no ranges is left in the middle; what lies in buffers by then cannot be helped.
    let (bytes, path) = large(&registry, "whole", settings, 64 << 20);
    registry.set(&path, Answer::Whole(bytes));
    assert_eq!(cause(&verify(&registry, "whole:plain")), None);
    assert!(registry.served(&path) < 32 << 20, "{}", registry.served(&path));
    // A small one is read to its end.
    let (bytes, path) = large(&registry, "small", json!({ "Entrypoint": ["/app/x"] }), 2 << 20);
    let checked = verify(&registry, "small:plain");
    assert_eq!((cause(&checked), checked.rows[0].unseen), (None, None));
    assert_eq!(registry.served(&path), bytes.len() as u64);
}

#[test]
fn a_layer_that_is_wanted_to_its_end_comes_in_few_pieces() {
    let registry = Registry::start();
    let (bytes, path) = large(&registry, "pieces", to_the_end(), 4 << 20);
    assert_eq!(cause(&verify(&registry, "pieces:plain")), None);
    assert_eq!((registry.served(&path), registry.requests(&format!("GET {path}"))), (bytes.len() as u64, 3));
}

#[test]
fn a_transfer_that_breaks_off_goes_on_from_there() {
    let registry = Registry::start();
    let (bytes, path) = large(&registry, "once", to_the_end(), 4 << 20);
    let content = Answer::Content { media_type: String::new(), bytes: bytes.clone() };
    registry.set(&path, Answer::Then(Answer::Cut(bytes.clone()).into(), content.into()));
    assert_eq!(cause(&verify(&registry, "once:plain")), None);
    // The half that was there is not fetched again.
    assert_eq!(registry.served(&path), bytes.len() as u64);
    // Without ranges it is, and the first half of it passed over.
    registry.set(&path, Answer::Then(Answer::Cut(bytes.clone()).into(), Answer::Whole(bytes.clone()).into()));
    assert_eq!(cause(&verify(&registry, "once:plain")), None);
    registry.set(&path, Answer::Cut(bytes));
    let checked = verify(&registry, "once:plain");
    assert_eq!(cause(&checked), Some(Cause::Registry));
    assert!(
        problem(&checked).contains("broke off 5 times") && problem(&checked).contains(digest_of(&path)),
        "{checked:?}"
    );
}

#[test]
fn a_layer_of_another_size_or_content_is_refused() {
    let registry = Registry::start();
    let (bytes, path) = large(&registry, "size", to_the_end(), 100 << 10);
    let content = |bytes: &[u8]| Answer::Content { media_type: String::new(), bytes: bytes.into() };
    let mut other = bytes.clone();
    // Behind the end of the archive, where no entry is.
    *other.last_mut().unwrap() = 1;
    for (bytes, said) in [
        (&bytes[..bytes.len() - 1], "bytes instead of"),
        (&[&bytes[..], b"x"].concat(), "bytes instead of"),
        (&other, "has the digest sha256:"),
        (&bytes[..1000], "bytes instead of"),
    ] {
        for answer in [content(bytes), Answer::Whole(bytes.into())] {
            registry.set(&path, answer);
            let checked = verify(&registry, "size:plain");
            assert_eq!(cause(&checked), Some(Cause::Registry), "{said}");
            let more = problem(&checked).contains("has more than its");
            assert!(
                (problem(&checked).contains(said) || more) && problem(&checked).contains(digest_of(&path)),
                "{checked:?}"
            );
        }
    }
}

#[test]
fn a_registry_that_is_busy_for_long_is_not_waited_for() {
    let registry = Registry::start();
    Made::new("amd64", "amd64").push(&registry, "busy");
    for header in ["Retry-After: 3600\r\n", "Retry-After: Tue, 01 Dec 2099 10:00:00 GMT\r\n"] {
        registry.set("/v2/busy/manifests/plain", Answer::Status(429, header));
        let before = registry.requests("GET /v2/busy/manifests/plain");
        let checked = verify(&registry, "busy:plain");
        assert_eq!(cause(&checked), Some(Cause::Registry));
        assert!(problem(&checked).contains("429 Too Many Requests and wants to be asked again in"), "{checked:?}");
        assert_eq!(registry.requests("GET /v2/busy/manifests/plain"), before + 1);
    }
    // A date that is over, and words that are none.
    for header in ["Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "Retry-After: soon\r\n"] {
        let document = Made::new("amd64", "amd64");
        registry.set("/v2/busy/manifests/plain", Answer::Status(503, header));
        let checked = verify(&registry, "busy:plain");
        assert!(problem(&checked).contains("503 Service Unavailable, 5 times"), "{checked:?}");
        document.push(&registry, "busy");
    }
}

#[test]
fn a_manifest_of_100_megabytes_is_not_taken() {
    let registry = Registry::start();
    registry.set("/v2/huge/manifests/v1", Answer::Zeros(100 << 20));
    let checked = verify(&registry, "huge:v1");
    assert_eq!(cause(&checked), Some(Cause::Registry));
    assert!(problem(&checked).contains("huge:v1: the answer is larger than 4194304 bytes"), "{checked:?}");
}

#[test]
fn entries_beyond_the_limit_are_not_remembered() {
    let registry = Registry::start();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_path("d").unwrap();
    header.set_cksum();
    let many = header.as_bytes().repeat(10_000);
    // The same again and again: gzip and zstd go on where one stream ends and another begins.
    let many = gzip(&many).repeat(50);
    Made { layers: vec![many], ..Made::new("amd64", "amd64") }.push(&registry, "many");
    let checked = verify(&registry, "many:plain");
    assert_eq!(cause(&checked), Some(Cause::Registry));
    assert!(problem(&checked).contains("more than 400000 entries, which is the limit"), "{checked:?}");
}

#[test]
fn more_unpacked_than_the_limit_is_not_read() {
    let registry = Registry::start();
    let mut header = tar::Header::new_gnu();
    header.set_size(8_000_000_000);
    header.set_path("zeros").unwrap();
    header.set_cksum();
    let zeros = zstd::encode_all(&vec![0; 64 << 20][..], 1).unwrap();
    let bomb = [zstd::encode_all(&header.as_bytes()[..], 1).unwrap(), zeros.repeat(70)].concat();
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    Made { layers: vec![bomb], ..Made::new("amd64", "amd64") }.push(&registry, "bomb");
    let checked = verify(&registry, "bomb:plain");
    assert_eq!(cause(&checked), Some(Cause::Registry));
    assert!(problem(&checked).contains("more than 4 GiB when decompressed, which is the limit"), "{checked:?}");
}

#[test]
fn an_image_of_a_thousand_layers_is_refused() {
    let registry = Registry::start();
    let one = Made::new("amd64", "amd64").layers.remove(0);
    Made { layers: vec![one; 1000], ..Made::new("amd64", "amd64") }.push(&registry, "layers");
    let checked = verify(&registry, "layers:plain");
    assert!(problem(&checked).contains("more than 500 layers, which is the limit"), "{checked:?}");
}

/// A layer whose entry has a path that libraries refuse to write.
fn odd_path(path: &str, kind: tar::EntryType, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, content).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn paths_and_links_that_lead_out_stay_inside() {
    let registry = Registry::start();
    let program = elf("amd64");
    for (number, (path, kind, link, good)) in [
        ("/app/x", tar::EntryType::Regular, "", true),
        ("../../app/x", tar::EntryType::Regular, "", true),
        ("app/../../../app/x", tar::EntryType::Regular, "", true),
        ("app/x", tar::EntryType::Symlink, "../../../../../../proc/self/exe", false),
        ("app/x", tar::EntryType::Symlink, "/bin/sh", false),
        ("app/x", tar::EntryType::Link, "/bin/sh", false),
        ("app", tar::EntryType::Symlink, "../../../bin", false),
    ]
    .into_iter()
    .enumerate()
    {
        let content = if kind == tar::EntryType::Regular { &program[..] } else { &[] };
        let name = format!("odd{number}");
        let made = Made { layers: vec![gzip(&odd_path(path, kind, link, content))], ..Made::new("amd64", "amd64") };
        made.push(&registry, &name);
        let checked = verify(&registry, &format!("{name}:plain"));
        assert_eq!(cause(&checked), (!good).then_some(Cause::Product), "{path} {checked:?}");
    }
}
