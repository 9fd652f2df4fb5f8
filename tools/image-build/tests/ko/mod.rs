//! A ko that builds nothing: it pushes the images that a test prepared to where it is told to.
//!
//! A shell script stands on the path; it calls the test's own program again, for pushing is more than a
//! script can do.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use oci::{
    Client, Layout,
    spec::{Descriptor, MediaType},
};
use serde_json::{Value, json};

use crate::support::{File, elf, gzip, layer, pe};

/// Names the folder of the test whose images are pushed; without it the test of that name does nothing.
const FOLDER: &str = "STAND_IN_KO";

/// The script that stands on the path; `first` is done before anything else.
pub(crate) fn script(folder: &Path, first: &str) -> String {
    let (folder, program) = (folder.display(), std::env::current_exe().unwrap());
    format!(
        "[ \"$1\" = version ] && echo v0.19.1 && exit\n{first}\nenv > {folder}/env\nfor word; do echo \"$word\"; done > {folder}/called\n\
         echo '2026/01/01 Building e.com/x/cmd/x for linux/amd64' >&2\n\
         {FOLDER}={folder} {} --exact stand_in_ko > {folder}/ko.out 2>&1 || {{ cat {folder}/ko.out >&2; exit 1; }}\n\
         cat {folder}/answer\n",
        program.display()
    )
}

/// Lets it have built an import path: images whose configs say the first, an architecture of Linux or `windows/amd64`,
/// and whose programs are for the second; of `nothing` they have none.
pub(crate) fn built(folder: &Path, import: &str, platforms: &[(&str, &str)]) {
    let layout = Layout::create(place(folder, import)).unwrap();
    let write = |media_type: MediaType, value: &Value| layout.write(media_type, value.to_string().as_bytes()).unwrap();
    let images = platforms.iter().map(|(says, holds)| {
        let (os, says) = says.split_once('/').unwrap_or(("linux", says));
        let (path, entrypoint, program) = match (os, *holds) {
            (_, "nothing") => ("app/x", json!(null), vec![]),
            ("windows", _) => ("Files/app/x.exe", json!(["C:\\app\\x.exe"]), pe()),
            (_, holds) => ("app/x", json!(["/app/x"]), elf(holds)),
        };
        let files = gzip(&layer(&[(path, File::Content(&program))]));
        let files = layout.write(MediaType::ImageLayerGzip, &files).unwrap();
        let settings = json!({ "Entrypoint": entrypoint, "User": "65532" });
        let config = json!({ "os": os, "architecture": says, "config": settings,
            "rootfs": { "type": "layers", "diff_ids": [] }, "of": import });
        let config = write(MediaType::ImageConfig, &config);
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": [files] });
        let mut image = serde_json::to_value(write(MediaType::ImageManifest, &manifest)).unwrap();
        image["platform"] = json!({ "os": os, "architecture": says });
        image
    });
    let images: Vec<_> = images.collect();
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": images });
    layout.finish(&[write(MediaType::ImageIndex, &index)]).unwrap();
}

fn place(folder: &Path, import: &str) -> PathBuf {
    folder.join("built").join(import.replace('/', "-"))
}

/// The part of it that pushes, in the program that the script calls.
pub(crate) fn run() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let called = fs::read_to_string(folder.join("called")).unwrap();
    let after = |name: &str| called.lines().find_map(|word| word.strip_prefix(name)).map(ToOwned::to_owned);
    let tags = after("--tags=").unwrap();
    let asked = called.lines().skip_while(|word| *word != "--filename").nth(1).unwrap();
    let mut asked: Value = serde_yaml_ng::from_str(&fs::read_to_string(asked).unwrap()).unwrap();
    let images: BTreeMap<String, String> = serde_json::from_value(asked["images"].clone()).unwrap();
    for import in images.keys() {
        let Ok(layout) = Layout::open(place(&folder, import)) else { continue };
        let image: Descriptor = layout.find(None).unwrap();
        let repo = std::env::var("KO_DOCKER_REPO").unwrap();
        let name = match () {
            () if called.contains("--bare") => repo,
            () if called.contains("--base-import-paths") => format!("{repo}/{}", import.rsplit('/').next().unwrap()),
            () => format!("{repo}/{import}").to_lowercase(),
        };
        for tag in tags.split(',') {
            let target = oci::parse(&format!("{name}:{tag}")).unwrap();
            oci::run(async { oci::copy(&Client::new()?, &layout, &image, &target).await }).unwrap();
        }
        asked["images"][import] = json!(format!("{name}:{}@{}", tags.split(',').next().unwrap(), image.digest()));
    }
    fs::write(folder.join("answer"), serde_yaml_ng::to_string(&asked).unwrap()).unwrap();
}
