//! Which images the files of a component name, and where: YAML, JSON, Go, shell and Dockerfiles, line by line, so
//! that templates are read as well.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use kit::{Cause, Context, Error, Result};
use regex::{Captures, Regex};

use crate::manifests;

/// Files that are not the component's own.
const SKIPPED: &[&str] = &[".git", "vendor", "node_modules", "third_party", "target"];
/// A larger file is not read; that is said.
const FILE_LIMIT: u64 = 8 << 20;
/// More files than this are no component.
const FILES: usize = 200_000;
/// Folders inside folders, at most so deep.
const DEPTH: usize = 64;
/// So many bytes in front of a string in Go tell whether it is an image; a generated line may be megabytes long.
const BEFORE: usize = 100;

/// An image that a file names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    /// Relative to the folder.
    pub(super) file: String,
    pub(super) line: usize,
    /// As it stands there.
    pub(super) reference: String,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) named: Vec<Named>,
    pub(super) files: usize,
    /// Go's unit tests, which were left out.
    pub(super) unit_tests: usize,
    /// Files that were not read, and why.
    pub(super) remarks: Vec<String>,
}

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Language {
    Yaml,
    Json,
    Go,
    Shell,
    Dockerfile,
}

fn language(path: &Path) -> Option<Language> {
    let name = path.file_name()?.to_str()?;
    if name == "Dockerfile" || name.starts_with("Dockerfile.") || name.ends_with(".Dockerfile") {
        return Some(Language::Dockerfile);
    }
    match path.extension()?.to_str()? {
        "yaml" | "yml" => Some(Language::Yaml),
        "json" => Some(Language::Json),
        "go" => Some(Language::Go),
        "sh" | "bash" => Some(Language::Shell),
        _ => None,
    }
}

/// Looks through a folder with all below it. Links are not followed. Go's unit tests are read when asked for: the
/// images that they name are mostly made up, and nothing runs them.
///
/// # Errors
/// [`Cause::Usage`] if it cannot be read.
pub(super) fn scan(folder: &Path, unit_tests: bool) -> Result<Scan> {
    let mut scan = Scan::default();
    let mut files = Vec::new();
    let read = || format!("cannot read {}", folder.display());
    fs::read_dir(folder).cause(Cause::Usage, read)?;
    collect(folder, 0, &mut files)?;
    files.sort();
    for (path, language) in files {
        let shown = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
        if fs::metadata(&path).is_ok_and(|data| data.len() > FILE_LIMIT) {
            scan.remarks.push(format!("{shown} is larger than {FILE_LIMIT} bytes and was not read"));
            continue;
        }
        let bytes = match kit::rundir::read_limited(&path, FILE_LIMIT) {
            Ok(bytes) => bytes,
            Err(error) => {
                scan.remarks.push(format!("{shown} was not read: {}", error.summary()));
                continue;
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        if !unit_tests && is_unit_test(&shown, &text) {
            scan.unit_tests += 1;
            continue;
        }
        scan.files += 1;
        for (line, reference) in references(language, &text) {
            scan.named.push(Named { file: shown.clone(), line, reference });
        }
    }
    scan.named.sort();
    scan.named.dedup();
    Ok(scan)
}

/// A test that needs a cluster has a build tag, or lies where such tests lie.
fn is_unit_test(file: &str, text: &str) -> bool {
    let folders = ["test", "tests", "e2e", "integration"];
    file.ends_with("_test.go")
        && !file.split('/').any(|part| folders.contains(&part))
        && !text.lines().any(|line| line.starts_with("//go:build "))
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<(PathBuf, Language)>) -> Result<()> {
    let entries = fs::read_dir(folder).cause(Cause::Usage, || format!("cannot read {}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < DEPTH && !SKIPPED.iter().any(|name| entry.file_name() == *name) {
            collect(&path, depth + 1, files)?;
        } else if kind.is_file()
            && let Some(language) = language(&path)
        {
            files.push((path, language));
        }
        if files.len() > FILES {
            return Err(Error::new(Cause::Usage, format!("{} has more than {FILES} files", folder.display())));
        }
    }
    Ok(())
}

/// Images with the lines that name them.
fn references(language: Language, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    if language == Language::Go {
        for (first, before, literal) in literals(text) {
            for (at, line) in literal.lines().enumerate() {
                let names = if at == 0 { &before } else { "" };
                in_line(language, names, line, &mut |reference| found.push((first + at, reference)));
            }
        }
        return found;
    }
    let mut stages = BTreeSet::new();
    for (at, line) in text.lines().enumerate() {
        let line = manifests::uncommented(line);
        if let (Language::Dockerfile, Some(from)) = (language, FROM.captures(line)) {
            found.extend(base(&from, &mut stages).map(|reference| (at + 1, reference)));
            continue;
        }
        in_line(language, "", line, &mut |reference| found.push((at + 1, reference)));
    }
    found
}

static IMAGE_KEY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?:^|[\s{,"'])(?:image|baseImage|defaultBaseImage)(?:["']?\s*:\s+["']?|["']\s*:\s*["'])([^\s"',}#]+)"#,
    )
    .expect("it is constant")
});
static FROM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)^\s*FROM\s+(?:--platform=(\S+)\s+)?(\S+)(?:\s+AS\s+(\S+))?").expect("it is constant")
});
/// What in Go says that the string behind it is an image: a field `Image:`, a call such as `Image("`, a name.
static GO_IMAGE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:^|[^A-Za-z])[A-Za-z]*[iI]mage\s*(?::|:?=|\(|string\s*=)\s*$").expect("it is constant")
});

/// The image that a stage of a Dockerfile begins with; `stages` are the names of those before it.
fn base(from: &Captures<'_>, stages: &mut BTreeSet<String>) -> Option<String> {
    let image = &from[2];
    // What runs where it is built need not be there for the platforms asked for.
    let builder = from.get(1).is_some_and(|platform| platform.as_str().contains("BUILDPLATFORM"));
    let none = builder || image == "scratch" || image.contains('$') || stages.contains(&image.to_ascii_lowercase());
    stages.extend(from.get(3).map(|stage| stage.as_str().to_ascii_lowercase()));
    if none { None } else { reference(image) }
}

/// What a text names, if it has the form of an image.
fn reference(text: &str) -> Option<String> {
    let reference = text.trim_end_matches(['.', ':', '/', '\\']);
    is_reference(reference).then(|| reference.to_owned())
}

fn in_line(language: Language, before: &str, line: &str, found: &mut impl FnMut(String)) {
    let mut seen = BTreeSet::new();
    let mut take = |text: &str| {
        if let Some(reference) = reference(text)
            && seen.insert(reference.clone())
        {
            found(reference);
        }
    };
    for key in IMAGE_KEY.captures_iter(line) {
        take(&key[1]);
    }
    if language == Language::Go && GO_IMAGE.is_match(before) && !line.contains(char::is_whitespace) {
        take(line);
    }
    for token in manifests::tokens(line) {
        // What is put together when it runs is not known here, and an address is no image.
        let token = token.trim_start_matches("docker://").trim_start_matches("oci://");
        if token.contains(['$', '%', '*', '<']) || token.contains("://") {
            continue;
        }
        if manifests::names_registry(token) || manifests::known_registry(token) {
            take(token);
        }
    }
}

fn is_reference(text: &str) -> bool {
    manifests::is_image(text) && oci::parse(text).is_ok() && !manifests::is_file(text)
}

/// Go's string literals: the line each begins in, the end of what stands before it there, and its text. Comments are
/// skipped.
fn literals(text: &str) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    let bytes = text.as_bytes();
    let (mut at, mut line, mut line_begin) = (0, 1, 0);
    let count = |from: usize, to: usize| bytes[from..to].iter().filter(|byte| **byte == b'\n').count();
    while at < bytes.len() {
        let end = match bytes[at] {
            b'\n' => {
                line += 1;
                line_begin = at + 1;
                at + 1
            }
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n").unwrap_or(bytes.len()),
            b'/' if bytes[at..].starts_with(b"/*") => find(bytes, at + 2, b"*/").map_or(bytes.len(), |end| end + 2),
            b'`' => {
                let end = find(bytes, at + 1, b"`").unwrap_or(bytes.len());
                found.push((line, before(text, line_begin, at), text[at + 1..end].to_owned()));
                (end + 1).min(bytes.len())
            }
            quote @ (b'"' | b'\'') => {
                let end = closing(bytes, at + 1, quote);
                if quote == b'"' {
                    let literal = text[at + 1..end].replace("\\n", "\n").replace("\\t", "\t");
                    // Lines of such a string are in one line of the file.
                    found.extend(literal.lines().enumerate().map(|(index, part)| {
                        let before = if index == 0 { before(text, line_begin, at) } else { String::new() };
                        (line, before, part.to_owned())
                    }));
                }
                (end + 1).min(bytes.len())
            }
            _ => at + 1,
        };
        let newlines = if bytes[at] == b'\n' { 0 } else { count(at, end) };
        if newlines > 0 {
            line += newlines;
            line_begin = bytes[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        }
        at = end;
    }
    found
}

/// The last bytes of a line that begins at `begin`, up to `end`.
fn before(text: &str, begin: usize, end: usize) -> String {
    let mut begin = begin.max(end.saturating_sub(BEFORE));
    while !text.is_char_boundary(begin) {
        begin += 1;
    }
    text[begin..end].to_owned()
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    bytes.get(from..)?.windows(what.len()).position(|window| window == what).map(|at| from + at)
}

/// The end of a string or a character, which does not go over the end of its line.
fn closing(bytes: &[u8], from: usize, quote: u8) -> usize {
    let mut at = from;
    while at < bytes.len() && bytes[at] != quote && bytes[at] != b'\n' {
        at += if bytes[at] == b'\\' && bytes.get(at + 1).is_some_and(|next| *next != b'\n') { 2 } else { 1 };
    }
    at.min(bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "@sha256:19f02276bf8dbdd62f069b922f10c65262cc34b710eea26ff928129a736be791";

    fn found(language: Language, text: &str) -> Vec<(usize, String)> {
        references(language, text)
    }

    fn at(line: usize, reference: &str) -> (usize, String) {
        (line, reference.to_owned())
    }

    #[test]
    fn yaml_is_read_also_as_a_template() {
        let text = format!(
            "{{{{ if .X }}}}\nimage: busybox\n- image: \"ubuntu:22.04\" # quay.io/no/comment:1\n# image: no\n\
             args: [-i, 'gcr.io/p/i:v1', cgr.dev/c/b{DIGEST}]\nimage: $(params.x)\nimage: ko://e.com/x\nimage: -1\nmy: base-image:latest\n\
             run: docker pull quay.io/a/b\nurl: https://gcr.io/p/q:1\n  image: {{{{ .Y }}}}\nfile: e.com/a/b.yaml:3\n"
        );
        let expected = [
            at(2, "busybox"),
            at(3, "ubuntu:22.04"),
            at(5, "gcr.io/p/i:v1"),
            at(5, &format!("cgr.dev/c/b{DIGEST}")),
            at(10, "quay.io/a/b"),
        ];
        assert_eq!(found(Language::Yaml, &text), expected);
    }

    #[test]
    fn go_is_read_in_its_strings_only() {
        let text = "package x\n// image: \"quay.io/no/comment:1\"\nimport \"github.com/a/b\"\nconst busyboxImage = \"mirror.gcr.io/busybox\"\n\
                    /* \"gcr.io/no:1\"\n */ var a = Step{Image: \"ubuntu\", Name: \"x\"}\nvar q = '\"'\nvar yaml = `\nsteps:\n- image: alpine:3\n`\n\
                    f(\"docker.io/library/registry:2\", \"a\\\"b\", \"https://gcr.io/x:1\", \"e.com/a.go:7\")\nb := Image(\"bash\")\n";
        let expected = [
            at(4, "mirror.gcr.io/busybox"),
            at(6, "ubuntu"),
            at(10, "alpine:3"),
            at(12, "docker.io/library/registry:2"),
            at(13, "bash"),
        ];
        assert_eq!(found(Language::Go, text), expected);
    }

    #[test]
    fn a_long_line_of_go_is_not_kept_for_each_of_its_strings() {
        let text = format!("var x = f({} Image(\"bash\"), Image(`zsh`))\n", "\"\u{e9}\", \u{e9}\u{e9},".repeat(100));
        let literals = literals(&text);
        assert_eq!(literals.len(), 102);
        for (_, before, literal) in literals {
            assert!(before.len() <= BEFORE, "{} before {literal}", before.len());
        }
        assert_eq!(found(Language::Go, &text), [at(1, "bash"), at(1, "zsh")]);
    }

    #[test]
    fn json_shell_and_dockerfiles_are_read() {
        assert_eq!(found(Language::Json, "{\"image\": \"busybox:1\",\n \"x\": \"y\"}"), [at(1, "busybox:1")]);
        assert_eq!(
            found(Language::Shell, "kubectl run x --image=quay.io/a/b:$TAG\ncrane ls gcr.io/a/b"),
            [at(2, "gcr.io/a/b")]
        );
        let text = "FROM --platform=$BUILDPLATFORM golang:1\nFROM golang:1.26 AS build\nfrom scratch\nCOPY --from=ghcr.io/a/b:1 x y\n";
        assert_eq!(found(Language::Dockerfile, text), [at(2, "golang:1.26"), at(4, "ghcr.io/a/b:1")]);
    }

    #[test]
    fn a_line_may_name_several_images() {
        let expected = [at(1, "busybox:1"), at(1, "alpine:3")];
        let quoted = "[{\"image\":\"busybox:1\"},{\"image\":\"alpine:3\"}]";
        for text in [quoted, "[{image: busybox:1}, {image: alpine:3}]"] {
            assert_eq!(found(Language::Json, text), expected, "{text}");
        }
    }

    #[test]
    fn a_stage_of_a_dockerfile_is_no_image_and_its_platform_no_reason_to_skip_it() {
        let text = "FROM --platform=${BUILDPLATFORM} golang:1 AS Build\nFROM build AS test\n\
                    FROM --platform=$TARGETPLATFORM alpine\nFROM base:$TAG\nfrom test as last\nFROM last\nFROM later\nFROM x AS later\n";
        assert_eq!(found(Language::Dockerfile, text), [at(3, "alpine"), at(7, "later"), at(8, "x")]);
    }

    #[test]
    fn only_the_component_s_own_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for name in ["a.yaml", "deep/b.yml", "vendor/c.yaml", ".git/d.yaml", "e.txt", "Dockerfile"] {
            write(name, "image: busybox\n");
        }
        write("large.yaml", &"#".repeat(9 << 20));
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
        let scan = scan(folder.path(), false).unwrap();
        let files: Vec<_> = scan.named.iter().map(|named| named.file.as_str()).collect();
        assert_eq!(files, ["Dockerfile", "a.yaml", "deep/b.yml"]);
        assert!(scan.remarks.len() == 1 && scan.remarks[0].starts_with("large.yaml is larger"), "{:?}", scan.remarks);
        assert_eq!(super::scan(&folder.path().join("nothing"), false).unwrap_err().cause, Cause::Usage);
    }

    #[test]
    fn images_of_unit_tests_are_made_up() {
        for (file, text, expected) in [
            ("pkg/x_test.go", "package x\n", true),
            ("pkg/x_test.go", "//go:build e2e\n\npackage x\n", false),
            ("test/x_test.go", "package x\n", false),
            ("pkg/x.go", "package x\n", false),
        ] {
            assert_eq!(is_unit_test(file, text), expected, "{file} {text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[ -~\n`\"'/*\\\\\u{e9}\u{202e}]{0,200}") {
            for language in [Language::Go, Language::Yaml, Language::Json, Language::Shell, Language::Dockerfile] {
                let lines = text.lines().count();
                for (line, reference) in references(language, &text) {
                    prop_assert!(line >= 1 && line <= lines && !reference.is_empty());
                }
            }
        }
    }
}
