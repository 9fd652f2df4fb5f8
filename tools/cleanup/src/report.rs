//! What people and programs get to read.

use kit::{
    Output, Result, Ui,
    record::{Cleanup, Difference, ObjectKey},
    ui::printable,
};
use serde_json::{Value, json};

use crate::{
    order::{Plan, Stage},
    scene::Before,
};

/// A difference: `+` added, `-` missing, `~` changed.
///
/// # Errors
/// If standard output is closed.
pub(crate) fn difference(difference: &Difference, ui: &Ui) -> Result<()> {
    match ui.output {
        Output::Json => ui.json(difference),
        Output::Text => ui.result(&printable(&text(difference))),
    }
}

fn text(difference: &Difference) -> String {
    if difference.is_empty() {
        return "at the baseline: nothing added, missing or changed".into();
    }
    let lines = |sign: char, keys: &[ObjectKey]| keys.iter().map(|key| format!("{sign} {key}\n")).collect::<String>();
    let Difference { added, missing, changed } = difference;
    let counts = format!("{} added, {} missing, {} changed", added.len(), missing.len(), changed.len());
    [lines('+', added), lines('-', missing), lines('~', changed), counts].concat()
}

/// What could not be looked at.
pub(crate) fn unproven(unproven: &[String], ui: &Ui) {
    for what in unproven {
        ui.warn(printable(&format!("cannot be listed, so nothing is proven of it: {what}")));
    }
}

/// What cleanup would do.
///
/// # Errors
/// If standard output is closed.
pub(crate) fn plan(plan: &Plan<'_>, difference: &Difference, before: &Before, ui: &Ui) -> Result<()> {
    let mut rows: Vec<(String, ObjectKey)> = Vec::new();
    for (stage, batches) in &plan.stages {
        let keys = batches.values().flatten().map(|object| (format!("delete: {}", stage.name()), object.key.clone()));
        rows.extend(keys);
        if *stage == Stage::Workloads || (*stage == Stage::Tests && !plan.stages.contains_key(&Stage::Workloads)) {
            rows.extend(
                plan.with_namespace.iter().map(|object| ("goes with its namespace".into(), object.key.clone())),
            );
        }
    }
    let possible = |key: &ObjectKey, what: &str| {
        let why = before.object(key).and_then(crate::restore::impossible);
        why.map_or_else(|| what.to_owned(), |why| format!("stays as it is: {why}"))
    };
    rows.extend(difference.missing.iter().map(|key| (possible(key, "create again"), key.clone())));
    rows.extend(difference.changed.iter().map(|key| (possible(key, "put back"), key.clone())));
    rows.extend(plan.never.iter().map(|object| ("stays as it is: protected".into(), object.key.clone())));
    if ui.output == Output::Json {
        let rows: Vec<Value> = rows.iter().map(|(what, key)| json!({"action": what, "object": key})).collect();
        return ui.json(&rows);
    }
    let lines: Vec<_> = rows.iter().map(|(what, key)| format!("{key}  ({what})")).collect();
    ui.result(&printable(&if lines.is_empty() { "nothing to do: at the baseline".into() } else { lines.join("\n") }))
}

/// The record of a cleanup.
///
/// # Errors
/// If standard output is closed.
pub(crate) fn cleanup(record: &Cleanup, ui: &Ui) -> Result<()> {
    if ui.output == Output::Json {
        return ui.json(record);
    }
    let deleted: usize = record.deleted.values().sum();
    let mut kinds: Vec<_> = record.deleted.iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let mut lines =
        vec![format!("deleted: {deleted} ({})", if kinds.is_empty() { "nothing".into() } else { kinds.join(", ") })];
    let list = |name: &str, keys: &[ObjectKey]| keys.iter().map(|key| format!("{name}: {key}")).collect::<Vec<_>>();
    lines.extend(list("put back", &record.restored));
    lines.extend(list("finalizers removed by force", &record.forced));
    lines.push(format!("stage: {}", record.stage));
    lines.push(text(&record.difference));
    ui.result(&printable(&lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::object;

    #[test]
    fn a_difference_reads_like_a_diff() {
        let key = |id: &str| object(id, "1").key;
        let difference = Difference {
            added: vec![key("Namespace.v1 test")],
            missing: vec![key("ConfigMap.v1 a/m")],
            changed: vec![key("ConfigMap.v1 a/c")],
        };
        assert_eq!(
            text(&difference),
            "+ Namespace.v1 test\n- ConfigMap.v1 a/m\n~ ConfigMap.v1 a/c\n1 added, 1 missing, 1 changed"
        );
        assert!(text(&Difference::default()).starts_with("at the baseline"));
    }
}
