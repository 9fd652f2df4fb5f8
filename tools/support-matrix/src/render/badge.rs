//! A badge as SVG, for a README: a word and what is computed, readable by a screen reader.

use crate::{
    model::{Cell, State},
    text::day,
};

/// Width of a character of 11 pixels, generously: what is wider is squeezed by `textLength`.
const CHARACTER: usize = 7;

/// A badge: `pipeline v1.9.0 linux/s390x | supported`.
pub(crate) fn badge(cell: &Cell) -> String {
    let left = format!("{} {} {}", cell.component, cell.version, cell.platform);
    let right = match &cell.claim {
        Some(claim) if cell.state != State::Failing => claim.clone(),
        _ => cell.state_words.clone(),
    };
    let colour = match (cell.state, cell.supported.met) {
        (State::Failing, _) => "#a40e26",
        (_, true) | (State::TestedNatively, _) => "#116329",
        (State::Stale | State::Infrastructure | State::TestedNotNatively, _) => "#7a4500",
        (State::Unknown, _) => "#57606a",
        _ => "#0a4a7a",
    };
    let until = cell.claims.iter().find(|claim| cell.claim.as_ref() == Some(&claim.name) && right == claim.name);
    let until = until.and_then(|claim| claim.until).map_or_else(String::new, |at| format!(" until {}", day(at)));
    svg(&left, &right, &until, colour)
}

/// `more` is said in the title only: there is no room for it in the picture.
fn svg(left: &str, right: &str, more: &str, colour: &str) -> String {
    let (left, right) = (crate::text::clip(left, 60), crate::text::clip(right, 40));
    let width = |text: &str| text.chars().count() * CHARACTER + 12;
    let (a, b) = (width(&left), width(&right));
    let (all, middle_a, middle_b) = (a + b, a / 2, a + b / 2);
    let (text_a, text_b) = (a - 12, b - 12);
    let (left, right) = (escape(&left), escape(&right));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{all}\" height=\"20\" role=\"img\" aria-label=\"{left}: {right}{more}\">\
<title>{left}: {right}{more}</title>\
<rect width=\"{all}\" height=\"20\" rx=\"3\" fill=\"#444c56\"/>\
<path d=\"M{a} 0h{inner}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{inner}z\" fill=\"{colour}\"/>\
<g fill=\"#fff\" text-anchor=\"middle\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\">\
<text x=\"{middle_a}\" y=\"14\" textLength=\"{text_a}\" lengthAdjust=\"spacingAndGlyphs\">{left}</text>\
<text x=\"{middle_b}\" y=\"14\" textLength=\"{text_b}\" lengthAdjust=\"spacingAndGlyphs\">{right}</text></g></svg>\n",
        inner = b - 3,
    )
}

/// Text as XML has it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // No character that XML 1.0 does not have.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_is_markup() {
        let text = svg("<script>\"&'\u{1b}", "a\u{ffff}", "", "#000");
        assert!(text.contains("&lt;script&gt;&quot;&amp;&#39;\u{fffd}") && !text.contains("<script"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{ffff}'));
        assert_eq!(text.matches("<text").count(), 2);
        assert!(svg(&"x".repeat(1_000), "y", "", "#000").len() < 2_000);
    }
}
