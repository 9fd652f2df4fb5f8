//! The matrix as Markdown (GitHub's), for a repository's documents.

use super::{OLDER, basis, groups, infrastructure, last_test, older, reason, shared, title};
use crate::{
    model::{Cell, Matrix},
    text::{counts, day, short},
};

/// The matrix as Markdown.
pub(crate) fn markdown(matrix: &Matrix) -> String {
    let mut text = format!("# Support matrix\n\n{}.\n", capital(&escape(&basis(matrix))));
    for cells in groups(matrix) {
        text.push_str(&format!("\n## {}\n\n", escape(&title(&cells[0]))));
        text.push_str("| Platform | State | Kubernetes | Images | Last tested | Result | Owned by | Supported |\n");
        text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
        cells.iter().for_each(|cell| text.push_str(&row(cell)));
        text.push('\n');
        for (platforms, reason) in shared(cells, reason) {
            text.push_str(&format!("- **{}**: {}\n", escape(&platforms), escape(&reason)));
        }
    }
    let older = older(matrix);
    if !older.is_empty() {
        text.push_str(&format!("\n## Older versions\n\n{}:\n\n", capital(OLDER)));
        older.iter().for_each(|line| text.push_str(&format!("- {}\n", escape(line))));
    }
    let infrastructure = infrastructure(matrix);
    if !infrastructure.is_empty() {
        text.push_str("\n## Infrastructure\n\n");
        infrastructure.iter().for_each(|line| text.push_str(&format!("- {}\n", escape(line))));
    }
    if !matrix.left_out.is_empty() {
        text.push_str("\n## Left out\n\n");
        for left in &matrix.left_out {
            text.push_str(&format!("- {} {}\n", escape(&short(&left.bundle)), escape(&left.reason)));
        }
    }
    text
}

fn row(cell: &Cell) -> String {
    let images = cell.available.at.map_or_else(String::new, |at| format!(", {}", day(at)));
    let owners = if cell.owned.owners.is_empty() { "nobody".into() } else { cell.owned.owners.join(", ") };
    let cells = [
        cell.platform.to_string(),
        cell.state_words.clone(),
        cell.kubernetes.clone().unwrap_or_else(|| "-".into()),
        format!("{}{images}", cell.available.words),
        last_test(cell),
        cell.tested.counts.as_ref().map_or_else(|| "-".into(), counts),
        owners,
        if cell.supported.met { "yes" } else { "no" }.into(),
    ];
    let cells: Vec<_> = cells.iter().map(|cell| escape(cell)).collect();
    format!("| {} |\n", cells.join(" | "))
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

/// Text as it is: none of it is markup, a table's border or HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' | '$' => escaped.extend(['\\', c]),
            // Neither a mention nor a link that nobody wrote.
            '@' => escaped.push_str("&#64;"),
            c if c.is_whitespace() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped.replace("://", ":&#47;/").replace("www.", "www&#46;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_is_markup() {
        assert_eq!(
            super::escape("<b>|`x`_y_ [a](http://b) @c"),
            "&lt;b&gt;\\|\\`x\\`\\_y\\_ \\[a\\](http:&#47;/b) &#64;c"
        );
        assert_eq!(super::escape("$a$"), "\\$a\\$", "nor a formula");
    }
}
