//! Images that are not what they say, in a lab's registry, a real one: what image-build says of each there. And what
//! can only be shown with real programs: a plain image of ko's, and bases of Debian's packages made twice.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

#[path = "../../tools/lib/oci/tests/support/mod.rs"]
mod made;
mod support;

use std::{fs, path::Path, process::Command};

use made::{DOCKER_LIST, DOCKER_MANIFEST, File, Made, OCI_MANIFEST, Registry, elf, gzip, index, layer};
use oci::{Client, Place, Tree};
use serde_json::{Value, json};
use support::{World, program, read_json};

/// A lab of which only the registry is up, and one in memory from which images are carried into it.
struct Images {
    world: World,
    registry: String,
    made: Registry,
}

impl Images {
    fn new(name: &str) -> Self {
        let world = World::new(name);
        let up = world.tool("lab", &["up", "--name", &world.lab, "--until", "registry", "--output", "json"]);
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        let status: Value = serde_json::from_slice(&up.stdout).unwrap();
        let registry = status["registry"].as_str().unwrap().to_owned();
        Self { world, registry, made: Registry::start() }
    }

    /// Carries what was made into the real registry; returns its name there.
    fn carry(&self, repository: &str, tag: &str) -> String {
        let name = format!("{}/made/{repository}:{tag}", self.registry);
        let from = oci::parse(&format!("{}/{repository}:{tag}", self.made.host)).unwrap();
        let to = oci::parse(&name).unwrap();
        let carried = oci::run(async {
            let client = Client::new()?;
            let place = Place::Registry(client.clone(), from);
            let tree = Tree::read(&place, place.top().await?).await?;
            tree.push(&client, &place, &to).await?;
            client.push_manifest(&to, &tree.top).await
        });
        carried.unwrap_or_else(|error| panic!("{name}: {error}"));
        name
    }

    /// An index of these images, in the real registry.
    fn index(&self, repository: &str, images: &[Value]) -> String {
        index(&self.made, repository, "v1", images);
        self.carry(repository, "v1")
    }

    /// An index of images for these architectures, which are as they should be.
    fn good(&self, repository: &str, arches: &[&str]) -> String {
        let images: Vec<_> = arches.iter().map(|arch| Made::new(arch, arch).push(&self.made, repository)).collect();
        self.index(repository, &images)
    }

    /// Runs image-build, which has to end like this and to say all of that.
    #[track_caller]
    fn says(&self, arguments: &[&str], code: i32, words: &[&str]) -> String {
        let output = self.world.tool("image-build", arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("{arguments:?}\n{out}{err}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}{err}");
        for word in words {
            assert!(out.contains(word) || err.contains(word), "{arguments:?}: no '{word}' in\n{out}{err}");
        }
        out.into_owned()
    }

    #[track_caller]
    fn verify(&self, image: &str, platforms: &str, code: i32, words: &[&str]) {
        self.says(&["verify", image, "--platform", platforms], code, words);
        // All layers to their end: the same answer.
        self.says(&["verify", image, "--platform", platforms, "--deep"], code, words);
    }

    /// Arguments that build greeter on a base.
    fn build<'a>(&self, run: &'a Path, repo: &'a str, platforms: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let run = run.to_str().unwrap();
        let build = ["build", "--component", "greeter", "--repo", repo, "--platform", platforms, "--run-dir", run];
        [&build[..], more].concat()
    }
}

/// Gives the only layer of an image this media type; returns the image's descriptor.
fn retype(registry: &Registry, repository: &str, image: &Value, media_type: &str) -> Value {
    let path = format!("/v2/{repository}/manifests/{}", image["digest"].as_str().unwrap());
    let mut manifest: Value = serde_json::from_slice(&registry.get(&path)).unwrap();
    manifest["layers"][0]["mediaType"] = json!(media_type);
    let mut typed = registry.document(repository, "typed", OCI_MANIFEST, &manifest);
    typed["platform"] = image["platform"].clone();
    typed
}

#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn what_is_wrong_with_images_in_a_real_registry_is_said() {
    let images = Images::new("images");
    let made = &images.made;
    let hole = images.good("hole", &["amd64", "arm64"]);
    let three = "linux/amd64,linux/arm64,linux/s390x";
    images.verify(&hole, three, 1, &["it has no linux/s390x; it offers linux/amd64, linux/arm64"]);
    images.verify(&hole, "linux/amd64,linux/arm64", 0, &["elf arm64 64LE"]);
    let lie = images.index("lie", &[Made::new("arm64", "amd64").push(made, "lie")]);
    images.verify(&lie, "linux/arm64", 1, &["error[image-wrong-arch]", "/app/x is a program for amd64"]);
    let order = images.index("order", &[Made::new("ppc64le", "ppc64").push(made, "order")]);
    images.verify(&order, "linux/ppc64le", 1, &["ppc64 (elf, 64 bit, big-endian)"]);
    let mut says = Made::new("amd64", "amd64").push(made, "says");
    says["platform"]["architecture"] = json!("s390x");
    let says = images.index("says", &[says]);
    images.verify(&says, "linux/s390x", 1, &["its config says linux/amd64"]);
    let settings = json!({ "Entrypoint": ["/app/x"] });
    let root = images.index("root", &[Made { settings, ..Made::new("s390x", "s390x") }.push(made, "root")]);
    images.verify(&root, "linux/s390x", 0, &["root"]);
    let nonroot = ["verify", &root, "--platform", "linux/s390x", "--nonroot"];
    images.says(&nonroot, 1, &["error[policy-refused]", "it runs as root, for it names no user"]);
    Made::new("amd64", "amd64").push(made, "single");
    let single = images.carry("single", "plain");
    images.verify(&single, "linux/amd64", 0, &["ok"]);
    images.verify(&single, "linux/amd64,linux/s390x", 1, &["it has no linux/s390x; it offers linux/amd64"]);
    // One stream of gzip behind the other: the second has the program again, for another machine.
    let entry = |arch| layer(&[("app/x", File::Content(&elf(arch)))])[..1024].to_vec();
    let layers = vec![[gzip(&entry("s390x")), gzip(&[entry("amd64"), vec![0; 1024]].concat())].concat()];
    let twice = images.index("twice", &[Made { layers, ..Made::new("s390x", "s390x") }.push(made, "twice")]);
    images.verify(&twice, "linux/s390x", 1, &["/app/x is a program for amd64"]);

    // What must not disturb: attestations, other artifacts, other compressions, Docker's media types, indexes inside.
    let amd64 = Made::new("amd64", "amd64").push(made, "mixed");
    let mut attestation = amd64.clone();
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let mut config = made.blob("mixed", b"{}");
    config["mediaType"] = json!("application/vnd.oci.empty.v1+json");
    let artifact = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [config],
        "artifactType": "application/spdx+json" });
    let artifact = made.document("mixed", "artifact", OCI_MANIFEST, &artifact);
    let files = layer(&[("app/x", File::Content(&elf("arm64")))]);
    let zstd = Made { layers: vec![zstd::encode_all(&files[..], 1).unwrap()], ..Made::new("arm64", "arm64") };
    let zstd = zstd.push(made, "mixed");
    let zstd = retype(made, "mixed", &zstd, "application/vnd.oci.image.layer.v1.tar+zstd");
    let docker = Made { media_type: DOCKER_MANIFEST, ..Made::new("s390x", "s390x") }.push(made, "mixed");
    let list = json!({ "schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [docker] });
    let inner = made.document("mixed", "inner", DOCKER_LIST, &list);
    let mixed = images.index("mixed", &[attestation, amd64, artifact, zstd, inner]);
    images.verify(&mixed, three, 0, &["elf amd64 64LE", "elf arm64 64LE", "elf s390x 64BE"]);

    // The same as bases: before anything is built, and instead of ko's silence.
    let folder = images.world.folder.path().to_owned();
    let config = folder.join("ko.yaml");
    let bases = |base: &str, code, words: &[&str]| {
        fs::write(&config, format!("defaultBaseImage: {base}\n")).unwrap();
        images.says(&["bases", "--config", config.to_str().unwrap(), "--platform", three], code, words);
    };
    let repo = format!("{}/refused", images.registry);
    for (base, said) in [
        (&hole, "(for default) has no linux/s390x; it offers linux/amd64, linux/arm64"),
        (&single, "(for default) has no linux/arm64, linux/s390x; it offers linux/amd64"),
    ] {
        bases(base, 1, &[said]);
        let run = folder.join("refused");
        images.says(&images.build(&run, &repo, three, &["--base", base]), 1, &["error[image-missing-platform]", said]);
        assert!(!run.join("greeter/release.yaml").exists() && !run.join("greeter/ko.log").exists());
    }
    bases(&root, 1, &["runs as root on linux/s390x"]);
    bases(&mixed, 0, &["ok"]);
    let gone = format!("{repo}/greeter");
    images.says(&["verify", &gone, "--platform", three], 3, &["the registry has no such image"]);
}

#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn one_platform_gives_a_plain_image_without_an_index() {
    let images = Images::new("plain");
    let (run, repo) = (images.world.folder.path().join("run"), format!("{}/plain", images.registry));
    images.says(&images.build(&run, &repo, "linux/s390x", &[]), 0, &["elf s390x 64BE"]);
    let record = read_json(&run.join("greeter/images.json"));
    let image = record["images"].as_array().unwrap().iter().find(|image| image["kind"] == "built").unwrap();
    let row = &image["platforms"][0];
    assert_eq!(
        (&row["entry"], &row["config"], &row["manifest"]),
        (&Value::Null, &json!("linux/s390x"), &image["digest"])
    );
    let reference = image["reference"].as_str().unwrap();
    images.says(&["verify", reference, "--platform", "linux/s390x"], 0, &["ok"]);
    images.says(&["verify", reference, "--platform", "linux/amd64"], 1, &["it offers linux/s390x"]);
}

#[test]
#[ignore = "needs Debian's mirror: cargo xtask test runs it"]
fn bases_of_packages_are_the_same_when_they_are_made_twice() {
    let folder = tempfile::tempdir().unwrap();
    for base in ["static", "git"] {
        let digest = |time: &str| {
            let mut command = Command::new(program("image-build"));
            command.current_dir(support::root()).env("OTHER_ARCH_CACHE", folder.path().join(format!("cache-{time}")));
            command.args(["base", "build", base, "--platform", "linux/amd64,linux/s390x", "--output", "json"]);
            let output = command.arg("--layout").arg(folder.path().join(format!("{base}-{time}"))).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice::<Value>(&output.stdout).unwrap()["digest"].clone()
        };
        assert_eq!(digest("first"), digest("second"), "{base}");
    }
}
