//! The claims of `ci/policy.toml`, computed from evidence. A claim that is not shown is not made.

use jiff::{SignedDuration, Timestamp};
use kit::{Cause, Error, Result, ci, ci::Policy};

use crate::{
    cells::{Judged, Rules, Told, judge},
    model::{Claim, Level, OriginKind, Owned, Verdict},
    text::{day, many, older},
};

/// The claim that the product is about.
const SUPPORTED: &str = "supported";

/// Refuses a policy that asks for what does not exist: it would never be met, and nobody would know why.
///
/// # Errors
/// [`Cause::Usage`], naming the level and the word.
pub(crate) fn check(policy: &Policy) -> Result<()> {
    let refuse = |level: &ci::Level, what: String| {
        Err(Error::new(Cause::Usage, format!("ci/policy.toml: level '{}': {what}", level.name)))
    };
    for level in &policy.level {
        if let Some(unknown) = level.evidence.iter().find(|name| Level::find(name).is_none()) {
            let known: Vec<_> = Level::ALL.iter().map(|level| level.name()).collect();
            let error = refuse(level, format!("unknown evidence '{unknown}'"));
            return error.map_err(|error| error.next(format!("known: {}", known.join(", "))));
        }
        if let Some(unknown) = level.origin.as_deref().filter(|origin| *origin != OriginKind::Published.name()) {
            return refuse(level, format!("unknown origin '{unknown}'"));
        }
    }
    Ok(())
}

/// How many days evidence counts for the claim `name`, if there is an end to it.
pub(crate) fn max_age(name: &str, rules: &Rules) -> Option<u32> {
    rules.policy.level.iter().find(|level| level.name == name).and_then(|level| level.max_age)
}

/// Every claim, from weak to strong.
pub(crate) fn claims(told: &[Told<'_>], origin: OriginKind, owned: &Owned, rules: &Rules) -> Vec<Claim> {
    rules.policy.level.iter().map(|level| claim(level, told, origin, owned, rules)).collect()
}

/// The claim `supported`, or that nothing defines it.
pub(crate) fn supported(claims: &[Claim]) -> Claim {
    claims.iter().find(|claim| claim.name == SUPPORTED).cloned().unwrap_or_else(|| Claim {
        name: SUPPORTED.into(),
        met: false,
        reasons: vec!["ci/policy.toml does not say what it requires".into()],
        until: None,
    })
}

fn claim(level: &ci::Level, told: &[Told<'_>], origin: OriginKind, owned: &Owned, rules: &Rules) -> Claim {
    let mut reasons = Vec::new();
    let mut until: Option<Timestamp> = None;
    for name in level.evidence.iter().filter_map(|name| Level::find(name)) {
        let suites = if name == Level::E2e { &level.suites[..] } else { &[] };
        let judged = shown(level, told, name, suites);
        match judged.at().filter(|_| counts(level, judged.verdict)) {
            None => reasons.push(missing(name, suites, &judged)),
            Some(at) => {
                let Some(days) = level.max_age else { continue };
                if older(at, rules.now, days) {
                    reasons.push(format!("{}: shown on {}, more than {days} days ago", name.name(), day(at)));
                }
                let end = at.checked_add(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(at);
                until = Some(until.map_or(end, |until| until.min(end)));
            }
        }
    }
    if level.origin.is_some() && origin != OriginKind::Published {
        reasons.push(format!("not a published release: {}", origin.words()));
    }
    if owned.owners.len() < level.owners as usize {
        reasons.push(format!("{} of at least {}", many(owned.owners.len(), "owner"), level.owners));
    }
    let met = reasons.is_empty();
    Claim { name: level.name.clone(), met, reasons, until: until.filter(|_| met) }
}

/// Any one of the suites is enough, but none of them may be failing.
fn shown<'a>(level: &ci::Level, told: &[Told<'a>], name: Level, suites: &[String]) -> Judged<'a> {
    let each: Vec<_> = suites.iter().map(|suite| judge(told, name, std::slice::from_ref(suite))).collect();
    let failed = each.iter().find(|judged| judged.verdict == Verdict::Failed);
    let good = each.iter().filter(|judged| counts(level, judged.verdict)).max_by_key(|judged| judged.at());
    failed.or(good).copied().unwrap_or_else(|| judge(told, name, suites))
}

const fn counts(level: &ci::Level, verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Shown) || (matches!(verdict, Verdict::NotNative) && !level.native)
}

fn missing(name: Level, suites: &[String], judged: &Judged<'_>) -> String {
    let suites = if suites.is_empty() { String::new() } else { format!(" {}", suites.join(" or ")) };
    let what = format!("{}{suites}", name.name());
    match judged.verdict {
        Verdict::Shown => format!("{what}: shown"),
        Verdict::NotTried => format!("{what}: never tried"),
        Verdict::NotReached => format!("{what}: never reached"),
        Verdict::Infrastructure => format!("{what}: lost to the infrastructure"),
        Verdict::Failed => format!("{what}: not good"),
        Verdict::NotNative | Verdict::FailedNotNative => format!("{what}: not on native nodes"),
    }
}
