//! The matrix as a table for a terminal of 100 columns, and a cell with all its reasons.

use super::{OLDER, axes, basis, groups, infrastructure, last_test, older, reason, shared, title};
use crate::{
    model::{Cell, Claim, Level, Matrix, State, Verdict},
    text::{clip, day, list, many, short, when},
};

/// Columns that every terminal has, and documents and logs as well.
const WIDTH: usize = 100;
const HEADS: [&str; 6] = ["PLATFORM", "KUBERNETES", "STATE", "LAST TESTED", "PASSED", "SUPPORTED"];
/// Columns are cut to these widths; with two spaces between them they fill the line.
const WIDTHS: [usize; 6] = [15, 10, 30, 17, 9, 9];

/// The matrix as text; `colour` only where a terminal shows it.
pub(crate) fn terminal(matrix: &Matrix, colour: bool) -> String {
    let mut text = format!("Support matrix {}\n", basis(matrix));
    for cells in groups(matrix) {
        text.push_str(&format!("\n{}\n{}", title(&cells[0]), table(cells, colour)));
        // For these two axes a table of 100 columns has no room.
        for (platforms, axes) in shared(cells, axes) {
            text.push_str(&wrap(&format!("{platforms}: images {axes}")));
        }
        for (platforms, reason) in shared(cells, reason) {
            text.push_str(&wrap(&format!("{platforms}: {reason}")));
        }
    }
    let older = older(matrix);
    if !older.is_empty() {
        text.push_str(&format!("\nolder versions (--all shows them)\n{}", wrap(OLDER)));
        older.iter().for_each(|line| text.push_str(&wrap(line)));
    }
    let infrastructure = infrastructure(matrix);
    if !infrastructure.is_empty() {
        text.push_str("\ninfrastructure\n");
        infrastructure.iter().for_each(|line| text.push_str(&wrap(line)));
    }
    for left in &matrix.left_out {
        text.push_str(&wrap(&format!("left out: {} {}", short(&left.bundle), left.reason)));
    }
    text
}

fn table(cells: &[Cell], colour: bool) -> String {
    let rows: Vec<[String; 6]> = std::iter::once(HEADS.map(String::from)).chain(cells.iter().map(row)).collect();
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        longest.min(WIDTHS[column])
    };
    let states = std::iter::once(None).chain(cells.iter().map(|cell| Some(cell.state)));
    let mut text = String::new();
    for (row, state) in rows.iter().zip(states) {
        let pad = |(column, cell): (usize, &String)| {
            let padded = format!("{:width$}", clip(cell, WIDTHS[column]), width = width(column));
            if column == 2 && colour { paint(state, &padded) } else { padded }
        };
        let line: Vec<_> = row.iter().enumerate().map(pad).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(cell: &Cell) -> [String; 6] {
    let passed = |counts: kit::record::Counts| format!("{}/{}", counts.passed, counts.asked);
    [
        cell.platform.to_string(),
        cell.kubernetes.clone().unwrap_or_else(|| "-".into()),
        cell.state_words.clone(),
        last_test(cell),
        cell.tested.counts.map_or_else(|| "-".into(), passed),
        if cell.supported.met { "yes" } else { "no" }.into(),
    ]
}

fn paint(state: Option<State>, text: &str) -> String {
    let code = match state {
        Some(State::TestedNatively) => "32",
        Some(State::Failing) => "31",
        Some(State::Stale | State::Infrastructure | State::TestedNotNatively) => "33",
        Some(State::Unknown) => "2",
        Some(_) => "36",
        None => return text.to_owned(),
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Breaks a paragraph into lines, all but the first indented.
fn wrap(paragraph: &str) -> String {
    let (mut text, mut column) = (String::from("  "), 2);
    for word in paragraph.split_whitespace() {
        // A word longer than a line is cut where the line ends.
        let mut word: Vec<char> = word.chars().collect();
        if column > 4 && column + 1 + word.len() > WIDTH {
            text.push_str("\n    ");
            column = 4;
        } else if column > 4 {
            text.push(' ');
            column += 1;
        }
        while column + word.len() > WIDTH {
            let rest = word.split_off(WIDTH - column);
            text.extend(word);
            text.push_str("\n    ");
            (word, column) = (rest, 4);
        }
        column += word.len();
        text.extend(word);
        // After the first word a space is due, however short the word was.
        column = column.max(5);
    }
    text.push('\n');
    text
}

/// Everything that is known of each cell, as text.
pub(crate) fn why(matrix: &Matrix) -> String {
    matrix.cells.iter().map(explain).collect::<Vec<_>>().join("\n")
}

fn explain(cell: &Cell) -> String {
    let mut text = format!("{}\n", cell.id);
    let mut line = |line: String| text.push_str(&wrap(&line));
    line(format!("{}: {}", cell.state_words, cell.reason));
    if let Some(change) = &cell.changes {
        line(format!("if nothing new comes: {} after {}: {}", change.words, when(change.at), change.why));
    }
    line(format!("images: {}", cell.available.words));
    line(format!("last native test: {}, {}", last_test(cell), cell.tested.words));
    for node in &cell.nodes {
        let evidence = node.evidence.as_ref().map_or_else(String::new, |evidence| format!(" ({evidence})"));
        line(format!("ran on: {}{evidence}", node.words()));
    }
    let owners = if cell.owned.owners.is_empty() { "nobody".to_owned() } else { cell.owned.owners.join(", ") };
    line(format!("owned by: {owners}"));
    if let Some(compared) = &cell.compared {
        let names: Vec<_> = compared.tests.iter().map(|test| test.name.as_str()).collect();
        let tests = if names.is_empty() { String::new() } else { format!(": {}", list(&names, 10)) };
        line(format!("beside {}: {} good there and not here{tests}", compared.platform, many(compared.count, "test")));
    }
    if let Some(rate) = cell.pass_rate {
        line(format!("pass rate: {} of the last {} valid runs of line {}", rate.passed, rate.valid, cell.line));
    }
    for level in Level::ALL {
        let evidence = cell.levels.get(level);
        if evidence.verdict == Verdict::NotTried {
            continue;
        }
        let at = evidence.at.map_or_else(String::new, |at| format!(", {}", when(at)));
        let bundle = evidence.evidence.as_deref().map_or_else(String::new, |digest| format!(", {}", short(digest)));
        line(format!("level {}: {}: {}{at}{bundle}", level.name(), evidence.verdict.words(), evidence.words));
    }
    for Claim { name, met, reasons, until, .. } in &cell.claims {
        let until = until.map_or_else(String::new, |until| format!(" until {}", day(until)));
        let words = if *met { format!("yes{until}") } else { format!("no: {}", reasons.join("; ")) };
        line(format!("claim {name}: {words}"));
    }
    line(format!("runs: {}, {} of them lost to the infrastructure", cell.run_count, cell.lost_runs));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_longer_than_the_terminal() {
        for paragraph in ["short", &"word ".repeat(100), &"x".repeat(500), &format!("a {}", "y".repeat(98))] {
            let text = wrap(paragraph);
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
            let letters = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(letters(&text), letters(paragraph));
        }
        assert_eq!(WIDTHS.iter().sum::<usize>() + 2 * (WIDTHS.len() - 1), WIDTH);
    }
}
