//! What people see of verified images.

use kit::{
    Cause, Class, Error,
    record::{Image, PlatformRow, Unseen},
    ui,
};

/// One line for each image and platform; what the index says and the bases only where there are any.
pub(crate) fn table(images: &[Image]) -> String {
    let head = ["IMAGE", "PLATFORM", "INDEX", "CONFIG", "PROGRAM", "USER", "BASE", "SIZE", "VERDICT"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for image in images {
        for row in &image.platforms {
            rows.push(cells(&image.name, row));
        }
    }
    let none = |said: fn(&PlatformRow) -> bool| !images.iter().flat_map(|image| &image.platforms).any(said);
    for (column, nothing) in [(6, none(|row| row.base.is_some())), (2, none(|row| row.entry.is_some()))] {
        if nothing {
            rows.iter_mut().for_each(|cells| drop(cells.remove(column)));
        }
    }
    ui::printable(&ui::table(&rows))
}

/// One line for each stand-in, when nothing is wrong with them.
pub(crate) fn stand_ins(images: &[Image]) -> String {
    let mut rows = vec![["IMAGE", "STAND-IN", "PLATFORMS"].map(String::from).to_vec()];
    for image in images {
        let platforms: Vec<_> = image.platforms.iter().map(|row| row.platform.to_string()).collect();
        rows.push(vec![short(&image.name), short(&image.reference), platforms.join(" ")]);
    }
    ui::printable(&ui::table(&rows))
}

fn cells(name: &str, row: &PlatformRow) -> Vec<String> {
    let dash = || "-".to_owned();
    let program = row.program.as_ref().map_or_else(dash, |program| {
        let order = if program.byte_order == kit::arch::ByteOrder::Big { "BE" } else { "LE" };
        let deep = row.deep.as_ref().map_or_else(String::new, |deep| format!(" (1 of {})", deep.programs));
        format!("{} {} {}{order}{deep}", program.format, program.machine, program.class)
    });
    let base = row.base.as_deref().map(|base| short(base.rsplit_once('/').map_or(base, |(_, name)| name)));
    let text = vec![
        short(name),
        row.platform.to_string(),
        row.entry.as_ref().map_or_else(dash, ToString::to_string),
        row.config.as_ref().map_or_else(dash, ToString::to_string),
        program,
        if row.config.is_some() { user(row) } else { dash() },
        base.unwrap_or_else(dash),
        if row.size == 0 { dash() } else { format!("{:.1} MB", row.size as f64 / 1e6) },
        row.problem.as_ref().map_or_else(|| good(row).into(), |problem| format!("WRONG: {problem}")),
    ];
    // One row is one line, whatever an image calls itself.
    text.into_iter().map(|cell| cell.replace(['\n', '\t'], " ")).collect()
}

/// How much is good about a row without a problem.
fn good(row: &PlatformRow) -> &'static str {
    match (row.unseen, &row.program) {
        (Some(Unseen::Program), _) => "ok, program not looked at",
        (_, None) => "ok, no program",
        _ => "ok",
    }
}

/// The user as the config has it, and its number where that says more.
fn user(row: &PlatformRow) -> String {
    let name = row.user.clone().unwrap_or_else(|| "root".into());
    match (row.nonroot, row.uid) {
        (Some(false), _) if name != "root" => format!("{name} (root)"),
        (None, _) if row.user.is_some() => format!("{name} (a name)"),
        (Some(true), Some(uid)) if !name.starts_with(|c: char| c.is_ascii_digit()) => format!("{name} ({uid})"),
        _ if row.user.is_none() && row.nonroot.is_none() => "-".into(),
        _ => name,
    }
}

/// A name short enough for a table: the digest is cut.
pub(crate) fn short(name: &str) -> String {
    match name.split_once("@sha256:") {
        Some((path, digest)) => format!("{path}@{}", digest.get(..12).unwrap_or(digest)),
        None => name.to_owned(),
    }
}

/// One error for everything that is wrong with images, if anything is; the product outranks the machine.
pub(crate) fn problems(images: &[Image]) -> Option<Error> {
    let mut found: Vec<(Cause, String)> = Vec::new();
    for image in images {
        for row in &image.platforms {
            if let Some(problem) = &row.problem {
                let line = format!("{} {}: {problem}", image.name, row.platform);
                found.push((row.cause.unwrap_or(Cause::Unclassified), line));
            }
        }
    }
    let rank = |cause: Cause| match cause.class() {
        Class::Product => 0,
        Class::Unknown => 1,
        _ => 2,
    };
    let (cause, first) = found.iter().min_by_key(|(cause, _)| rank(*cause))?;
    let lines: Vec<_> = found.iter().map(|(cause, line)| format!("{cause}: {line}")).collect();
    let error = Error::new(*cause, first.clone());
    Some(if lines.len() > 1 { error.line(lines.join("\n")) } else { error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_line_and_says_who_runs() {
        let row = |user: Option<&str>, uid: Option<u32>, nonroot| PlatformRow {
            config: Some("linux/arm64".parse().unwrap()),
            user: user.map(String::from),
            uid,
            nonroot,
            base: Some(format!("e.com/x/static:v1@sha256:{}", "a".repeat(64))),
            problem: Some("its\nfault\u{1b}[2J".into()),
            ..PlatformRow::new("linux/arm64".parse().unwrap())
        };
        for (row, said) in [
            (row(None, Some(0), Some(false)), " root "),
            (row(Some("0"), Some(0), Some(false)), " 0 (root) "),
            (row(Some("git"), None, None), " git (a name) "),
            (row(Some("git"), Some(1000), Some(true)), " git (1000) "),
            (row(Some("65532:65532"), Some(65532), Some(true)), " 65532:65532 "),
        ] {
            let image = Image {
                name: "e.com/a/b".into(),
                kind: kit::record::ImageKind::Referenced,
                reference: String::new(),
                digest: None,
                base: None,
                platforms: vec![row],
            };
            let text = table(&[image]);
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(
                text.contains(said) && text.contains("static:v1@aaaaaaaaaaaa") && !text.contains('\u{1b}'),
                "{text}"
            );
        }
    }
}
