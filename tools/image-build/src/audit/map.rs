//! What an audit found as entries of an image map, which tests and builds go by.

use std::{collections::BTreeMap, fmt::Write};

use kit::Platform;

use super::{Replacement, Row, Verdict};

/// An `[[image]]` for each image that something stands in for, that nothing runs, or that lacks a platform; those that
/// nobody could look at as comments. Of `platforms` an image has those that it does not lack.
pub(super) fn entries(rows: &[Row], platforms: &[Platform]) -> String {
    let mut named: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        named.entry(&row.name).or_default().push(row);
    }
    let mut text = String::from("# Written by image-build audit.\n");
    for (name, rows) in named {
        let row = rows[0];
        let where_named = || rows.iter().map(|row| format!("# {}:{}\n", row.file, row.line)).collect::<String>();
        let name = toml(name);
        let entry = match (&row.replacement, row.verdict) {
            (_, Verdict::Ok) => continue,
            (_, Verdict::Unreachable) => {
                let note = row.note.as_deref().unwrap_or_default().replace(['\n', '\r'], " ");
                format!("# {name} could not be looked at: {note}\n")
            }
            (Some(Replacement { build: Some(build), .. }), _) => {
                format!("[[image]]\nnames = [{name}]\nbuild = {}\n", toml(build))
            }
            (Some(Replacement { unused: Some(reason), .. }), _) => {
                format!("[[image]]\nnames = [{name}]\nunused = {}\n", toml(reason))
            }
            _ => {
                let has: Vec<_> = platforms.iter().filter(|platform| !row.missing.contains(platform)).collect();
                let has: Vec<_> = has.iter().map(|platform| toml(&platform.to_string())).collect();
                match has.is_empty() {
                    true => format!("[[image]]\nnames = [{name}]\nunused = \"it has none of the platforms\"\n"),
                    false => format!("[[image]]\nnames = [{name}]\nplatforms = [{}]\n", has.join(", ")),
                }
            }
        };
        let _ = write!(text, "\n{}{entry}", where_named());
    }
    text
}

/// A string of TOML: what is escaped in JSON is so there, too.
fn toml(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
