//! The log of a container, followed across connections that break: each byte comes out once, in order.
//!
//! The API server puts a time before each line when it is asked to. When a connection breaks, the next one is asked for
//! lines from some time before the last one on, and those that came already are passed over: by the order of their
//! times, not by which is later, for a node's clock may be set back. While a connection holds, everything comes out.

use std::{
    collections::VecDeque,
    io::{self, Write},
};

use jiff::{SignedDuration, Timestamp, Unit};

/// A time is not longer; what is, is no time.
const STAMP: usize = 64;
/// How far before the last line the next connection begins: further than a clock is set back while it works.
const OVERLAP: SignedDuration = SignedDuration::from_secs(60);
/// How many lines are known by their times.
const KNOWN: usize = 20_000;

/// Where the log has come to.
#[derive(Debug, Default)]
pub(super) struct Follower {
    /// The times of the last lines that came out, the last of them maybe in part.
    known: VecDeque<Timestamp>,
    /// Whether there were more.
    forgot: bool,
    /// Bytes of the last line that came out.
    bytes: usize,
    /// Bytes of all lines that came out.
    came: u64,
    /// Of a connection that catches up: what it is expected to send again, in order, and how far it has come.
    again: Option<(Vec<Timestamp>, usize)>,
    state: State,
    stamp: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Before the time of a line has been read.
    #[default]
    Stamp,
    /// In a line that comes out, after so many bytes.
    Print(usize),
    /// In a line that has come out before.
    Pass,
}

impl Follower {
    /// From when on the next connection is wanted, in whole seconds: the client would round them, also upwards.
    pub(super) fn since(&self) -> Option<Timestamp> {
        let since = self.known.back()?.checked_sub(OVERLAP).ok()?;
        since.round(jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Floor)).ok()
    }

    /// How much has come out.
    pub(super) fn came(&self) -> u64 {
        self.came
    }

    /// A new connection begins, with a whole line.
    pub(super) fn resume(&mut self) {
        self.state = State::Stamp;
        self.stamp.clear();
        let since = self.since();
        let expected = self.known.iter().copied().filter(|time| since.is_none_or(|since| *time >= since));
        self.again = (!self.known.is_empty()).then(|| (expected.collect(), 0));
    }

    /// Takes in what came, and writes out what is new of it.
    pub(super) fn take(&mut self, mut bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.state {
                State::Stamp => {
                    let end = bytes.iter().position(|byte| *byte == b' ' || *byte == b'\n');
                    let part = &bytes[..end.unwrap_or(bytes.len())];
                    self.stamp.extend_from_slice(part);
                    bytes = &bytes[part.len()..];
                    if let Some(first) = bytes.first() {
                        // An empty line has a time and a space, or nothing behind it.
                        bytes = if *first == b' ' { &bytes[1..] } else { bytes };
                        self.begin_line(out)?;
                    } else if self.stamp.len() > STAMP {
                        self.begin_line(out)?;
                    }
                }
                State::Print(skip) => {
                    let end = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
                    let part = &bytes[..end.unwrap_or(bytes.len())];
                    out.write_all(&part[skip.min(part.len())..])?;
                    let new = part.len().saturating_sub(skip);
                    self.bytes += new;
                    self.came += new as u64;
                    self.state =
                        if end.is_some() { State::Stamp } else { State::Print(skip.saturating_sub(part.len())) };
                    bytes = &bytes[part.len()..];
                }
                State::Pass => {
                    let end = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
                    self.state = if end.is_some() { State::Stamp } else { State::Pass };
                    bytes = &bytes[end.unwrap_or(bytes.len())..];
                }
            }
        }
        Ok(())
    }

    fn begin_line(&mut self, out: &mut impl Write) -> io::Result<()> {
        let stamp = std::mem::take(&mut self.stamp);
        let time = std::str::from_utf8(&stamp).ok().and_then(|text| text.parse::<Timestamp>().ok());
        let Some(time) = time else {
            // No time: the line is its own beginning.
            out.write_all(&stamp)?;
            if !stamp.is_empty() {
                out.write_all(b" ")?;
            }
            self.state = State::Print(0);
            return Ok(());
        };
        self.state = match self.before(time) {
            Some(true) => State::Print(self.bytes),
            Some(false) => State::Pass,
            None => {
                if self.known.len() == KNOWN {
                    self.known.pop_front();
                    self.forgot = true;
                }
                self.known.push_back(time);
                self.bytes = 0;
                State::Print(0)
            }
        };
        Ok(())
    }

    /// Whether a line of that time has come out before; of the last of those, that the rest of it may be missing.
    fn before(&mut self, time: Timestamp) -> Option<bool> {
        let (expected, at) = self.again.as_mut()?;
        let found = expected[*at..].iter().position(|known| *known == time);
        if let Some(found) = found {
            *at += found + 1;
            let last = *at == expected.len();
            if last {
                self.again = None;
            }
            return Some(last);
        }
        // One from before all that is known, unless it is new and what is known is there no more: a log is rotated.
        let older = *at == 0 && self.forgot && expected.iter().max().is_some_and(|latest| time <= *latest);
        if !older {
            self.again = None;
        }
        older.then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A log as the API server sends it: time, text.
    fn log(lines: &[(u32, &str)]) -> Vec<u8> {
        lines.iter().flat_map(|(second, text)| format!("{} {text}\n", at(*second)).into_bytes()).collect()
    }

    /// Half a second past each is what the lines have; the client rounds that up.
    fn at(second: u32) -> Timestamp {
        let begin: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
        begin + SignedDuration::from_secs(i64::from(second))
    }

    fn from(lines: &[(u32, &str)], since: Option<Timestamp>) -> Vec<u8> {
        let since = since.map(|since| since.round(Unit::Second).unwrap());
        let wanted: Vec<_> =
            lines.iter().filter(|(second, _)| since.is_none_or(|since| at(*second) >= since)).copied().collect();
        log(&wanted)
    }

    #[test]
    fn lines_without_a_time_come_out_as_well() {
        let (mut follower, mut out) = (Follower::default(), Vec::new());
        follower.take(b"no time here\n2026-01-01T00:00:01Z one\n", &mut out).unwrap();
        assert_eq!(String::from_utf8_lossy(&out), "no time here\none\n");
    }

    #[test]
    fn a_clock_that_is_set_back_costs_no_line() {
        let (mut follower, mut out) = (Follower::default(), Vec::new());
        let lines = [(100, "a"), (101, "b"), (95, "c"), (96, "--- PASS: TestA (0.00s)"), (102, "d")];
        follower.resume();
        follower.take(&from(&lines[..4], follower.since()), &mut out).unwrap();
        follower.resume();
        follower.take(&from(&lines, follower.since()), &mut out).unwrap();
        assert_eq!(String::from_utf8_lossy(&out), "a\nb\nc\n--- PASS: TestA (0.00s)\nd\n");
    }

    #[test]
    fn what_comes_after_a_log_was_rotated_comes_out() {
        for before in [3, KNOWN + 10] {
            let (mut follower, mut out) = (Follower::default(), Vec::new());
            // Many lines in a second.
            let lines: Vec<_> = (0..before).map(|n| (u32::try_from(n / 1000).unwrap(), "old")).collect();
            follower.take(&log(&lines), &mut out).unwrap();
            out.clear();
            follower.resume();
            follower.take(&log(&[(50, "new"), (51, "newer")]), &mut out).unwrap();
            assert_eq!(String::from_utf8_lossy(&out), "new\nnewer\n");
        }
    }

    proptest! {
        #[test]
        fn each_byte_comes_out_once_however_often_the_connection_breaks(
            texts in proptest::collection::vec((0_u32..9, "[a-z \u{16}=-]{0,12}"), 1..20),
            breaks in proptest::collection::vec(1_usize..80, 0..12),
            chunk in 1_usize..40,
        ) {
            let mut second = 100_u32;
            let lines: Vec<(u32, &str)> = texts.iter().map(|(step, text)| {
                // Mostly forth, sometimes not at all, sometimes back.
                second = second + [0, 0, 0, 0, 1, 1, 2, 3, 0][*step as usize] - if *step == 8 { 4 } else { 0 };
                (second, text.as_str())
            }).collect();
            let expected: String = lines.iter().map(|(_, text)| format!("{text}\n")).collect();
            let (mut follower, mut out) = (Follower::default(), Vec::new());
            for length in breaks {
                follower.resume();
                let bytes = from(&lines, follower.since());
                for part in bytes[..length.min(bytes.len())].chunks(chunk) {
                    follower.take(part, &mut out).unwrap();
                }
            }
            follower.resume();
            follower.take(&from(&lines, follower.since()), &mut out).unwrap();
            prop_assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }
}
