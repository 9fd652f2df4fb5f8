//! A cell in one word, with the reason; and its axes.

use std::collections::BTreeSet;

use kit::record::Nature;

use super::{Judged, Rules, Told, judge};
use crate::{
    evidence::Key,
    model::{Available, Level, OriginKind, State, Tested, Verdict},
    policy,
    text::{day, list, older},
};

/// Every level, judged, in the order of [`Level::ALL`].
pub(crate) fn levels<'a>(told: &[Told<'a>], rules: &Rules) -> [Judged<'a>; 7] {
    Level::ALL.map(|level| worst_suite(told, level, rules))
}

/// Suites are judged one by one: a small one that passes does not hide a large one that fails. A failure that is
/// too old to say anything is hidden by something newer.
fn worst_suite<'a>(told: &[Told<'a>], level: Level, rules: &Rules) -> Judged<'a> {
    let of_level = told.iter().filter(|told| told.attempt.result.level == Some(level));
    let suites: BTreeSet<_> = of_level.filter_map(|told| told.attempt.suite.clone()).collect();
    if suites.is_empty() {
        return judge(told, level, &[]);
    }
    let judged: Vec<_> = suites.into_iter().map(|suite| judge(told, level, &[suite])).collect();
    let newest = judged.iter().filter_map(Judged::at).max();
    let counts = |judged: &&Judged<'a>| {
        let fresh = |at| policy::max_age("tested", rules).is_none_or(|days| !older(at, rules.now, days));
        judged.verdict == Verdict::Failed && judged.at().is_some_and(|at| Some(at) == newest || fresh(at))
    };
    let rank = |judged: &&Judged<'a>| {
        let order = [Verdict::NotReached, Verdict::Infrastructure, Verdict::FailedNotNative, Verdict::NotNative];
        let rank = match judged.verdict {
            Verdict::Shown | Verdict::Failed => order.len() + 1,
            verdict => order.iter().position(|other| *other == verdict).map_or(0, |position| position + 1),
        };
        (rank, judged.at())
    };
    let failed = judged.iter().filter(counts).max_by_key(|judged| judged.at());
    failed.or_else(|| judged.iter().max_by_key(rank)).copied().unwrap_or_else(|| judge(told, level, &[]))
}

/// The state, and why.
pub(crate) fn state(key: &Key, judged: &[Judged<'_>; 7], rules: &Rules) -> (State, String) {
    let [index, contents, installs, _, e2e, ..] = judged;
    let dated = |judged: &Judged<'_>| {
        let date = judged.at().map_or_else(String::new, |at| format!(" on {}", day(at)));
        format!("{}{date}", judged.words())
    };
    let bad = [index, contents, installs, e2e].into_iter().find(|judged| judged.verdict == Verdict::Failed);
    if let Some(bad) = bad {
        return (State::Failing, format!("{}: {}{}", name(bad), dated(bad), failing_tests(bad)));
    }
    let old = |judged: &Judged<'_>, claim| {
        let at = judged.at().filter(|_| matches!(judged.verdict, Verdict::Shown | Verdict::NotNative));
        at.zip(policy::max_age(claim, rules)).filter(|(at, days)| older(*at, rules.now, *days)).map(|(_, days)| days)
    };
    let too_old = |judged: &Judged<'_>, days: u32| {
        (State::Stale, format!("{}: {}, more than {days} days ago{}", name(judged), dated(judged), lost(judged)))
    };
    let images = if key.origin == OriginKind::Published { State::Available } else { State::Built };
    match (contents.verdict, installs.verdict, e2e.verdict) {
        (_, _, Verdict::Shown) => old(e2e, "tested").map_or_else(
            || (State::TestedNatively, format!("{}: {}{}", name(e2e), dated(e2e), lost(e2e))),
            |days| too_old(e2e, days),
        ),
        (_, Verdict::Infrastructure, _) => (State::Infrastructure, infrastructure(installs)),
        (_, _, Verdict::Infrastructure) => (State::Infrastructure, infrastructure(e2e)),
        (_, _, Verdict::NotNative) => old(e2e, "tested")
            .map_or_else(|| (State::TestedNotNatively, not_native(e2e, &dated(e2e))), |days| too_old(e2e, days)),
        (Verdict::Shown, _, Verdict::FailedNotNative) => {
            (images, format!("{}; {}", dated(contents), not_native(e2e, &dated(e2e))))
        }
        (_, _, Verdict::FailedNotNative) => (State::Unknown, not_native(e2e, &dated(e2e))),
        (_, Verdict::Shown, _) => (State::Installed, format!("{}; no test ran", dated(installs))),
        (Verdict::Shown, Verdict::NotNative | Verdict::FailedNotNative, _) => {
            (images, format!("{}; {}; no test ran", dated(contents), not_native(installs, &dated(installs))))
        }
        (_, Verdict::NotNative | Verdict::FailedNotNative, _) => {
            (State::Unknown, format!("{}; no test ran", not_native(installs, &dated(installs))))
        }
        (Verdict::Shown, ..) => old(contents, "built").map_or_else(
            || (images, format!("{}; nothing ran on this platform", dated(contents))),
            |days| too_old(contents, days),
        ),
        (Verdict::Infrastructure, ..) => (State::Infrastructure, infrastructure(contents)),
        (Verdict::NotReached, ..) => (State::Unknown, format!("not built; {}", dated(contents))),
        _ => (State::Unknown, "nothing was shown of it".into()),
    }
}

fn name<'a>(judged: &Judged<'a>) -> &'a str {
    judged.by.map_or("", |by| by.attempt.result.name.as_str())
}

fn failing_tests(judged: &Judged<'_>) -> String {
    let tests = judged.by.into_iter().flat_map(|by| &by.attempt.result.tests);
    let failed = tests.filter(|test| test.status == kit::record::Status::Failed && !test.name.contains('/'));
    let cause = |test: &crate::model::TestRow| test.cause.map_or("no cause", kit::Cause::name);
    let names: Vec<_> = failed.map(|test| format!("{} ({})", test.name, cause(test))).collect();
    if names.is_empty() { String::new() } else { format!("; {}", list(&names, 3)) }
}

fn lost(judged: &Judged<'_>) -> String {
    match judged.lost_since {
        0 => String::new(),
        1 => "; the try since then was lost to the infrastructure".into(),
        count => format!("; {count} tries since then were lost to the infrastructure"),
    }
}

fn infrastructure(judged: &Judged<'_>) -> String {
    let since = judged.lost_since + 1;
    let tries = if since == 1 { "the only try was".to_owned() } else { format!("all {since} tries were") };
    format!("{tries} lost to the infrastructure; {}: {}", name(judged), judged.words())
}

fn not_native(judged: &Judged<'_>, dated: &str) -> String {
    let nature = judged.by.and_then(|by| by.attempt.result.nature).unwrap_or(Nature::Unknown);
    let nodes = match nature {
        Nature::Unknown => "nodes of unknown nature",
        Nature::Emulated => "emulated nodes",
        Nature::Native => "native nodes",
    };
    let verdict = if judged.verdict == Verdict::FailedNotNative { "not good" } else { "good" };
    format!("{}: {dated}, {verdict} on {nodes}, which never counts as native", name(judged))
}

/// The axis of images.
pub(crate) fn available(origin: OriginKind, judged: &[Judged<'_>; 7]) -> Available {
    let [_, contents, ..] = judged;
    let shown = contents.verdict == Verdict::Shown;
    let available = shown && origin == OriginKind::Published;
    let words = match (shown, origin) {
        (true, OriginKind::Published) => "available",
        (true, _) => "built, verified",
        (false, _) => "not verified",
    };
    let evidence = contents.by.map(|by| by.run.closed.digest().to_owned());
    Available { available, words: words.into(), at: contents.at(), evidence }
}

/// The axis of tests: the last native run.
pub(crate) fn tested(judged: &[Judged<'_>; 7]) -> Tested {
    let [_, _, _, _, e2e, ..] = judged;
    let Some(by) = e2e.by.filter(|_| matches!(e2e.verdict, Verdict::Shown | Verdict::Failed)) else {
        let words = match e2e.verdict {
            Verdict::NotNative | Verdict::FailedNotNative => "never natively",
            Verdict::Infrastructure => "never to an end",
            _ => "never",
        };
        return Tested { words: words.into(), ..Tested::default() };
    };
    Tested {
        passed: e2e.verdict == Verdict::Shown,
        words: e2e.words().to_owned(),
        at: e2e.at(),
        suite: by.attempt.suite.clone(),
        counts: by.attempt.result.counts,
        release: by.attempt.release.clone(),
        cluster: by.attempt.cluster.clone(),
        evidence: Some(by.run.closed.digest().to_owned()),
    }
}
