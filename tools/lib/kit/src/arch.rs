//! The one table of architecture names, and the platforms that are written with them.
//!
//! Every other spelling of an architecture in this workspace is looked up here, so that "the
//! architecture asked for is the architecture got" can be checked at each hand-over.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Cause, Error, Result};

/// Byte order of a machine's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first (s390x).
    Big,
}

/// One row of the table: an architecture under all its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Arch {
    /// `GOARCH`, which is also OCI's `architecture` (OCI image-spec, config.md).
    pub go: &'static str,
    /// What `uname -m` prints on it.
    pub uname: &'static str,
    /// Debian's port.
    pub debian: &'static str,
    /// Alpine's port.
    pub alpine: &'static str,
    /// The variant that OCI's default means: containerd takes `arm64/v8` for `arm64`, `amd64/v1` for `amd64`
    /// (platforms/database.go, normalizeArch).
    pub variant: Option<&'static str>,
    /// Rust's target triple with glibc.
    pub rust: &'static str,
    /// qemu's name, as in `qemu-system-…` and `qemu-user-…`.
    pub qemu: &'static str,
    /// `e_machine` of the ELF header (System V ABI).
    pub elf_machine: u16,
    /// 64 or 32, from `EI_CLASS`.
    pub elf_class: u8,
    /// From `EI_DATA`.
    pub byte_order: ByteOrder,
    /// `Machine` of the PE header where Windows runs on it.
    pub pe_machine: Option<u16>,
}

use ByteOrder::{Big, Little};

/// Every architecture that we know; [`Arch::find`] looks a name up.
#[rustfmt::skip]
pub const ARCHES: &[Arch] = &[
    Arch { go: "amd64",    uname: "x86_64",      debian: "amd64",    alpine: "x86_64",      variant: Some("v1"), rust: "x86_64-unknown-linux-gnu",        qemu: "x86_64",      elf_machine: 62,  elf_class: 64, byte_order: Little, pe_machine: Some(0x8664) },
    Arch { go: "arm64",    uname: "aarch64",     debian: "arm64",    alpine: "aarch64",     variant: Some("v8"), rust: "aarch64-unknown-linux-gnu",       qemu: "aarch64",     elf_machine: 183, elf_class: 64, byte_order: Little, pe_machine: Some(0xaa64) },
    Arch { go: "s390x",    uname: "s390x",       debian: "s390x",    alpine: "s390x",       variant: None,       rust: "s390x-unknown-linux-gnu",         qemu: "s390x",       elf_machine: 22,  elf_class: 64, byte_order: Big,    pe_machine: None },
    Arch { go: "ppc64le",  uname: "ppc64le",     debian: "ppc64el",  alpine: "ppc64le",     variant: None,       rust: "powerpc64le-unknown-linux-gnu",   qemu: "ppc64le",     elf_machine: 21,  elf_class: 64, byte_order: Little, pe_machine: None },
    Arch { go: "arm",      uname: "armv7l",      debian: "armhf",    alpine: "armv7",       variant: Some("v7"), rust: "armv7-unknown-linux-gnueabihf",   qemu: "arm",         elf_machine: 40,  elf_class: 32, byte_order: Little, pe_machine: Some(0x01c4) },
    Arch { go: "riscv64",  uname: "riscv64",     debian: "riscv64",  alpine: "riscv64",     variant: None,       rust: "riscv64gc-unknown-linux-gnu",     qemu: "riscv64",     elf_machine: 243, elf_class: 64, byte_order: Little, pe_machine: None },
    Arch { go: "loong64",  uname: "loongarch64", debian: "loong64",  alpine: "loongarch64", variant: None,       rust: "loongarch64-unknown-linux-gnu",   qemu: "loongarch64", elf_machine: 258, elf_class: 64, byte_order: Little, pe_machine: None },
    Arch { go: "386",      uname: "i686",        debian: "i386",     alpine: "x86",         variant: None,       rust: "i686-unknown-linux-gnu",          qemu: "i386",        elf_machine: 3,   elf_class: 32, byte_order: Little, pe_machine: Some(0x014c) },
    Arch { go: "mips64le", uname: "mips64",      debian: "mips64el", alpine: "mips64el",    variant: None,       rust: "mips64el-unknown-linux-gnuabi64", qemu: "mips64el",    elf_machine: 8,   elf_class: 64, byte_order: Little, pe_machine: None },
    Arch { go: "ppc64",    uname: "ppc64",       debian: "ppc64",    alpine: "ppc64",       variant: None,       rust: "powerpc64-unknown-linux-gnu",     qemu: "ppc64",       elf_machine: 21,  elf_class: 64, byte_order: Big,    pe_machine: None },
];

impl Arch {
    /// The row that has `name` in any of its spellings (case does not matter).
    ///
    /// # Errors
    /// [`Cause::Usage`] when no row has it; the message lists the names that exist.
    pub fn find(name: &str) -> Result<&'static Self> {
        let spelled = name.to_ascii_lowercase();
        let matches = |arch: &&Self| {
            [arch.go, arch.uname, arch.debian, arch.alpine, arch.rust, arch.qemu].contains(&spelled.as_str())
        };
        // Go's own names win: Debian's and qemu's agree with them wherever two rows share one.
        ARCHES.iter().find(|arch| arch.go == spelled).or_else(|| ARCHES.iter().find(matches)).ok_or_else(|| {
            let known: Vec<_> = ARCHES.iter().map(|arch| arch.go).collect();
            Error::new(Cause::Usage, format!("unknown architecture '{name}'")).next(format!(
                "known: {} (also by their names in uname, Debian, Alpine, Rust and qemu)",
                known.join(", ")
            ))
        })
    }

    /// The row of the machine that this program was compiled for.
    #[must_use]
    pub fn host() -> &'static Self {
        Self::find(std::env::consts::ARCH).unwrap_or(&ARCHES[0])
    }
}

/// An OCI platform: `os/architecture[/variant][:os.version]`, as ko and containerd write it.
///
/// Variants are normalised when it is read, as containerd's platforms.Normalize does, so that two spellings
/// of one platform compare equal: `linux/arm64/v8` is `linux/arm64`, and `linux/arm` is `linux/arm/v7`. Arm's
/// variant is always written, because ko takes `linux/arm` for every variant that a base has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    /// `linux` or `windows`.
    pub os: String,
    /// Go's name of the architecture.
    pub arch: String,
    /// Only where it says more than the default, such as `v3` for amd64; of arm always, whose default is `v7`.
    pub variant: Option<String>,
    /// Windows' version, `10.0.17763.1234`.
    pub os_version: Option<String>,
}

impl Platform {
    /// `linux` on this machine's architecture.
    #[must_use]
    pub fn host() -> Self {
        Self { os: "linux".into(), arch: Arch::host().go.into(), variant: None, os_version: None }
    }

    /// From OCI's separate fields, normalised.
    #[must_use]
    pub fn from_parts(os: &str, arch: &str, variant: Option<&str>, os_version: Option<&str>) -> Self {
        let row = ARCHES.iter().find(|row| row.go == arch || row.uname == arch);
        let (arch, implied) = row.map_or((arch, None), |row| (row.go, row.variant));
        let variant = variant.filter(|variant| !variant.is_empty()).map(|variant| match variant {
            // Old images have the number alone.
            number if arch.starts_with("arm") && number.bytes().all(|b| b.is_ascii_digit()) => format!("v{number}"),
            other => other.to_ascii_lowercase(),
        });
        let variant = match arch {
            "arm" => variant.or_else(|| implied.map(Into::into)),
            _ => variant.filter(|variant| Some(variant.as_str()) != implied),
        };
        Self {
            os: os.into(),
            arch: arch.into(),
            variant,
            os_version: os_version.filter(|v| !v.is_empty()).map(Into::into),
        }
    }

    /// The table's row of its architecture.
    ///
    /// # Errors
    /// [`Cause::Usage`] for an architecture that is not in the table.
    pub fn row(&self) -> Result<&'static Arch> {
        Arch::find(&self.arch)
    }

    /// As a folder's name: `linux-arm64`, `linux-arm-v7`.
    #[must_use]
    pub fn dir(&self) -> String {
        self.to_string().replace(['/', ':'], "-")
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        if let Some(version) = &self.os_version {
            write!(f, ":{version}")?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(Cause::Usage, format!("'{text}' is not a platform")).next(
                "write os/architecture[/variant][:version], for instance linux/s390x, linux/arm/v6 or \
                 windows/amd64:10.0.17763",
            )
        };
        let (path, version) = text.split_once(':').map_or((text, None), |(path, version)| (path, Some(version)));
        let parts: Vec<_> = path.split('/').collect();
        let (os, arch, variant) = match parts[..] {
            [os, arch] => (os, arch, None),
            [os, arch, variant] if !variant.is_empty() => (os, arch, Some(variant)),
            _ => return Err(wrong()),
        };
        if !["linux", "windows"].contains(&os) {
            return Err(Error::new(Cause::Usage, format!("unknown operating system '{os}' in platform '{text}'"))
                .next("known: linux, windows"));
        }
        let row = Arch::find(arch)?;
        if os == "windows" && row.pe_machine.is_none() {
            return Err(Error::new(Cause::Usage, format!("there is no Windows on {}, as in '{text}'", row.go)));
        }
        // Three numbers and perhaps the revision, as ko compares them; only Windows has them.
        let is_version = |version: &str| {
            let parts: Vec<_> = version.split('.').collect();
            (2..=4).contains(&parts.len())
                && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        };
        if version.is_some_and(|version| os != "windows" || !is_version(version)) {
            return Err(wrong());
        }
        Ok(Self::from_parts(os, row.go, variant, version))
    }
}

impl Serialize for Platform {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // A record may hold whatever an image says of itself; only what users type must be known to us.
        let (path, version) =
            text.split_once(':').map_or((text.as_str(), None), |(path, version)| (path, Some(version)));
        let mut parts = path.splitn(3, '/');
        let (os, arch, variant) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        match arch {
            Some(arch) if text.len() <= 200 => Ok(Self::from_parts(os, arch, variant, version)),
            _ => Err(serde::de::Error::custom(format!("'{text}' is not a platform"))),
        }
    }
}

impl JsonSchema for Platform {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Platform".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "os/architecture[/variant][:os.version]",
            "pattern": "^[^/:]*/[^/:]*(/[^:]+)?(:.+)?$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_finds_its_row() {
        for arch in ARCHES {
            for name in [arch.go, arch.uname, arch.debian, arch.rust, arch.qemu] {
                assert_eq!(Arch::find(name).unwrap().go, arch.go, "{name}");
            }
        }
        assert_eq!(Arch::find("AArch64").unwrap().go, "arm64");
        assert_eq!(Arch::find("vax").unwrap_err().cause, Cause::Usage);
    }

    #[test]
    fn variants_are_normalised() {
        let plain: Platform = "linux/arm64".parse().unwrap();
        assert_eq!("linux/arm64/v8".parse::<Platform>().unwrap(), plain);
        assert_eq!("linux/aarch64".parse::<Platform>().unwrap(), plain);
        for (text, normal) in [
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/armv7l", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("windows/amd64:10.0.17763", "windows/amd64:10.0.17763"),
            ("windows/amd64:10.0.17763.1234", "windows/amd64:10.0.17763.1234"),
        ] {
            let platform: Platform = text.parse().unwrap();
            assert_eq!(platform.to_string(), normal);
            // What is printed, recorded or put together from OCI's fields is the same platform again.
            assert_eq!(normal.parse::<Platform>().unwrap(), platform);
            assert_eq!(serde_json::from_value::<Platform>(serde_json::json!(text)).unwrap(), platform);
            let Platform { os, arch, variant, os_version } = &platform;
            assert_eq!(Platform::from_parts(os, arch, variant.as_deref(), os_version.as_deref()), platform);
        }
        assert_eq!("linux/arm".parse::<Platform>().unwrap().dir(), "linux-arm-v7");
    }

    #[test]
    fn what_an_image_says_of_itself_can_be_recorded_and_read() {
        for (os, arch, variant) in [("wasip1", "wasm", None), ("", "", None), ("linux", "amd64", Some("v3"))] {
            let platform = Platform::from_parts(os, arch, variant, None);
            let text = serde_json::to_string(&platform).unwrap();
            assert_eq!(serde_json::from_str::<Platform>(&text).unwrap(), platform, "{text}");
        }
        assert!(serde_json::from_str::<Platform>("\"linux\"").is_err());
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for text in [
            "",
            "linux",
            "linux/",
            "linux/amd64/",
            "plan9/amd64",
            "linux/amd64/v1/x",
            "all",
            "windows/s390x",
            "windows/amd64:",
            "windows/amd64:ltsc2019",
            "windows/amd64:10..1",
            "linux/amd64:5.10",
        ] {
            let error = text.parse::<Platform>().unwrap_err();
            assert_eq!(error.cause, Cause::Usage, "{text}");
        }
    }
}
