//! A run in short: what cells are computed from. Thousands of these are read for every question.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ops::Deref,
    rc::Rc,
};

use jiff::Timestamp;
use kit::{
    Cause, Platform,
    record::{Counts, Nature},
};
use serde::{
    Deserialize, Serialize,
    de::value::{self, StrDeserializer},
};

use super::facts::{Facts, number};
use crate::{
    evidence::Key,
    model::{Level, OriginKind, Verdict},
};

/// A run, without what it says.
#[derive(Debug, Clone)]
pub(crate) struct RunRef {
    /// Digest of its bundle.
    pub(crate) digest: Rc<str>,
    /// Its id.
    pub(crate) run: Rc<str>,
    pub(crate) started: Timestamp,
    pub(crate) finished: Timestamp,
    pub(crate) complete: bool,
    pub(crate) files: usize,
    pub(crate) asked: Option<u64>,
    pub(crate) records: Vec<u64>,
    /// Releases that it built or looked at.
    pub(crate) built: Box<[Built]>,
}

/// A release, as one run knows it.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// Digest of its file.
    pub(crate) release: Rc<str>,
    /// Who built it.
    pub(crate) origin: OriginKind,
    /// Its version, with the commit where there is one.
    pub(crate) version: Rc<str>,
}

/// One thing that a run tried, in short.
#[derive(Debug, Clone)]
pub(crate) struct Try {
    /// Its place among the run's statements.
    pub(crate) number: u16,
    /// Hundreds of thousands of tries are about a few thousand things.
    pub(crate) about: Rc<About>,
    pub(crate) at: Timestamp,
    pub(crate) level: Option<Level>,
    pub(crate) verdict: Verdict,
    pub(crate) nature: Option<Nature>,
    pub(crate) record: Option<u64>,
    pub(crate) counts: Option<[u32; 7]>,
    pub(crate) cause: Option<Cause>,
}

/// What a try was about.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) key: Rc<Key>,
    pub(crate) suite: Option<Rc<str>>,
    pub(crate) kubernetes: Option<Rc<str>>,
    pub(crate) release: Option<Rc<str>>,
    pub(crate) builder: Option<Rc<str>>,
}

/// A run and what it tried.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) run: RunRef,
    pub(crate) tries: Vec<Try>,
}

impl Deref for Try {
    type Target = About;

    fn deref(&self) -> &About {
        &self.about
    }
}

impl Try {
    /// The totals of its tests.
    pub(crate) fn counts(&self) -> Option<Counts> {
        let [asked, passed, failed, flaky, skipped, excluded, not_run] = self.counts?.map(|count| count as usize);
        Some(Counts { asked, passed, failed, flaky, skipped, excluded, not_run })
    }
}

/// The stored form: short names, because there are thousands; words once, and numbers for them.
#[derive(Serialize, Deserialize)]
struct Brief<'a> {
    /// Run, started, finished (in microseconds), complete, files.
    #[serde(borrow)]
    r: (Word<'a>, i64, i64, bool, usize),
    a: Option<u64>,
    x: Vec<u64>,
    b: Vec<(u16, OriginKind, u16)>,
    /// Component, version, origin, platform.
    k: Vec<(u16, u16, OriginKind, u16)>,
    #[serde(borrow)]
    w: Vec<Word<'a>>,
    t: Vec<Row>,
}

/// Not copied where it is read: nearly each is known already.
#[derive(Serialize, Deserialize)]
struct Word<'a>(#[serde(borrow)] Cow<'a, str>);

/// Key, level, verdict, nature, when, then suite, Kubernetes, release and builder as words.
type Row = (
    (u16, Option<Level>, Verdict, Option<Nature>, i64),
    [Option<u16>; 4],
    Option<u64>,
    Option<[u32; 7]>,
    Option<Cause>,
);

pub(super) fn store(run: &Facts) -> Vec<u8> {
    let mut words: Vec<Word<'_>> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut word = |text: &str| {
        let place = known.get(text).copied().unwrap_or_else(|| {
            words.push(Word(text.to_owned().into()));
            known.insert(text.to_owned(), words.len() - 1);
            words.len() - 1
        });
        u16::try_from(place).unwrap_or(u16::MAX)
    };
    let mut keys: Vec<&Key> = Vec::new();
    let mut rows = Vec::new();
    for attempt in &run.attempts {
        let place = keys.iter().position(|key| **key == attempt.key).unwrap_or_else(|| {
            keys.push(&attempt.key);
            keys.len() - 1
        });
        let result = &attempt.result;
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let counts =
            result.counts.map(|c| [c.asked, c.passed, c.failed, c.flaky, c.skipped, c.excluded, c.not_run].map(small));
        let texts = [&attempt.suite, &attempt.kubernetes, &attempt.release, &attempt.builder];
        rows.push((
            (
                u16::try_from(place).unwrap_or(u16::MAX),
                result.level,
                result.verdict,
                result.nature,
                attempt.at.as_microsecond(),
            ),
            texts.map(|text| text.as_deref().map(&mut word)),
            attempt.record.as_deref().map(number),
            counts,
            result.cause,
        ));
    }
    let built = run.builds.iter();
    let built = built.filter_map(|build| Some((word(build.release.as_deref()?), build.origin, word(&build.version))));
    let built = built.collect();
    let key = |key: &&Key| (word(&key.component), word(&key.version), key.origin, word(&key.platform.to_string()));
    let keys = keys.iter().map(key).collect();
    let brief = Brief {
        r: (
            Word(run.run.as_str().into()),
            run.started.as_microsecond(),
            run.finished.as_microsecond(),
            run.complete,
            run.files,
        ),
        a: run.asked,
        x: run.records.clone(),
        b: built,
        k: keys,
        w: words,
        t: rows,
    };
    serde_json::to_vec(&brief).unwrap_or_default()
}

/// Reads runs, and keeps each word and key once.
#[derive(Default)]
pub(super) struct Loader {
    words: HashSet<Rc<str>>,
    /// By the addresses of their words.
    keys: HashMap<(*const u8, *const u8, OriginKind, *const u8), Rc<Key>>,
    abouts: HashMap<(*const Key, [Option<*const u8>; 4]), Rc<About>>,
}

impl Loader {
    /// Nothing if the bytes are not what [`store`] wrote.
    pub(super) fn load(&mut self, digest: &str, bytes: &[u8]) -> Option<Loaded> {
        let brief: Brief<'_> = serde_json::from_slice(bytes).ok()?;
        let words: Vec<Rc<str>> = brief.w.iter().map(|word| self.word(&word.0)).collect();
        let keys = brief.k.into_iter().map(|key| self.key(key, &words)).collect::<Option<Vec<_>>>()?;
        let word = |place: Option<u16>| place.and_then(|place| words.get(usize::from(place)).cloned());
        let time = |micros| Timestamp::from_microsecond(micros).ok();
        let mut tries = Vec::with_capacity(brief.t.len());
        for (index, row) in brief.t.into_iter().enumerate() {
            let ((key, level, verdict, nature, at), about, record, counts, cause) = row;
            tries.push(Try {
                number: u16::try_from(index).ok()?,
                about: self.about(keys.get(usize::from(key))?, about.map(word)),
                at: time(at)?,
                level,
                verdict,
                nature,
                record,
                counts,
                cause,
            });
        }
        let (run, started, finished, complete, files) = brief.r;
        let run = RunRef {
            digest: digest.into(),
            run: run.0.into(),
            started: time(started)?,
            finished: time(finished)?,
            complete,
            files,
            asked: brief.a,
            records: brief.x,
            built: brief
                .b
                .into_iter()
                .filter_map(|(release, origin, version)| {
                    Some(Built { release: word(Some(release))?, origin, version: word(Some(version))? })
                })
                .collect(),
        };
        Some(Loaded { run, tries })
    }

    fn word(&mut self, text: &str) -> Rc<str> {
        if let Some(word) = self.words.get(text) {
            return Rc::clone(word);
        }
        let word: Rc<str> = text.into();
        self.words.insert(Rc::clone(&word));
        word
    }

    fn about(&mut self, key: &Rc<Key>, words: [Option<Rc<str>>; 4]) -> Rc<About> {
        let address = (Rc::as_ptr(key), words.each_ref().map(|word| word.as_deref().map(str::as_ptr)));
        let about = self.abouts.entry(address).or_insert_with(|| {
            let [suite, kubernetes, release, builder] = words;
            Rc::new(About { key: Rc::clone(key), suite, kubernetes, release, builder })
        });
        Rc::clone(about)
    }

    fn key(
        &mut self,
        (component, version, origin, platform): (u16, u16, OriginKind, u16),
        words: &[Rc<str>],
    ) -> Option<Rc<Key>> {
        let word = |place: u16| words.get(usize::from(place));
        let (component, version, platform) = (word(component)?, word(version)?, word(platform)?);
        let address = (component.as_ptr(), version.as_ptr(), origin, platform.as_ptr());
        if let Some(key) = self.keys.get(&address) {
            return Some(Rc::clone(key));
        }
        let (component, version) = (component.to_string(), version.to_string());
        // As a record has it, not as somebody types it: there are platforms that nobody here knows.
        let platform = Platform::deserialize(StrDeserializer::<value::Error>::new(platform)).ok()?;
        let key = Rc::new(Key { component, version, origin, platform });
        self.keys.insert(address, Rc::clone(&key));
        Some(key)
    }
}
