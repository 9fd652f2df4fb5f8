//! The kinds of virtual machines that can be nodes: a row for each architecture.

use kit::{Arch, Cause, Error, Platform, Result};

use crate::prerequisites::Program;

/// How qemu emulates a whole machine of an architecture, and Debian's kernel for it.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Go's name of the architecture.
    pub(crate) arch: &'static str,
    /// The program, and Debian's package of it.
    pub(crate) qemu: Program,
    /// `-machine` and `-cpu`: where there is one, a processor that no hardware has.
    pub(crate) arguments: &'static [&'static str],
    /// How devices are attached.
    pub(crate) bus: &'static str,
    /// The kernel's name of the console that qemu prints.
    pub(crate) console: &'static str,
    /// Debian's package that stands for the newest kernel.
    pub(crate) kernel: &'static str,
}

/// `pauth-impdef`: pointer authentication as the architecture has it takes most of the time of an emulated arm64.
/// `cap-…=broken`: an emulated POWER9 cannot promise to be safe from Spectre, and qemu would warn of each.
const MACHINES: &[Machine] = &[
    Machine {
        arch: "s390x",
        qemu: Program { name: "qemu-system-s390x", package: "qemu-system-misc" },
        arguments: &["-machine", "s390-ccw-virtio", "-cpu", "max"],
        bus: "ccw",
        console: "ttysclp0",
        kernel: "linux-image-s390x",
    },
    Machine {
        arch: "arm64",
        qemu: Program { name: "qemu-system-aarch64", package: "qemu-system-arm" },
        arguments: &["-machine", "virt", "-cpu", "max,pauth-impdef=on"],
        bus: "pci",
        console: "ttyAMA0",
        kernel: "linux-image-arm64",
    },
    Machine {
        arch: "ppc64le",
        qemu: Program { name: "qemu-system-ppc64", package: "qemu-system-ppc" },
        arguments: &[
            "-machine",
            "pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off",
            "-cpu",
            "POWER9",
        ],
        bus: "pci",
        console: "hvc0",
        kernel: "linux-image-powerpc64le",
    },
];

impl Machine {
    /// The machine of a platform.
    ///
    /// # Errors
    /// [`Cause::Usage`] naming those that there are.
    pub(crate) fn find(platform: &Platform) -> Result<&'static Self> {
        let found = MACHINES.iter().find(|machine| platform.os == "linux" && machine.arch == platform.arch);
        found.ok_or_else(|| {
            let known: Vec<_> = MACHINES.iter().map(|machine| format!("linux/{}", machine.arch)).collect();
            let host = Platform::host();
            Error::new(Cause::Usage, format!("a lab cannot have a node of {platform}"))
                .next(format!("name one of {}; {host} is this machine itself", known.join(", ")))
        })
    }

    /// Its row in the table of architectures.
    pub(crate) fn arch(&self) -> Result<&'static Arch> {
        Arch::find(self.arch)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn others_know_which_machines_there_are() {
        let known: Vec<_> = super::MACHINES.iter().map(|machine| machine.arch).collect();
        assert_eq!(known, kit::record::EMULATED);
    }
}
