//! `image-build verify` as people call it: what it says, how it ends, how much memory it takes.

#[path = "../../lib/oci/tests/support/mod.rs"]
mod support;

mod folder;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use folder::{Ended, Folder};
use serde_json::{Value, json};
use support::{Answer, File, Made, Registry, elf, gzip, index, layer};

const ALL: &[&str] = &["amd64", "arm64", "s390x", "ppc64le"];
const PLATFORMS: &str = "linux/amd64,linux/arm64,linux/s390x,linux/ppc64le";

impl Ended {
    #[track_caller]
    fn expect(self, code: i32, said: &str) -> Self {
        let all = format!("{}{}", self.out, self.err);
        assert!(self.code == code && all.contains(said), "{} instead of {code}, '{said}' in:\n{all}", self.code);
        self
    }
}

/// A folder to work in, and a registry.
struct World {
    folder: Folder,
    registry: Registry,
}

impl World {
    fn new() -> Self {
        Self { folder: Folder::new(), registry: Registry::start() }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        self.folder.write(name, bytes).into()
    }

    fn push(&self, repository: &str, images: &[Made<'_>]) -> String {
        let manifests: Vec<_> = images.iter().map(|made| made.push(&self.registry, repository)).collect();
        index(&self.registry, repository, "v1", &manifests);
        format!("{}/{repository}:v1", self.registry.host)
    }

    fn verify(&self, args: &[&str]) -> Ended {
        self.folder.run(&[&["verify"], args].concat())
    }

    /// With so much address space that nothing large can be kept.
    fn verify_in_little_memory(&self, args: &[&str]) -> Ended {
        let inner = self.folder.command(&[&["verify"], args].concat());
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v 300000; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("MALLOC_ARENA_MAX", "1");
        command.current_dir(self.folder.path(""));
        Ended::of(command)
    }
}

fn all() -> Vec<Made<'static>> {
    ALL.iter().map(|arch| Made::new(arch, arch)).collect()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    layer(&files.iter().map(|(path, bytes)| (*path, File::Content(bytes))).collect::<Vec<_>>())
}

#[test]
fn help_has_examples_and_the_exit_codes() {
    let help = World::new().verify(&["--help"]);
    for said in ["Examples:", "image-build verify release.yaml", "Exit codes:", "--deep", "--nonroot"] {
        assert!(help.out.contains(said), "{said}: {}", help.out);
    }
}

#[test]
fn a_row_says_all_that_is_known_and_json_says_it_by_name() {
    let world = World::new();
    let mut images = all();
    images[2].annotations = json!({
        "org.opencontainers.image.base.name": "e.com/static:v1",
        "org.opencontainers.image.base.digest": format!("sha256:{}", "a".repeat(64)),
    });
    let name = world.push("x", &images);
    let ended = world.verify(&[&name, "--platform", PLATFORMS]).expect(0, "");
    let row = ended.out.lines().find(|line| line.contains("linux/s390x")).unwrap();
    assert!(ended.out.lines().next().unwrap().contains("PLATFORM       INDEX          CONFIG "), "{}", ended.out);
    for said in ["linux/s390x    linux/s390x", "elf s390x 64BE", "65532", "static:v1@aaaaaaaaaaaa", "ok"] {
        assert!(row.contains(said), "{said}: {row}");
    }
    let ended = world.verify(&[&name, "--platform", PLATFORMS, "--output", "json", "--deep"]).expect(0, "");
    let images: Value = serde_json::from_str(&ended.out).unwrap();
    let row = &images[0]["platforms"][2];
    assert_eq!((&row["entry"], &row["config"]), (&json!("linux/s390x"), &json!("linux/s390x")));
    assert_eq!((&row["uid"], &row["nonroot"]), (&json!(65532), &json!(true)));
    assert_eq!(row["deep"], json!({ "layers": 1, "programs": 1, "foreign": 0 }));
    assert_eq!(row["program"]["byteOrder"], "big");
    // What it says can be read back as what the schema says.
    serde_json::from_value::<Vec<kit::record::Image>>(images).unwrap();
}

#[test]
fn wrong_images_are_exit_1_with_their_rows() {
    let world = World::new();
    let hole = world.push("hole", &all()[..2]);
    world.verify(&[&hole, "--platform", PLATFORMS]).expect(1, "WRONG: it has no linux/s390x; it offers linux/amd64");
    let lie = world.push("lie", &[Made::new("arm64", "amd64")]);
    world.verify(&[&lie, "--platform", "linux/arm64"]).expect(1, "/app/x is a program for amd64 (elf, 64 bit, little");
    let order = world.push("order", &[Made::new("ppc64le", "ppc64")]);
    world.verify(&[&order, "--platform", "linux/ppc64le"]).expect(1, "ppc64 (elf, 64 bit, big-endian)");
    let files = [gzip(&tar(&[("bin/old", &elf("amd64"))])), gzip(&tar(&[("app/x", &elf("s390x"))]))].to_vec();
    let below = world.push("below", &[Made { layers: files, ..Made::new("s390x", "s390x") }]);
    world.verify(&[&below, "--platform", "linux/s390x"]).expect(0, "ok");
    world.verify(&[&below, "--platform", "linux/s390x", "--deep"]).expect(1, "/bin/old is a program for amd64");
    let nothing = world.push("nothing", &[Made { settings: json!({}), ..Made::new("s390x", "s390x") }]);
    world.verify(&[&nothing, "--platform", "linux/s390x"]).expect(0, "ok, no program");
    // All of them at once: the good ones are shown as well.
    let ended = world.verify(&[&hole, &below, "--platform", "linux/s390x"]).expect(1, "hole");
    assert_eq!(ended.out.lines().count(), 3, "{}", ended.out);
}

#[test]
fn root_is_refused_where_nonroot_is_asked_for() {
    let world = World::new();
    for (user, code, said) in [
        ("", 1, "it runs as root, for it names no user"),
        ("0", 1, "it runs as root, by its user '0'"),
        ("git", 1, "its user 'git' is a name"),
        ("65532:65532", 0, "65532:65532"),
    ] {
        let settings = json!({ "Entrypoint": ["/app/x"], "User": user });
        let name = world.push("user", &[Made { settings, ..Made::new("s390x", "s390x") }]);
        world.verify(&[&name, "--platform", "linux/s390x"]).expect(0, "ok");
        let ended = world.verify(&[&name, "--platform", "linux/s390x", "--nonroot"]).expect(code, said);
        assert_eq!(ended.err.contains("error[policy-refused]"), code == 1, "{}", ended.err);
    }
}

#[test]
fn programs_and_archives_are_looked_into() {
    let world = World::new();
    let both = tar(&[("tkn", &elf("s390x")), ("tkn-amd64", &elf("amd64")), ("LICENSE", b"text")]);
    world.write("tkn.tar.gz", &gzip(&both));
    world.write("tkn", &elf("s390x"));
    world.write("docs.tar", &tar(&[("LICENSE", b"text")]));
    let s390x = ["--platform", "linux/s390x"];
    let verify = |files: &[&str]| world.verify(&[files, &s390x].concat());
    verify(&["tkn"]).expect(0, "elf s390x 64BE");
    let ended = verify(&["tkn.tar.gz", "tkn"]).expect(1, "tkn-amd64 is a program for amd64");
    assert_eq!(ended.out.lines().count(), 4, "{}", ended.out);
    verify(&["docs.tar"]).expect(1, "docs.tar linux/s390x: it holds no program");
    let cut = gzip(&both);
    world.write("cut.tar.gz", &cut[..cut.len() / 2]);
    verify(&["cut.tar.gz"]).expect(2, "cannot read cut.tar.gz");
    verify(&["cut.tar.gz", "tkn"]).expect(2, "elf s390x 64BE");
    world.verify(&["tkn", "--platform", PLATFORMS]).expect(2, "tkn: programs in files are for one platform");
}

#[test]
fn what_the_call_names_wrongly_is_exit_2_and_named() {
    let world = World::new();
    let s390x = ["--platform", "linux/s390x"];
    let verify = |what: &str| world.verify(&[&[what][..], &s390x].concat());
    for missing in ["release.yaml", "./layout", "/no/where", "release.yaml/x.tar"] {
        verify(missing).expect(2, &format!("there is no file {missing}"));
    }
    fs::create_dir(world.folder.path("folder")).unwrap();
    verify("folder").expect(2, "folder is no OCI layout");
    verify("/dev/zero").expect(2, "/dev/zero is neither a file nor a folder");
    world.write("noise", &[&[1, 0, 2][..], &[0xff; 100]].concat());
    verify("noise").expect(2, "noise is neither a release, a program nor an archive");
    world.write("broken.yaml", b"a: [");
    verify("broken.yaml").expect(2, "broken.yaml is no release");
    verify("UPPER/x:y:z").expect(2, "'UPPER/x:y:z' is no image reference");
    for (platform, said) in [
        ("linux/vax", "unknown architecture 'vax'"),
        ("plan9/amd64", "unknown operating system 'plan9'"),
        ("windows/s390x", "there is no Windows on s390x"),
    ] {
        world.verify(&["x.yaml", "--platform", platform]).expect(2, said);
    }
    world.write("nothing.yaml", b"kind: A\n");
    verify("nothing.yaml").expect(4, "nothing.yaml names no image");
    world.verify(&["a", "b", "--platform=linux/s390x", "--run-dir=r", "--component=c"]).expect(2, "a run keeps one");
}

#[test]
fn of_several_the_others_are_looked_at_although_one_is_no_release() {
    let world = World::new();
    world.write("broken.yaml", b"a: [");
    world.write("tkn", &elf("s390x"));
    let several = ["broken.yaml", "tkn", "--platform", "linux/s390x"];
    let ended = world.verify(&several).expect(2, "broken.yaml is no release");
    assert!(ended.out.contains("elf s390x 64BE"), "{}{}", ended.out, ended.err);
}

#[test]
fn a_registry_out_of_order_is_exit_3_and_named() {
    let world = World::new();
    let name = world.push("x", &all());
    let path = "/v2/x/manifests/v1";
    for (answer, said) in [
        (Answer::Status(401, ""), "error[auth]"),
        (Answer::Status(403, ""), "the registry answered 403 Forbidden"),
        (Answer::Status(404, ""), "the registry has no such image"),
        (Answer::Status(429, "Retry-After: 7200\r\n"), "wants to be asked again in 7200 s"),
        (Answer::Status(500, ""), "the registry answered 500 Internal Server Error, 5 times"),
        (Answer::Cut(vec![b' '; 100]), "the answer broke off"),
    ] {
        world.registry.set(path, answer);
        let ended = world.verify(&[&name, "--platform", "linux/s390x"]).expect(3, said);
        assert!(ended.err.contains(&name), "{}", ended.err);
    }
}

#[test]
fn attacks_do_not_take_memory() {
    let world = World::new();
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_path("d/e").unwrap();
    header.set_cksum();
    let entries = gzip(&header.as_bytes().repeat(100_000)).repeat(100);
    let long = |kind| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(8_000_000_000);
        header.set_path("zeros").unwrap();
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let zeros = gzip(&vec![0; 16 << 20]).repeat(20);
    let unpacks = |kind| [gzip(&long(kind)), zeros.clone()].concat();
    let image = |name: &str, layer: Vec<u8>| {
        world.push(name, &[Made { layers: vec![layer], ..Made::new("s390x", "s390x") }]);
        format!("{}/{name}:v1", world.registry.host)
    };
    let little = |name: &str, said: &str| {
        for deep in [&[][..], &["--deep"]] {
            let ended = world.verify_in_little_memory(&[&[name, "--platform", "linux/s390x"], deep].concat());
            ended.expect(3, said);
        }
    };
    little(&image("entries", entries), "more than 400000 entries, which is the limit");
    little(&image("name", unpacks(tar::EntryType::GNULongName)), "a name of more than a mebibyte");
    little(&image("file", unpacks(tar::EntryType::Regular)), "the archive cannot be read");
    world.registry.set("/v2/huge/manifests/v1", Answer::Zeros(100 << 20));
    little(&format!("{}/huge:v1", world.registry.host), "the answer is larger than 4194304 bytes");
    let file = world.write("bomb.tar.gz", &unpacks(tar::EntryType::Regular));
    let file = Path::new(&file).to_str().unwrap();
    world.verify_in_little_memory(&[file, "--platform", "linux/s390x"]).expect(2, "cannot read");
}
