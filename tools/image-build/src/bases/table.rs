//! What people see of bases.

use kit::ui;

use super::{Base, Newer, Row};
use crate::show::short;

/// One line for each base and platform, and what there is to say of each base as a whole.
pub(super) fn table(bases: &[Base]) -> String {
    let head = ["BASE", "PLATFORM", "AGE", "DISTRIBUTION", "END OF LIFE", "USER", "VERDICT"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let mut notes = Vec::new();
    for base in bases {
        let name = short(&base.reference);
        for row in &base.platforms {
            rows.push(cells(base, &name, row));
        }
        for missing in &base.missing {
            rows.push(empty(&name, &missing.to_string(), "MISSING"));
        }
        if let Some(problem) = base.problem.as_ref().filter(|_| base.missing.is_empty()) {
            rows.push(empty(&name, "-", &format!("WRONG: {}", problem.lines().next().unwrap_or_default())));
        }
        notes.push(format!("{name}: for {}", base.used_by.join(", ")));
        if base.plain {
            notes.push(format!("{name}: one image without an index"));
        }
        match &base.newer {
            Some(newer) => notes.push(format!("{name}: {}", said(base, newer))),
            None if base.reference.contains('@') && base.digest.is_some() => {
                notes.push(format!("{name}: its tag is not known, nor whether a newer one would lose a platform"));
            }
            None => {}
        }
    }
    ui::printable(&format!("{}{}\n", ui::table(&rows), notes.join("\n")))
}

fn empty(name: &str, platform: &str, verdict: &str) -> Vec<String> {
    [name, platform, "-", "-", "-", "-", verdict].map(String::from).to_vec()
}

fn cells(base: &Base, name: &str, row: &Row) -> Vec<String> {
    if let Some(problem) = &row.problem {
        return empty(name, &row.platform.to_string(), &format!("WRONG: {problem}"));
    }
    let unknown = || "unknown".to_owned();
    let age = match row.age_days {
        Some(1) => "1 day".into(),
        Some(days) => format!("{days} days"),
        None if base.made_here => "made here".into(),
        None => unknown(),
    };
    let distribution = row.distribution.as_ref();
    let user = match (&row.user, row.nonroot) {
        (_, Some(false)) => "root".into(),
        (Some(user), Some(true)) => format!("{user} (nonroot)"),
        (Some(user), None) => format!("{user} (a name)"),
        (None, _) => unknown(),
    };
    vec![
        name.to_owned(),
        row.platform.to_string(),
        age,
        distribution.map_or_else(unknown, ToString::to_string),
        distribution.map_or_else(unknown, super::distribution::Distribution::end_of_life),
        user,
        "ok".into(),
    ]
}

fn said(base: &Base, newer: &Newer) -> String {
    let tag = &newer.tag;
    if let Some(problem) = &newer.problem {
        return format!("what the tag {tag} names now is not known: {problem}");
    }
    if newer.digest == base.digest {
        return format!("the tag {tag} names the same");
    }
    let digest = newer.digest.as_deref().unwrap_or_default();
    let list = |platforms: &[kit::Platform]| platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut text = format!("the tag {tag} names {} now", digest.get(..19).unwrap_or(digest));
    for (how, platforms) in [("without", &newer.loses), ("also for", &newer.gains)] {
        if !platforms.is_empty() {
            text.push_str(&format!(", {how} {}", list(platforms)));
        }
    }
    text
}
