//! The tag that a base named by digest once had.

use std::{collections::BTreeMap, sync::LazyLock};

use regex::Regex;

/// Where a layout or a registry may note an image's name (image-spec, annotations.md).
const ANNOTATIONS: &[&str] = &["org.opencontainers.image.ref.name", "org.opencontainers.image.version"];

/// The tag in the reference, in a comment behind it in ko's configuration, or in an annotation; nothing for a
/// reference without a digest, which always is what its tag names.
pub(super) fn tag(reference: &str, text: &str, annotations: &BTreeMap<String, String>) -> Option<String> {
    let (name, _) = reference.split_once('@')?;
    let last = name.rsplit('/').next().unwrap_or(name);
    if let Some((_, tag)) = last.split_once(':') {
        return Some(tag.to_owned());
    }
    comment(name, reference, text).or_else(|| {
        let noted = ANNOTATIONS.iter().find_map(|name| annotations.get(*name));
        noted.filter(|tag| is_tag(tag)).cloned()
    })
}

/// `NAME@sha256:… # TAG`, also `# :TAG`, `# tag: TAG` and `# NAME:TAG`.
fn comment(name: &str, reference: &str, text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(reference)?;
        let comment = rest.trim_start_matches(['"', '\'']).trim().strip_prefix('#')?.trim();
        let comment = comment.strip_prefix(name).unwrap_or(comment);
        let comment =
            comment.strip_prefix("tag").map_or(comment, |rest| if rest.starts_with(':') { rest } else { comment });
        let tag = comment.trim_start_matches(':').trim();
        is_tag(tag).then(|| tag.to_owned())
    })
}

/// What a tag may be (distribution-spec, "Pulling manifests").
fn is_tag(text: &str) -> bool {
    static TAG: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$").expect("it is constant"));
    TAG.is_match(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_where_people_leave_it() {
        let none = BTreeMap::new();
        let digest = format!("r.io:5000/a/b@sha256:{}", "0".repeat(64));
        let tagged = digest.replace("/b@", "/b:v1@");
        assert_eq!(tag(&tagged, "", &none).unwrap(), "v1");
        assert_eq!(tag("r.io:5000/a/b:v1", "r.io:5000/a/b:v1 # v2", &none), None);
        assert_eq!(tag(&digest, "", &none), None);
        for (comment, wanted) in [
            ("# v1.2", Some("v1.2")),
            ("#latest", Some("latest")),
            ("# tag: nonroot", Some("nonroot")),
            ("# :nonroot", Some("nonroot")),
            ("# r.io:5000/a/b:3", Some("3")),
            ("# tag-x", Some("tag-x")),
            ("# keep this as it is", None),
            ("", None),
        ] {
            for quote in ["", "\"", "'"] {
                let text = format!("x: y # no\ndefaultBaseImage: {quote}{digest}{quote} {comment}\n");
                assert_eq!(tag(&digest, &text, &none).as_deref(), wanted, "{text}");
            }
        }
        let noted = |value: &str| [(ANNOTATIONS[0].to_owned(), value.to_owned())].into();
        assert_eq!(tag(&digest, "", &noted("edge")).unwrap(), "edge");
        assert_eq!(tag(&digest, "", &noted("no tag at all")), None);
    }
}
