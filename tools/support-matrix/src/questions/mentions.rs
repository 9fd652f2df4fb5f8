//! Finds what documents say of architectures: the annotation `tekton.dev/platforms`, and sentences.

use kit::{Platform, arch::ARCHES};

use crate::{evidence::is_plain, model::ClaimKind};

/// A place where a document says something of a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mention {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) text: String,
    /// The heading that it stands under.
    pub(crate) heading: String,
    pub(crate) kind: ClaimKind,
    pub(crate) platform: Platform,
}

const ANNOTATION: &str = "tekton.dev/platforms";
/// Platforms of one annotation: there are not that many.
const MAX_ANNOTATED: usize = 100;
/// Words after which a sentence says the opposite.
const NEGATIONS: &[&str] = &[
    "not",
    "no",
    "never",
    "without",
    "unsupported",
    "untested",
    "except",
    "lacks",
    "lack",
    "missing",
    "neither",
    "nor",
    "cannot",
];
/// What it is good to be without, one or many: `no extra steps`, `without any problems`. Words may stand before it.
const BURDENS: &str = "caveat change configuration doubt effort emulation error failure flag issue limitation modification \
                       need patch problem restriction setup step trouble";
const BEFORE_BURDENS: &[&str] =
    &["any", "extra", "further", "additional", "special", "known", "more", "manual", "major"];
/// What people call machines, in small letters.
const MACHINES: &[(&str, &str)] = &[
    ("ibm z", "s390x"),
    ("linuxone", "s390x"),
    ("ibm power", "ppc64le"),
    ("power9", "ppc64le"),
    ("power10", "ppc64le"),
];
/// Names that are words of their own: they count only behind `linux/`.
const WORDS: &[&str] = &["arm", "386", "x86", "i386"];

/// Everything that `text`, the content of a file called `name`, says. In YAML only the annotation says something, in
/// a document also sentences; commands and code are examples and say nothing.
pub(crate) fn mentions(name: &str, text: &str) -> Vec<Mention> {
    let lower = name.to_lowercase();
    let yaml = lower.ends_with(".yaml") || lower.ends_with(".yml");
    let (mut fenced, mut heading, mut found) = (false, String::new(), Vec::new());
    // The column of an annotation whose value goes on below it.
    let mut open: Option<usize> = None;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let column = line.len() - trimmed.len();
        let goes_on = open.is_some_and(|of| trimmed.is_empty() || column > of);
        open = open.filter(|_| goes_on);
        if !yaml && (trimmed.starts_with("```") || trimmed.starts_with("~~~")) {
            fenced = !fenced;
            continue;
        }
        if !yaml && !fenced && trimmed.starts_with('#') {
            heading = trimmed.trim_start_matches('#').trim().to_owned();
        }
        let mention = |kind, platform| Mention {
            line: index + 1,
            text: line.trim().to_owned(),
            heading: heading.clone(),
            kind,
            platform,
        };
        if let Some(value) = annotation(line) {
            open = ((yaml || fenced) && is_open(value)).then_some(column);
            found.extend(annotated(scalar(value)).into_iter().map(|platform| mention(ClaimKind::Annotation, platform)));
        } else if open.is_some() {
            let value = if trimmed.starts_with('#') { "" } else { trimmed.trim_start_matches("- ") };
            let new = annotated(value).into_iter().map(|platform| mention(ClaimKind::Annotation, platform));
            found.extend(new);
        } else if !yaml && !fenced {
            // What stands under 'Unsupported platforms' is no promise.
            let all = if negated(&heading) && !trimmed.starts_with('#') {
                Vec::new()
            } else {
                sentences(&without_code(line))
            };
            let said = all.into_iter().filter(|sentence| !negated(sentence));
            let mut all: Vec<Platform> = Vec::new();
            for platform in said.flat_map(|sentence| platforms(&sentence)) {
                if !all.contains(&platform) {
                    all.push(platform);
                }
            }
            found.extend(all.into_iter().map(|platform| mention(ClaimKind::Prose, platform)));
        }
    }
    found
}

fn annotation(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(ANNOTATION)?;
    let rest = rest.trim_start_matches(['"', '\'']).trim_start();
    let value = rest.strip_prefix(':')?;
    Some(value.split(" #").next().unwrap_or(value).trim())
}

/// Whether a value of YAML goes on in the lines below: a block, a list, or what is not closed yet.
fn is_open(value: &str) -> bool {
    let quoted = |quote: char| value.starts_with(quote) && (value.len() == 1 || !value.ends_with(quote));
    value.is_empty()
        || value.starts_with(['|', '>'])
        || value.ends_with(',')
        || quoted('"')
        || quoted('\'')
        || (value.starts_with('[') && !value.ends_with(']'))
}

/// What of it stands in the first line: of a block only how it is folded.
fn scalar(value: &str) -> &str {
    if value.starts_with(['|', '>']) { "" } else { value.trim_matches(['"', '\'']) }
}

/// Every platform that an annotation promises. What we do not know is promised as well: nothing shows it.
fn annotated(value: &str) -> Vec<Platform> {
    let mut found: Vec<Platform> = Vec::new();
    let entries = value.split([',', ' ', '[', ']', '"', '\'']).filter(|entry| entry.contains(char::is_alphanumeric));
    for entry in entries.take(MAX_ANNOTATED) {
        let lower = entry.to_lowercase();
        let parts: Vec<_> = lower.splitn(3, '/').collect();
        let platform = match parts[..] {
            [arch] => bare(arch).unwrap_or_else(|| Platform::from_parts("linux", arch, None, None)),
            [os, arch] => Platform::from_parts(os, arch, None, None),
            _ => Platform::from_parts(parts[0], parts[1], Some(parts[2]), None),
        };
        // It stands in the answer as it is.
        let shown = is_plain(&platform) && entry.len() <= 40;
        let platform = if shown { platform } else { Platform::from_parts("linux", "unknown", None, None) };
        if !found.contains(&platform) {
            found.push(platform);
        }
    }
    found
}

/// A command in a line shows how something is called, not that it works.
fn without_code(line: &str) -> String {
    let mut plain = String::new();
    for (index, part) in line.split('`').enumerate() {
        let is_command = part.contains("--") || part.contains(' ');
        if index % 2 == 0 || !is_command {
            plain.push_str(part);
        }
    }
    plain
}

fn sentences(line: &str) -> Vec<String> {
    line.split([';', '!', '?'])
        .flat_map(|part| part.split(". "))
        .flat_map(|part| part.split(" but "))
        .map(String::from)
        .collect()
}

fn negated(sentence: &str) -> bool {
    let words = sentence.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(str::to_lowercase).collect();
    let is_negation = |(place, word): (usize, &String)| {
        let mut after = words[place + 1..].iter().skip_while(|word| BEFORE_BURDENS.contains(&word.as_str()));
        match word.as_str() {
            "no" | "without" => !after.next().is_some_and(|word| is_burden(word)),
            "not" => after.next().is_none_or(|word| word != "only"),
            word => NEGATIONS.contains(&word) || word.ends_with("n't"),
        }
    };
    words.iter().enumerate().any(is_negation)
}

fn is_burden(word: &str) -> bool {
    let one = word.strip_suffix('s').unwrap_or(word);
    BURDENS.split_whitespace().any(|burden| burden == one)
}

/// The platforms that are named, each once, in order.
fn platforms(text: &str) -> Vec<Platform> {
    let mut found: Vec<Platform> = Vec::new();
    let mut add = |platform: Platform| {
        if !found.contains(&platform) {
            found.push(platform);
        }
    };
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '/' | '_' | '.' | '-' | ':');
    for word in text.split(|c| !is_part(c)) {
        let word = word.trim_matches(['.', '-', ':', '/']).to_lowercase();
        // `amd64/arm64/s390x` are three names, `linux/arm64/v8` is one.
        if word.starts_with("linux/") || word.starts_with("windows/") {
            if let Some(platform) = word.parse::<Platform>().ok().filter(|platform| platform.row().is_ok()) {
                add(platform);
            }
            continue;
        }
        word.split('/').filter_map(bare).for_each(&mut add);
    }
    let lower = text.to_lowercase();
    for (_, go) in MACHINES.iter().filter(|(name, _)| lower.contains(name)) {
        add(Platform::from_parts("linux", go, None, None));
    }
    found
}

fn bare(word: &str) -> Option<Platform> {
    // `linux-s390x` and `tkn_Linux_aarch64` name it as well.
    let word = word.rsplit(['-', '_']).next().filter(|last| *last != "64").unwrap_or(word);
    if WORDS.contains(&word) {
        return None;
    }
    let known = ARCHES.iter().find(|arch| [arch.go, arch.uname, arch.debian].contains(&word))?;
    Some(Platform::from_parts("linux", known.go, None, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(file: &str, text: &str) -> Vec<String> {
        mentions(file, text).iter().map(|mention| format!("{}:{}", mention.line, mention.platform)).collect()
    }

    #[test]
    fn sentences_that_say_something() {
        assert_eq!(
            names("README.md", "Supported: amd64, arm64 and s390x."),
            ["1:linux/amd64", "1:linux/arm64", "1:linux/s390x"]
        );
        assert_eq!(names("x.md", "| linux/ppc64le | yes |\n"), ["1:linux/ppc64le"]);
        assert_eq!(
            names("x.md", "Runs on x86_64/aarch64 and on IBM Z."),
            ["1:linux/amd64", "1:linux/arm64", "1:linux/s390x"]
        );
        assert_eq!(names("x.md", "download `tkn_Linux_s390x.tar.gz` for linux/arm/v6"), ["1:linux/arm/v6"]);
        assert_eq!(names("x.md", "`linux/s390x` works"), ["1:linux/s390x"]);
    }

    #[test]
    fn what_says_nothing_or_the_opposite() {
        for text in [
            "s390x is not supported.",
            "Raise your arm; 386 apples.",
            "```\nko build --platform linux/s390x\n```",
            "run `ko build --platform linux/s390x`",
            "There is no image for ppc64le",
            "It doesn't work on s390x",
        ] {
            assert!(names("x.md", text).is_empty(), "{text}: {:?}", names("x.md", text));
        }
        assert_eq!(names("x.md", "amd64 works, but s390x does not"), ["1:linux/amd64"]);
        let list = "## Unsupported platforms\n\n- s390x\n- ppc64le\n\n## Supported platforms\n\n- amd64\n";
        assert_eq!(names("x.md", list), ["8:linux/amd64"]);
    }

    #[test]
    fn what_is_good_to_be_without_is_no_denial() {
        for text in [
            "s390x is supported, no extra steps are needed.",
            "It runs on s390x without problems.",
            "It runs on s390x without any known issues",
            "Not only amd64 and s390x are supported",
        ] {
            assert!(names("x.md", text).contains(&"1:linux/s390x".to_owned()), "{text}");
        }
        for text in ["no further support for s390x", "no longer on s390x", "s390x: without images", "s390x is untested"]
        {
            assert!(names("x.md", text).is_empty(), "{text}");
        }
    }

    #[test]
    fn annotations_may_go_on_below() {
        for value in [">-\n    linux/amd64,\n    linux/s390x\n", "\n    - linux/amd64\n    - linux/s390x\n"] {
            let yaml = format!("  tekton.dev/platforms: {value}  other: linux/arm64\nspec:\n    linux/ppc64le: x\n");
            assert_eq!(names("t.yaml", &yaml), ["2:linux/amd64", "3:linux/s390x"], "{yaml}");
        }
        let quoted = "  tekton.dev/platforms: \"linux/amd64,\n    linux/s390x\"\n  x: y\n";
        assert_eq!(names("t.yaml", quoted), ["1:linux/amd64", "2:linux/s390x"]);
        let fenced = "```yaml\ntekton.dev/platforms: |\n  linux/amd64\n```\nand s390x\n";
        assert_eq!(names("x.md", fenced), ["3:linux/amd64", "5:linux/s390x"]);
    }

    #[test]
    fn annotations_in_yaml() {
        let yaml =
            "metadata:\n  annotations:\n    tekton.dev/platforms: \"linux/amd64,linux/s390x\"  # s390x\n# arm64\n";
        let found = mentions("task.yaml", yaml);
        assert_eq!(names("task.yaml", yaml), ["3:linux/amd64", "3:linux/s390x"]);
        assert!(found.iter().all(|mention| mention.kind == ClaimKind::Annotation));
        assert_eq!(names("t.yml", "  'tekton.dev/platforms': linux/ppc64le"), ["1:linux/ppc64le"]);
        // What no table of ours knows is promised all the same.
        assert_eq!(
            names("t.yml", "  tekton.dev/platforms: \"linux/amd64,linux/mips, plan9/386,vax,linux/arm/v6,arm\""),
            ["1:linux/amd64", "1:linux/mips", "1:plan9/386", "1:linux/vax", "1:linux/arm/v6", "1:linux/arm/v7"]
        );
        assert_eq!(names("t.yml", "tekton.dev/platforms: linux/\u{202e}s"), ["1:linux/unknown"]);
    }
}
