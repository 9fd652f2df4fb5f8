//! Words: text of records made safe to show, dates, ages and totals as people read them.

use jiff::{SignedDuration, Timestamp};
use kit::{record::Counts, ui::printable};

/// A name or a line of a record, on one line, clean, at most 300 characters long.
pub(crate) fn clean(text: &str) -> String {
    let line: String = text.trim().chars().map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
    clip(&printable(&line), 300)
}

/// The end of a log: its last lines, clean, at most 60 of them and 8,000 characters.
pub(crate) fn tail(bytes: &[u8]) -> String {
    let bytes = &bytes[bytes.len().saturating_sub(64 << 10)..];
    let text = without_colour(&String::from_utf8_lossy(bytes));
    let lines: Vec<_> = text.trim_end().lines().rev().take(60).collect();
    let lines: Vec<_> = lines.iter().rev().map(|line| clip(&printable(line), 1_000)).collect();
    let text = lines.join("\n");
    let excess = text.chars().count().saturating_sub(8_000);
    text.chars().skip(excess).collect()
}

/// Leaves out what colours a terminal (ECMA-48, control sequences): in a log that is no text.
fn without_colour(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        let parameters = after.len() - after.trim_start_matches(|c: char| matches!(c, '\u{20}'..='\u{3f}')).len();
        let last = after[parameters..].chars().next().filter(|c| matches!(c, '@'..='~'));
        rest = &after[parameters + last.map_or(0, char::len_utf8)..];
    }
    plain + rest
}

/// At most `length` characters; what was cut is shown by an ellipsis.
pub(crate) fn clip(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length.saturating_sub(1)).chain(['…']).collect()
}

/// Whether a text has been through [`clean`] or [`tail`].
#[cfg(test)]
pub(crate) fn is_clean(text: &str) -> bool {
    !text.chars().any(|c| c != '\n' && c != '\t' && kit::ui::is_hostile(c))
}

/// `2026-11-23 09:03 UTC`.
pub(crate) fn when(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// `2026-11-23`.
pub(crate) fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// How long before `now` that was: `5 min ago`, `3 h ago`, `12 days ago`.
pub(crate) fn age(at: Timestamp, now: Timestamp) -> String {
    let age = now.duration_since(at);
    match age.as_secs() {
        ..60 => "just now".into(),
        seconds @ 60..7_200 => format!("{} min ago", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", age.as_hours() / 24),
    }
}

/// Whether something of `at` is more than `days` old at `now`.
pub(crate) fn older(at: Timestamp, now: Timestamp, days: u32) -> bool {
    now.duration_since(at) > SignedDuration::from_hours(24 * i64::from(days))
}

/// `50 of 52 passed, 1 flaky, 2 excluded`: what is not zero, with the honest denominator.
pub(crate) fn counts(counts: &Counts) -> String {
    let rest = [
        (counts.failed, "failed"),
        (counts.flaky, "flaky"),
        (counts.skipped, "skipped"),
        (counts.excluded, "excluded"),
        (counts.not_run, "not run"),
    ];
    let rest = rest.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}"));
    format!("{} of {} passed{}", counts.passed, counts.asked, rest.collect::<String>())
}

/// Several things in a sentence, at most `most` of them: `a, b and 3 more`.
pub(crate) fn list<S: AsRef<str>>(items: &[S], most: usize) -> String {
    let shown: Vec<_> = items.iter().take(most).map(AsRef::as_ref).collect();
    match items.len().saturating_sub(most) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// `sha256:0123456789ab…` as people compare digests.
pub(crate) fn short(digest: &str) -> String {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.chars().take(12).collect()
}

/// `1 image`, `2 images`.
pub(crate) fn many(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_shown_and_not_obeyed() {
        let text = clean("a\u{1b}[31m\u{202e}b\n<script>");
        assert_eq!(text, "a\\u{1b}[31m\\u{202e}b <script>");
        assert!(is_clean(&text));
        assert_eq!(clean(&"x".repeat(1_000)).chars().count(), 300);
    }

    #[test]
    fn a_tail_is_bounded_and_takes_bad_bytes() {
        let text = tail(b"one\r\n\xff\x1b[1;31mtwo\x1b[0m \x1b]0;title\x07\x1b[\n\n");
        assert_eq!(text, "one\n\u{fffd}two \\u{1b}]0;title\\u{7}");
        assert!(tail(&b"long line\n".repeat(100_000)).lines().count() == 60);
        assert!(tail(&[b'x'; 1_000_000]).chars().count() <= 8_000);
    }

    #[test]
    fn totals_say_what_is_missing() {
        let some = Counts { asked: 5, passed: 3, failed: 0, flaky: 1, skipped: 0, excluded: 1, not_run: 0 };
        assert_eq!(counts(&some), "3 of 5 passed, 1 flaky, 1 excluded");
    }

    #[test]
    fn ages_read_well() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        for (at, text) in [
            ("2026-11-23T11:59:30Z", "just now"),
            ("2026-11-23T11:00:00Z", "60 min ago"),
            ("2026-11-22T12:00:00Z", "24 h ago"),
            ("2026-11-13T12:00:00Z", "10 days ago"),
        ] {
            assert_eq!(age(at.parse().unwrap(), now), text);
        }
    }
}
