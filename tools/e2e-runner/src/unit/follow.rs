//! The log of a container, followed across connections that break: each byte comes out once, in order.
//!
//! The API server puts a time before each line when it is asked to. When a connection breaks, the next one is asked for
//! lines from the last time on, and what came already is passed over.

use std::io::{self, Write};

use jiff::{SignedDuration, Timestamp};

/// A time is not longer; what is, is no time.
const STAMP: usize = 64;

/// Where the log has come to.
#[derive(Debug, Default)]
pub(super) struct Follower {
    /// The time of the last line.
    last: Option<Timestamp>,
    /// Lines of that time that came out, the last one maybe in part.
    printed: usize,
    /// Bytes of the last line that came out.
    bytes: usize,
    /// Lines of that time that this connection has sent.
    seen: usize,
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
    /// From when on the next connection is wanted: a second early, for the client rounds to seconds, also upwards.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.last.map(|last| last.checked_sub(SignedDuration::from_secs(1)).unwrap_or(last))
    }

    /// Whether anything has come, and how far.
    pub(super) fn last(&self) -> Option<Timestamp> {
        self.last
    }

    /// A new connection begins, with a whole line.
    pub(super) fn resume(&mut self) {
        (self.seen, self.state) = (0, State::Stamp);
        self.stamp.clear();
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
                    self.bytes += part.len().saturating_sub(skip);
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
        self.state = match self.last {
            Some(last) if time < last => State::Pass,
            Some(last) if time == last => {
                self.seen += 1;
                if self.seen < self.printed {
                    State::Pass
                } else if self.seen == self.printed {
                    // It may have been cut off in its middle.
                    State::Print(self.bytes)
                } else {
                    (self.printed, self.bytes) = (self.seen, 0);
                    State::Print(0)
                }
            }
            _ => {
                (self.last, self.seen, self.printed, self.bytes) = (Some(time), 1, 1, 0);
                State::Print(0)
            }
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A log as the API server sends it: time, text.
    fn log(lines: &[(u32, &str)]) -> Vec<u8> {
        lines
            .iter()
            .flat_map(|(second, text)| format!("2026-01-01T00:00:{second:02}.5Z {text}\n").into_bytes())
            .collect()
    }

    fn from(lines: &[(u32, &str)], since: Option<Timestamp>) -> Vec<u8> {
        // Half a second past each is what the lines have; the client rounds that up.
        let at = |second: u32| format!("2026-01-01T00:00:{second:02}.5Z").parse::<Timestamp>().unwrap();
        let since = since.map(|since| since.round(jiff::Unit::Second).unwrap());
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

    proptest! {
        #[test]
        fn each_byte_comes_out_once_however_often_the_connection_breaks(
            texts in proptest::collection::vec((0_u32..4, "[a-z \u{16}=-]{0,12}"), 1..20),
            breaks in proptest::collection::vec(1_usize..80, 0..12),
            chunk in 1_usize..40,
        ) {
            let mut second = 0;
            let lines: Vec<(u32, &str)> = texts.iter().map(|(step, text)| {
                second += step / 2;
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
