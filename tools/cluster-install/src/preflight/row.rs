//! A row of the table: one question, its answer, and who has to act if the answer is no.

use kit::{Cause, Error};
use serde::Serialize;

/// Everything that is asked, in the order of the table.
pub(crate) const CHECKS: [&str; 18] = [
    "api",
    "version",
    "lease",
    "leftovers",
    "access",
    "workers",
    "nature",
    "processor",
    "disk",
    "memory",
    "clock",
    "credentials",
    "webhooks",
    "storage",
    "dns",
    "internet",
    "registries",
    "images",
];

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// The cluster can do that.
    Fit,
    /// It can, and there is something that people should know.
    Note,
    /// Nobody looked: the line says why.
    NotTried,
    /// It cannot.
    Unfit,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) check: &'static str,
    pub(crate) answer: Answer,
    /// Of an answer that is no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<Cause>,
    pub(crate) line: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

impl Row {
    fn new(check: &'static str, answer: Answer, line: impl Into<String>) -> Self {
        Self { check, answer, cause: None, line: kit::ui::printable(&line.into()), next: None }
    }

    pub(crate) fn fit(check: &'static str, line: impl Into<String>) -> Self {
        Self::new(check, Answer::Fit, line)
    }

    pub(crate) fn note(check: &'static str, line: impl Into<String>) -> Self {
        Self::new(check, Answer::Note, line)
    }

    pub(crate) fn not_tried(check: &'static str, why: impl Into<String>) -> Self {
        Self::new(check, Answer::NotTried, why)
    }

    pub(crate) fn unfit(check: &'static str, cause: Cause, line: impl Into<String>) -> Self {
        Self { cause: Some(cause), ..Self::new(check, Answer::Unfit, line) }
    }

    /// Why it is not fit, from an error.
    pub(crate) fn error(check: &'static str, error: &Error) -> Self {
        let line = error.line.as_ref().map_or_else(String::new, |line| format!(": {}", line.replace('\n', "; ")));
        Self { next: error.next.clone(), ..Self::unfit(check, error.cause, error.summary() + &line) }
    }

    /// Fit if there is nothing wrong, otherwise unfit with all that is.
    pub(crate) fn of(check: &'static str, cause: Cause, wrong: &[String], good: impl Into<String>) -> Self {
        if wrong.is_empty() { Self::fit(check, good) } else { Self::unfit(check, cause, wrong.join("; ")) }
    }

    /// What to do, if it is not fit.
    pub(crate) fn next_if_unfit(self, next: &str) -> Self {
        if self.answer == Answer::Unfit { self.next(next) } else { self }
    }

    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

/// The table for people, with what to do below it.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut cells = vec![["CHECK", "ANSWER", "CAUSE", "WHAT"].map(String::from).to_vec()];
    for row in rows {
        let answer = match row.answer {
            Answer::Fit => "fit",
            Answer::Note => "fit, note",
            Answer::NotTried => "not tried",
            Answer::Unfit => "UNFIT",
        };
        let cause = row.cause.map_or("-", Cause::name);
        cells.push([row.check, answer, cause, &row.line].map(String::from).to_vec());
    }
    let next = rows.iter().filter_map(|row| Some(format!("\nnext, {}: {}", row.check, row.next.as_ref()?)));
    kit::ui::table(&cells).trim_end().to_owned() + &next.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_who_has_to_act() {
        let error = Error::new(Cause::Dns, "no").line("a\nb").next("ask");
        let rows = [Row::fit("api", "v1.37"), Row::error("dns", &error), Row::of("disk", Cause::HostDisk, &[], "good")];
        let text = table(&rows);
        assert!(text.contains("dns    UNFIT   dns    no: a; b"), "{text}");
        assert!(text.ends_with("next, dns: ask"), "{text}");
        assert_eq!(serde_json::to_value(&rows[1]).unwrap()["answer"], "unfit");
    }

    #[test]
    fn what_a_cluster_says_cannot_drive_a_terminal() {
        assert!(!Row::fit("api", "v1\x1b[2J").line.contains('\x1b'));
    }
}
