//! What people see of verified images.

use kit::{
    Cause, Class, Error,
    record::{Image, PlatformRow},
    ui,
};

/// One line for each image and platform.
pub(crate) fn table(images: &[Image]) -> String {
    let head = ["IMAGE", "PLATFORM", "CONFIG", "PROGRAM", "USER", "SIZE", "VERDICT"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for image in images {
        for row in &image.platforms {
            rows.push(cells(&image.name, row));
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
        format!("{} {} {}{order}", program.format, program.machine, program.class)
    });
    vec![
        short(name),
        row.platform.to_string(),
        row.config.as_ref().map_or_else(dash, ToString::to_string),
        program,
        row.user.clone().unwrap_or_else(|| "root".into()),
        if row.size == 0 { dash() } else { format!("{:.1} MB", row.size as f64 / 1e6) },
        row.problem.as_ref().map_or_else(|| "ok".into(), |problem| format!("WRONG: {problem}")),
    ]
}

/// A name short enough for a table: the digest is cut.
fn short(name: &str) -> String {
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
