//! `claims`: what documents say of architectures, held against the evidence.

use std::path::{Path, PathBuf};

use clap::Args;
use kit::{Cause, Done, Error, Output, Result, Ui, rundir};

use super::{
    Input, Which,
    mentions::{Mention, mentions},
    of_origin, parse_origin, worth,
};
use crate::{
    model::{Cell, ClaimFound, ClaimKind, Listing, Matrix, OriginKind},
    policy::SUPPORTED,
    text::{clean, clip, short},
};

/// Bytes of a document.
const MAX_FILE: u64 = 16 << 20;
/// Files in folders.
const MAX_FILES: usize = 20_000;
/// What is looked at in a folder.
const ENDINGS: [&str; 5] = ["md", "markdown", "txt", "yaml", "yml"];

/// Finds what documents and annotations say of architectures, and says what has no evidence.
#[derive(Debug, Args)]
pub struct Claims {
    /// Documents, release notes, YAML with the annotation tekton.dev/platforms; folders with all of these below
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What they are about, as pipeline or pipeline@v1.9.0 [default: the components that line, heading or path name;
    /// otherwise it is enough if one of all has the evidence]
    #[arg(long, value_name = "COMPONENT[@VERSION]")]
    component: Option<Which>,
    /// What each of them requires, a level of ci/policy.toml [default: 'supported' where line or heading speak of
    /// support, 'tested' for tests and annotations, otherwise 'available']
    #[arg(long, value_name = "LEVEL")]
    requires: Option<String>,
    /// Only images of this origin: published, built-here or unknown [default: published where somebody looked at the
    /// release that its project published, otherwise any]
    #[arg(long, value_name = "ORIGIN", value_parser = parse_origin)]
    origin: Option<OriginKind>,
    #[command(flatten)]
    input: Input,
}

pub(crate) fn claims(args: &Claims, ui: &Ui) -> Result<Done> {
    let opened = args.input.open(false, ui)?;
    let levels: Vec<_> = opened.rules.policy.level.iter().map(|level| level.name.clone()).collect();
    if let Some(unknown) = args.requires.as_ref().filter(|wanted| !levels.contains(wanted)) {
        let error = Error::new(Cause::Usage, format!("ci/policy.toml knows no level '{unknown}'"));
        return Err(error.next(format!("levels: {}", levels.join(", "))));
    }
    let files = files(&args.files)?;
    let matrix = opened.matrix(ui)?;
    let mut found = Vec::new();
    for file in &files {
        let text = rundir::read_limited(file, MAX_FILE)?;
        let text = String::from_utf8_lossy(&text);
        let name = file.display().to_string();
        found.extend(mentions(&name, &text).iter().map(|mention| check(args, &levels, &matrix, &name, mention)));
    }
    let all_shown = found.iter().all(|claim| claim.shown);
    match ui.output {
        Output::Json => ui.json(&Listing::new(found))?,
        Output::Text => ui.result(&words(&found, files.len()))?,
    }
    Ok(if all_shown { Done::good() } else { Done::found(Cause::PolicyRefused) })
}

fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        if path.is_dir() {
            below(path, 0, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn below(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    use kit::Context;
    let read = || -> std::io::Result<Vec<std::fs::DirEntry>> { std::fs::read_dir(folder)?.collect() };
    let mut entries = read().cause(Cause::Usage, || format!("cannot read {}", folder.display()))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        kit::signal::check()?;
        let (path, kind) = (entry.path(), entry.file_type());
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
        // Links are not followed: they may lead anywhere, and in circles.
        match kind {
            Ok(kind) if kind.is_dir() && !hidden && depth < 32 => below(&path, depth + 1, files)?,
            Ok(kind) if kind.is_file() && ENDINGS.contains(&ending.as_str()) => files.push(path),
            _ => {}
        }
        if files.len() > MAX_FILES {
            return Err(Error::new(Cause::Usage, format!("more than {MAX_FILES} documents"))
                .next("name files, or folders with fewer"));
        }
    }
    Ok(())
}

fn check(args: &Claims, levels: &[String], matrix: &Matrix, file: &str, mention: &Mention) -> ClaimFound {
    let wanted = args.requires.clone().unwrap_or_else(|| requires(mention));
    let wanted = if levels.contains(&wanted) { wanted } else { SUPPORTED.into() };
    let which = args.component.clone().map_or_else(|| about(matrix, file, mention), |which| vec![which]);
    let components = which.iter().map(|which| clean(&which.to_string())).collect();
    let mut cells: Vec<Vec<&Cell>> = if which.is_empty() {
        vec![matrix.cells.iter().collect()]
    } else {
        which.iter().map(|which| which.cells(matrix)).collect()
    };
    cells.iter_mut().for_each(|cells| of_origin(cells, args.origin));
    let met = |cell: &Cell| cell.claims.iter().any(|claim| claim.name == wanted && claim.met);
    // Every component that is named has to have it.
    let best = cells.iter().map(|cells| {
        let here = cells.iter().copied().filter(|cell| cell.platform == mention.platform);
        here.max_by_key(|cell| (met(cell), worth(cell)))
    });
    let worst = best.min_by_key(|cell| cell.map(|cell| (met(cell), worth(cell)))).flatten();
    let (shown, why) = match worst {
        None => (false, format!("no run says anything of {}", mention.platform)),
        Some(cell) if met(cell) => {
            let evidence = cell.tested.evidence.as_ref().or(cell.available.evidence.as_ref());
            (true, format!("{}; evidence {}", cell.reason, evidence.map_or("-".into(), |digest| short(digest))))
        }
        Some(cell) => {
            let missing = cell.claims.iter().find(|claim| claim.name == wanted).map(|claim| claim.reasons.join("; "));
            (false, format!("it is {}: {}", cell.state_words, missing.unwrap_or_default()))
        }
    };
    ClaimFound {
        file: clean(file),
        line: mention.line,
        text: clip(&clean(&mention.text), 160),
        kind: mention.kind,
        platform: mention.platform.clone(),
        components,
        requires: wanted,
        shown,
        why,
        cell: worst.map(|cell| cell.id.clone()),
    }
}

fn requires(mention: &Mention) -> String {
    let said = format!("{} {}", mention.text, mention.heading).to_lowercase();
    let words: Vec<_> = said.split(|c: char| !c.is_alphanumeric()).collect();
    // 'latest' is no test.
    let says = |all: &[&str]| words.iter().any(|word| all.contains(word));
    let level = match mention.kind {
        ClaimKind::Annotation => "tested",
        ClaimKind::Prose if says(&["support", "supports", "supported", "supporting"]) => SUPPORTED,
        ClaimKind::Prose if says(&["test", "tests", "tested", "testing"]) => "tested",
        ClaimKind::Prose => "available",
    };
    level.into()
}

/// The components that the line names, or its heading, or the file's path.
fn about(matrix: &Matrix, file: &str, mention: &Mention) -> Vec<Which> {
    let known: std::collections::BTreeSet<&str> = matrix.cells.iter().map(|cell| cell.component.as_str()).collect();
    let named = |text: &str| -> Vec<Which> {
        let lower = text.to_lowercase();
        let words: Vec<_> = lower.split(|c: char| !c.is_alphanumeric() && c != '-').collect();
        let has = |name: &&&str| words.iter().any(|word| *word == **name || word.strip_suffix('s') == Some(**name));
        known.iter().filter(has).map(|name| Which { component: (*name).to_owned(), version: None }).collect()
    };
    let tries = [mention.text.as_str(), &mention.heading, file];
    tries.iter().map(|text| named(text)).find(|found| !found.is_empty()).unwrap_or_default()
}

fn words(found: &[ClaimFound], files: usize) -> String {
    let mut text = String::new();
    for claim in found {
        let mark = if claim.shown { "shown " } else { "NO EVIDENCE" };
        text.push_str(&format!(
            "{}:{}: {} {} of {}: {}\n    {}\n",
            claim.file,
            claim.line,
            mark.trim(),
            claim.platform,
            if claim.components.is_empty() { "any component".into() } else { claim.components.join(", ") },
            claim.requires,
            claim.why
        ));
    }
    let missing = found.iter().filter(|claim| !claim.shown).count();
    text.push_str(&format!(
        "{} in {}, {missing} without evidence\n",
        crate::text::many(found.len(), "claim"),
        crate::text::many(files, "file")
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole_words() {
        let level = |text: &str, heading: &str| {
            requires(&Mention {
                line: 1,
                text: text.into(),
                heading: heading.into(),
                kind: ClaimKind::Prose,
                platform: "linux/s390x".parse().unwrap(),
            })
        };
        assert_eq!(level("the latest images are for s390x", "Download"), "available");
        assert_eq!(level("s390x", "Tested on"), "tested");
        assert_eq!(level("s390x (tested)", "Supported platforms"), "supported");
    }
}
