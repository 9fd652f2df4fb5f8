//! What people and programs get to read.

use std::collections::BTreeMap;

use kit::{
    Output, Result, Ui,
    record::{Cleanup, Difference, NodeContent, ObjectKey},
    ui::printable,
};
use serde_json::{Value, json};

use crate::{
    list::Object,
    order::{Plan, Stage},
    scene::Before,
};

/// What a cluster is like after a cleanup.
const AT_BASELINE: &str = "at the baseline: nothing added, missing or changed";

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
    let Difference { added, missing, changed, fields, nodes, unseen } = difference;
    let of = |key: &ObjectKey| fields.get(&key.to_string()).map(|fields| shortly(fields)).unwrap_or_default();
    let lines = |sign: char, keys: &[ObjectKey]| {
        keys.iter().map(|key| format!("{sign} {key}{}\n", of(key))).collect::<String>()
    };
    let nodes: String = nodes.iter().map(on_node).collect();
    let unseen: String =
        unseen.iter().map(|what| format!("  not compared, because the baseline could not see it: {what}\n")).collect();
    let counts = format!("{} added, {} missing, {} changed", added.len(), missing.len(), changed.len());
    let at_baseline = difference.is_empty().then(|| AT_BASELINE.to_owned());
    [lines('+', added), lines('-', missing), lines('~', changed), nodes, unseen, at_baseline.unwrap_or(counts)].concat()
}

/// The first names of fields, in brackets.
fn shortly(fields: &[String]) -> String {
    let more = if fields.len() > 5 { ", …" } else { "" };
    format!("  ({}{more})", fields.iter().take(5).cloned().collect::<Vec<_>>().join(", "))
}

/// What a node holds beyond the baseline: for information.
fn on_node(node: &NodeContent) -> String {
    let line = |what: &str, name: &String| format!("  node {}: {what} {name}\n", node.node);
    let images = node.images.iter().map(|name| line("image", name));
    let volumes = node.volumes.iter().map(|name| line("volume", name));
    images.chain(volumes).chain(node.orphans.iter().map(|name| line("pod known only to its kubelet", name))).collect()
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
pub(crate) fn plan(
    plan: &Plan<'_>,
    difference: &Difference,
    before: &Before,
    first: &dyn Fn(&Object) -> Option<String>,
    ui: &Ui,
) -> Result<()> {
    let mut rows: Vec<(String, ObjectKey)> = Vec::new();
    let all = || plan.stages.values().flat_map(BTreeMap::values).flatten();
    for (object, why) in all().filter_map(|object| Some((object, first(object)?))) {
        let what =
            if object.key.kind == "CustomResourceDefinition" { "stop its conversions first" } else { "delete first" };
        rows.push((format!("{what}: {why}"), object.key.clone()));
    }
    for (stage, batches) in &plan.stages {
        let keys = batches.values().flatten();
        // What goes first is named there; a definition loses its conversions first, and goes later.
        let later = keys.filter(|object| object.key.kind == "CustomResourceDefinition" || first(object).is_none());
        rows.extend(later.map(|object| (format!("delete: {}", stage.name()), object.key.clone())));
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
    lines.extend(record.recreated.iter().cloned());
    lines.push(format!("stage: {}", record.stage));
    let clean = record.difference.is_empty();
    lines.push(match record.selection.is_empty() {
        false if clean => {
            let unseen = &record.difference.unseen;
            let but = if unseen.is_empty() { String::new() } else { format!(" (but for {})", unseen.join(", ")) };
            format!("gone, all of it{but}: {}", record.selection.join(", "))
        }
        _ => text(&record.difference),
    });
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
            fields: [("ConfigMap.v1 a/c".to_owned(), vec!["data.flag".to_owned()])].into(),
            nodes: vec![],
            unseen: vec!["*.x.dev".into()],
        };
        assert_eq!(
            text(&difference),
            "+ Namespace.v1 test\n- ConfigMap.v1 a/m\n~ ConfigMap.v1 a/c  (data.flag)\n  \
             not compared, because the baseline could not see it: *.x.dev\n1 added, 1 missing, 1 changed"
        );
        let nodes = vec![NodeContent { node: "n1".into(), images: vec!["x:1".into()], ..NodeContent::default() }];
        let images = text(&Difference { nodes, ..Difference::default() });
        assert_eq!(images, format!("  node n1: image x:1\n{AT_BASELINE}"));
        assert!(text(&Difference::default()).starts_with("at the baseline"));
    }
}
