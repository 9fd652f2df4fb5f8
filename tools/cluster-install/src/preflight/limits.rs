//! What is asked of a cluster in numbers: versions, bytes.

use kit::{Cause, Error, Result, ci};

/// Versions of Kubernetes that will do, both ends among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions(ci::Versions);

/// The first version whose server-side apply, aggregated discovery and Job labels are what we use.
const OLDEST: &str = "1.27";

impl Versions {
    /// `1.28` for that and newer ones, `1.28..1.40`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        ci::Versions::parse(text).map(Self).map_err(|error| error.within("Kubernetes"))
    }

    /// Those that we can speak to.
    pub(crate) fn any() -> Result<Self> {
        Self::parse(OLDEST)
    }

    /// Why a server's `gitVersion` will not do.
    pub(crate) fn refuse(self, git_version: &str) -> Option<String> {
        match self.0.hold(git_version) {
            Some(true) => None,
            Some(false) => Some(format!("Kubernetes {git_version}, and {} is wanted", self.0)),
            None => Some(format!("'{git_version}' is no version")),
        }
    }
}

/// Bytes as Kubernetes writes them: `2Gi`, `512Mi`, `1G`, `100000`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor: Option<u64> = match unit {
        "" => Some(1),
        "k" => Some(1000),
        "M" => Some(1000_u64.pow(2)),
        "G" => Some(1000_u64.pow(3)),
        "T" => Some(1000_u64.pow(4)),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1 << 30),
        "Ti" => Some(1 << 40),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    bytes.ok_or_else(|| {
        Error::new(Cause::Usage, format!("'{text}' is no number of bytes")).next("write for instance 2Gi or 512Mi")
    })
}

/// The same for people.
pub(crate) fn bytes(count: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let of = |unit: u64| count as f64 / unit as f64;
    match count {
        0..1_048_576 => format!("{:.0} KiB", of(1 << 10)),
        1_048_576..1_073_741_824 => format!("{:.0} MiB", of(1 << 20)),
        _ => format!("{:.1} GiB", of(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_range() {
        let refuse = |range: &str, version: &str| Versions::parse(range).unwrap().refuse(version);
        assert_eq!(refuse("1.28", "v1.37.2"), None);
        assert_eq!(refuse("1.28..1.37", "v1.37.2+k3s1"), None);
        assert_eq!(refuse("1.28", "v1.9.0").unwrap(), "Kubernetes v1.9.0, and 1.28 or newer is wanted");
        assert_eq!(refuse("1.28..1.36", "v1.37.2").unwrap(), "Kubernetes v1.37.2, and 1.28 to 1.36 is wanted");
        assert_eq!(refuse("1.28", "v1.27+").unwrap(), "Kubernetes v1.27+, and 1.28 or newer is wanted");
        assert!(refuse("1.28", "none").is_some());
        for wrong in ["", "1", "new", "1.30..1.28", "1.28..", "..1.28"] {
            assert_eq!(Versions::parse(wrong).unwrap_err().cause, Cause::Usage, "{wrong}");
        }
        Versions::any().unwrap();
    }

    #[test]
    fn bytes_as_kubernetes_writes_them() {
        assert_eq!(parse_bytes("2Gi").unwrap(), 2 << 30);
        assert_eq!(parse_bytes("10k").unwrap(), 10_000);
        assert_eq!(parse_bytes("7").unwrap(), 7);
        for wrong in ["", "Gi", "-1", "1X", "99999999999Ti"] {
            assert_eq!(parse_bytes(wrong).unwrap_err().cause, Cause::Usage, "{wrong}");
        }
        assert_eq!((bytes(2 << 30), bytes(3 << 20), bytes(1024)), ("2.0 GiB".into(), "3 MiB".into(), "1 KiB".into()));
    }
}
