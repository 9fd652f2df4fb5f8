//! `image-build attach`: what is about an image, in a registry that stands in for a real one.

#[path = "../../lib/oci/tests/support/mod.rs"]
mod support;

mod common;

use common::{World, push};

#[test]
fn what_is_about_an_image_is_found_by_the_image() {
    let world = World::new();
    let digest = push(&world.registry, "x", "v1", &["amd64", "s390x"]);
    let image = format!("{}/x@{digest}", world.registry.host);
    let file = world.write("sbom.json", "{}");
    let attach = |image: &str, kind: &str, file: &str| world.run(&["attach", image, "--type", kind, file], &[]);
    let first = attach(&image, "application/spdx+json", &file);
    first.said(0, &[]);
    assert!(first.out.starts_with(&format!("{}/x@sha256:", world.registry.host)), "{}", first.out);
    assert_eq!(attach(&image, "application/spdx+json", &file).out, first.out);
    let (subject, wanted) = (oci::parse(&image).unwrap(), first.out.trim().to_owned());
    let found = oci::run(async { oci::referrers(&oci::Client::new()?, &subject, Some("application/spdx+json")).await });
    let found: Vec<_> = found.unwrap().iter().map(|one| one.digest().to_string()).collect();
    assert_eq!(found.len(), 1);
    assert!(wanted.ends_with(&found[0]), "{wanted} {found:?}");

    let tag = format!("{}/x:v1", world.registry.host);
    attach(&tag, "application/spdx+json", &file).said(2, &["has no digest"]);
    attach(&image, "nonsense", &file).said(2, &["write a media type"]);
    attach(&image, "application/spdx+json", "nowhere").said(2, &["cannot read nowhere"]);
    let gone = format!("{}/x@sha256:{}", world.registry.host, "0".repeat(64));
    attach(&gone, "application/spdx+json", &file).said(3, &["error[registry]"]);
}
