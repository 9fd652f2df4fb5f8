//! Taking the program out of an image.

mod support;

use kit::{Cause, Result};
use oci::{Client, Place};
use serde_json::json;
use support::{Answer, File, Made, Registry, elf, gzip, index, layer};

fn program(registry: &Registry, name: &str, arch: &str, limit: usize) -> Result<Vec<u8>> {
    let reference = oci::parse(&format!("{}/{name}", registry.host))?;
    let platform = format!("linux/{arch}").parse()?;
    oci::run(async { oci::program(&Place::Registry(Client::new()?, reference), &platform, limit).await })
}

#[test]
fn the_program_of_the_platform_comes_whole_from_the_upmost_layer() {
    let registry = Registry::start();
    let long = [elf("s390x"), vec![7; 5000]].concat();
    let below = gzip(&layer(&[("app/x", File::Content(&elf("amd64")))]));
    let above = gzip(&layer(&[("./app/x", File::Content(&long)), ("app/y", File::Content(&[1; 9000]))]));
    let made = Made { layers: vec![below, above], ..Made::new("s390x", "s390x") };
    let image = made.push(&registry, "a");
    index(&registry, "a", "v1", &[Made::new("amd64", "amd64").push(&registry, "a"), image]);
    assert_eq!(program(&registry, "a:v1", "s390x", 10_000).unwrap(), long);
    assert_eq!(program(&registry, "a:v1", "amd64", 10_000).unwrap(), elf("amd64"));
    let cause = |arch, limit| program(&registry, "a:v1", arch, limit).unwrap_err().cause;
    assert_eq!(cause("arm64", 10_000), Cause::ImageMissingPlatform);
    assert_eq!(cause("s390x", 5000), Cause::Product, "it is larger than that");
}

#[test]
fn what_is_no_plain_program_is_not_taken() {
    let registry = Registry::start();
    let linked = gzip(&layer(&[("app/x", File::Link("/app/y")), ("app/y", File::Content(&elf("amd64")))]));
    let made = [
        Made { layers: vec![linked], ..Made::new("amd64", "amd64") },
        Made { settings: json!({ "Cmd": ["x"] }), ..Made::new("amd64", "amd64") },
        Made { settings: json!({ "Entrypoint": ["x"] }), ..Made::new("amd64", "amd64") },
    ];
    for (number, made) in made.into_iter().enumerate() {
        let name = format!("odd{number}");
        made.push(&registry, &name);
        assert_eq!(program(&registry, &format!("{name}:plain"), "amd64", 1000).unwrap_err().cause, Cause::Product);
    }
}

#[test]
fn nothing_is_taken_from_a_layer_that_was_changed() {
    let registry = Registry::start();
    let made = Made::new("amd64", "amd64");
    let path = format!("/v2/bad/blobs/{}", kit::digest::sha256(&made.layers[0]));
    made.push(&registry, "bad");
    program(&registry, "bad:plain", "amd64", 1000).unwrap();
    let other = gzip(&layer(&[("app/x", File::Content(b"something else"))]));
    registry.set(&path, Answer::Content { media_type: String::new(), bytes: other });
    assert_eq!(program(&registry, "bad:plain", "amd64", 1000).unwrap_err().cause, Cause::Registry);
}
