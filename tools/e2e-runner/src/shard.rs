//! A suite in parts that run at the same time on several clusters or machines: which tests are in which part.
//!
//! Every machine must come to the same answer by itself, so it follows from the tests' names and from the
//! durations of one earlier record, and from nothing else.

use std::{collections::BTreeMap, fmt, str::FromStr};

use kit::{Cause, Error, Result, digest, record::Whole};

use crate::{parse::event::top, runs::Found, select::Selection};

/// More parts than anybody has machines.
pub(crate) const MOST: u32 = 1000;

/// Part `number` of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

impl Default for Shard {
    fn default() -> Self {
        Self { number: 1, of: 1 }
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) && of <= MOST => Ok(Self { number, of }),
            _ => Err(format!("write the part and how many there are, as in 1/3; at most {MOST}")),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// How long tests took, by top-level name; of several records the longest time.
#[must_use]
pub fn durations(found: &[Found]) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    let tests = found.iter().flat_map(|found| &found.results.tests);
    for test in tests.filter(|test| top(&test.name) == test.name && test.seconds.is_finite() && test.seconds > 0.0) {
        let longest = all.entry(test.name.clone()).or_insert(0.0_f64);
        *longest = longest.max(test.seconds);
    }
    all
}

impl Shard {
    /// Whether it is a part at all.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.of > 1
    }

    /// The tests of this part, in their order: the longest first, each goes to the part that has least to do.
    /// Tests of which nothing is known count as long as the middle one of the others.
    #[must_use]
    pub fn of(&self, tests: &[String], durations: &BTreeMap<String, f64>) -> Vec<String> {
        let mut known: Vec<f64> = tests.iter().filter_map(|test| durations.get(test).copied()).collect();
        known.sort_by(f64::total_cmp);
        let middle = known.get(known.len() / 2).copied().unwrap_or(1.0);
        let length = |test: &str| durations.get(test).copied().unwrap_or(middle);
        let mut order: Vec<&String> = tests.iter().collect();
        order.sort_by(|a, b| length(b).total_cmp(&length(a)).then_with(|| a.cmp(b)));
        let mut loads = vec![0.0_f64; self.of as usize];
        let mut mine = Vec::new();
        for test in order {
            let least = (0..loads.len()).min_by(|a, b| loads[*a].total_cmp(&loads[*b])).unwrap_or(0);
            loads[least] += length(test);
            if least + 1 == self.number as usize {
                mine.push(test);
            }
        }
        tests.iter().filter(|test| mine.contains(test)).cloned().collect()
    }

    /// Leaves of a selection what is this part's, and says what the whole is. What is left out as a whole stands in
    /// the first part, so that the parts' totals add up to the whole's.
    ///
    /// # Errors
    /// [`Cause::Usage`] if there are more parts than tests: a part that shows nothing must not look like a component without tests.
    pub fn take(&self, selection: &mut Selection, durations: &BTreeMap<String, f64>) -> Result<Option<Whole>> {
        if !self.is_part() {
            return Ok(None);
        }
        let is_top = |name: &str| top(name) == name;
        let left_out = selection.excluded.iter().map(|(name, _)| name).filter(|name| is_top(name));
        let whole = whole(selection.asked.iter().chain(left_out).map(String::as_str));
        let mine = self.of(&selection.asked, durations);
        if mine.is_empty() {
            let what = format!("part {self} has no tests: there are only {}", selection.asked.len());
            return Err(Error::new(Cause::Usage, what).next("use fewer parts"));
        }
        let (asked, rest): (Vec<_>, Vec<_>) = selection.asked.drain(..).partition(|test| mine.contains(test));
        selection.asked = asked;
        selection.others.extend(rest);
        let (first, asked) = (self.number == 1, &selection.asked);
        selection.excluded.retain(|(name, _)| match name.split_once('/') {
            Some((top, _)) => asked.iter().any(|test| test == top),
            None => first,
        });
        if !first {
            selection.expired.clear();
            selection.unknown.clear();
        }
        Ok(Some(whole))
    }
}

/// What all parts together are asked for.
#[must_use]
pub fn whole<'a>(names: impl Iterator<Item = &'a str>) -> Whole {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names.dedup();
    Whole { asked: names.len(), digest: digest::sha256(names.join("\n").as_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(number: usize) -> Vec<String> {
        (0..number).map(|n| format!("Test{n:02}")).collect()
    }

    #[test]
    fn how_a_part_is_written() {
        assert_eq!("2/3".parse(), Ok(Shard { number: 2, of: 3 }));
        for text in ["", "1", "0/3", "4/3", "1/0", "a/b", "1/1001", "-1/3", "1/3/5"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }

    #[test]
    fn parts_are_disjoint_complete_and_take_equally_long() {
        let tests = names(20);
        let durations: BTreeMap<_, _> =
            tests.iter().enumerate().skip(3).map(|(n, test)| (test.clone(), (n * n) as f64)).collect();
        let middle = 121.0;
        let parts: Vec<_> = (1..=3).map(|number| Shard { number, of: 3 }.of(&tests, &durations)).collect();
        let mut all = parts.concat();
        all.sort();
        assert_eq!(all, tests);
        let lengths: Vec<f64> = parts
            .iter()
            .map(|part| part.iter().map(|test| durations.get(test).copied().unwrap_or(middle)).sum())
            .collect();
        let (least, most) =
            (lengths.iter().fold(f64::MAX, |a, b| a.min(*b)), lengths.iter().fold(0.0, |a: f64, b| a.max(*b)));
        assert!(most < least * 1.2, "{lengths:?}");
        assert_eq!(Shard { number: 2, of: 3 }.of(&tests, &durations), parts[1], "always the same");
        let even: Vec<_> = (1..=3).map(|number| Shard { number, of: 3 }.of(&tests, &BTreeMap::new()).len()).collect();
        assert_eq!(even, [7, 7, 6]);
    }

    #[test]
    fn what_is_left_out_is_in_one_part_only() {
        let selection = Selection {
            asked: names(4),
            excluded: vec![("TestNet".into(), "why".into()), ("Test01/sub".into(), "why".into())],
            others: vec!["TestNet".into()],
            expired: vec!["TestOld: over".into()],
            ..Selection::default()
        };
        let take = |number| {
            let mut part = selection.clone();
            let whole = Shard { number, of: 2 }.take(&mut part, &BTreeMap::new()).unwrap().unwrap();
            (part, whole)
        };
        let ((first, whole), (second, same)) = (take(1), take(2));
        assert_eq!((whole.asked, &whole), (5, &same));
        assert_eq!(
            (first.asked.clone(), second.asked.clone()),
            (vec!["Test00".into(), "Test02".into()], vec!["Test01".into(), "Test03".into()])
        );
        assert_eq!(first.excluded, [("TestNet".into(), "why".into())]);
        assert_eq!(second.excluded, [("Test01/sub".into(), "why".into())]);
        assert_eq!((first.expired.len(), second.expired.len()), (1, 0));
        assert_eq!(second.others, ["TestNet", "Test00", "Test02"]);
        let mut few = Selection { asked: names(1), ..Selection::default() };
        let error = Shard { number: 2, of: 2 }.take(&mut few, &BTreeMap::new()).unwrap_err();
        assert_eq!(error.cause, Cause::Usage);
        assert_eq!(Shard::default().take(&mut few, &BTreeMap::new()).unwrap(), None);
    }
}
