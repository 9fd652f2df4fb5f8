//! A registry with made images of real sizes, for benches: writes a release that names them, says so, and serves until
//! it is ended.
//!
//! usage: registry RELEASE [IMAGES [MEGABYTES]]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fmt::Write;

use serde_json::json;
use support::{Answer, File, Made, Registry, elf, gzip, index, layer};

const ARCHES: [&str; 4] = ["amd64", "arm64", "s390x", "ppc64le"];

/// Half of it gets smaller, as with programs.
fn content(size: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = |number: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if number % 4096 < 2048 { state.to_le_bytes()[0] } else { 0 }
    };
    (0..size).map(&mut next).collect()
}

/// A layer as ko makes it, with one program. Its end, the same in all, is compressed only once: gzip goes on where one
/// stream ends and another begins.
fn program(path: &str, arch: &str, end: &[u8], size: usize) -> Vec<u8> {
    let start = elf(arch);
    let mut header = tar::Header::new_ustar();
    header.set_path(path).unwrap();
    header.set_mode(0o555);
    header.set_size((start.len() + size) as u64);
    header.set_cksum();
    let folder = layer(&[("ko-app/.keep", File::Content(b""))]);
    // Without the two empty blocks that end an archive.
    let folder = &folder[..512];
    [gzip(&[folder, header.as_bytes(), &start].concat()), end.to_vec()].concat()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| arguments.get(at).map_or(default, |text| text.parse().unwrap());
    let (images, size) = (number(1, 8), number(2, 60) << 20);
    let registry = Registry::start();
    // Clients ask first whether somebody is there.
    registry.set("/v2/", Answer::Content { media_type: "application/json".into(), bytes: b"{}".to_vec() });
    // Padded to whole blocks, together with the 64 bytes of the header.
    let end = gzip(&[content(size), vec![0; 448 + 1024]].concat());
    let base = gzip(&layer(&[
        ("etc/passwd", File::Content(b"nonroot:x:65532:65532::/:\n")),
        ("lib", File::Content(&content(2 << 20))),
    ]));
    let mut release = String::new();
    for image in 0..images {
        let name = format!("cmd/image{image}");
        let path = format!("ko-app/image{image}");
        let settings = json!({ "Entrypoint": [format!("/{path}")], "User": "65532" });
        let manifests = ARCHES.map(|arch| {
            let layers = vec![base.clone(), program(&path, arch, &end, size)];
            Made { layers, settings: settings.clone(), ..Made::new(arch, arch) }.push(&registry, &name)
        });
        index(&registry, &name, "v1", &manifests);
        writeln!(release, "---\nkind: Deployment\nimage: {}/{name}:v1", registry.host).unwrap();
    }
    std::fs::write(&arguments[0], release).unwrap();
    println!("{}", registry.host);
    loop {
        std::thread::park();
    }
}
