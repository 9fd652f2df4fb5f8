//! The tests of a run in a few bytes each: number of the name, what became of it, how long it took.

use kit::record::Status;

use crate::evidence::TestFact;

/// One test of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TestRun {
    /// Number of its name in the index.
    pub(crate) name: u32,
    pub(crate) status: Status,
    /// Left out by `ci/skips.toml`.
    pub(crate) excluded: bool,
    /// How long it took, in hundredths of a second.
    pub(crate) centis: u32,
}

impl TestRun {
    pub(super) fn new(name: u32, test: &TestFact) -> Self {
        let centis = (test.seconds * 100.0).round().clamp(0.0, f64::from(u32::MAX)) as u32;
        Self { name, status: test.status, excluded: test.excluded, centis }
    }

    /// Whether it is good.
    pub(crate) const fn good(self) -> bool {
        matches!(self.status, Status::Passed | Status::Flaky)
    }

    pub(crate) fn seconds(self) -> f64 {
        f64::from(self.centis) / 100.0
    }
}

pub(super) fn encode(tests: &[TestRun]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tests.len() * 6);
    for test in tests {
        let status = match test.status {
            Status::Passed => 0,
            Status::Failed => 1,
            Status::Flaky => 2,
            Status::Skipped if test.excluded => 5,
            Status::Skipped => 3,
            Status::NotRun => 4,
        };
        varint(test.name, &mut bytes);
        bytes.push(status);
        varint(test.centis, &mut bytes);
    }
    bytes
}

/// What cannot be read ends it: a shorter list is less evidence, never other evidence.
pub(super) fn decode(bytes: &[u8]) -> Vec<TestRun> {
    let mut rest = bytes;
    let mut tests = Vec::new();
    while !rest.is_empty() {
        let Some(test) = one(&mut rest) else { break };
        tests.push(test);
    }
    tests
}

fn one(rest: &mut &[u8]) -> Option<TestRun> {
    let name = read(rest)?;
    let (first, after) = rest.split_first()?;
    *rest = after;
    let status = match first {
        0 => Status::Passed,
        1 => Status::Failed,
        2 => Status::Flaky,
        3 | 5 => Status::Skipped,
        4 => Status::NotRun,
        _ => return None,
    };
    Some(TestRun { name, status, excluded: *first == 5, centis: read(rest)? })
}

fn varint(mut value: u32, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn read(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u32;
    for shift in (0..35).step_by(7) {
        let (first, after) = rest.split_first()?;
        *rest = after;
        value |= u32::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod proofs {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_garbage_is_no_panic() {
        let all = [Status::Passed, Status::Failed, Status::Flaky, Status::Skipped, Status::NotRun];
        let mut tests: Vec<_> = all
            .iter()
            .zip([0, 127, 128, 70_000, u32::MAX])
            .map(|(status, number)| TestRun {
                name: number,
                status: *status,
                excluded: false,
                centis: u32::MAX - number,
            })
            .collect();
        tests.push(TestRun { name: 1, status: Status::Skipped, excluded: true, centis: 0 });
        let bytes = encode(&tests);
        assert_eq!(decode(&bytes), tests);
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).len() < tests.len());
        }
        assert!(decode(&[0xff; 64]).is_empty());
    }
}
