//! What is derived from the code and checked in: the JSON Schemas. `cargo xtask check` compares.

use std::path::PathBuf;

use kit::{Cause, Context, Done, Result, Ui, rundir};

use crate::tools;

/// Every generated file with its content.
pub(crate) fn files() -> Result<Vec<(PathBuf, String)>> {
    let folder = tools::root().join("schemas");
    let text = |(name, schema)| {
        let text = serde_json::to_string_pretty(&schema).cause(Cause::Internal, || format!("schema {name}"))?;
        Ok((folder.join(format!("{name}.json")), text + "\n"))
    };
    kit::record::schemas().into_iter().chain(support_matrix::schemas()).map(text).collect()
}

pub(crate) fn run(ui: &Ui) -> Result<Done> {
    for (path, text) in files()? {
        if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            rundir::write(&path, text.as_bytes())?;
            ui.note(format!("wrote {}", path.display()));
        }
    }
    Ok(Done::good())
}

#[cfg(test)]
mod tests {
    #[test]
    fn generated_files_are_up_to_date() {
        for (path, text) in super::files().unwrap() {
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(found == text, "{} is not what the code says: run `cargo xtask generate`", path.display());
        }
    }
}
