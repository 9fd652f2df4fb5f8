//! Which modules of its kernel a node loads, and in which order: Debian's packages do not say without running `depmod`.

use std::collections::{BTreeMap, BTreeSet};

use kit::{Cause, Error, Result};

/// What a node needs: disks and network of virtual machines, file systems, the packet filter as kube-proxy and the CNI
/// plugins use it.
pub(crate) const WANTED: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "squashfs",
    "ext4",
    "crc32c_generic",
    "overlay",
    "veth",
    "bridge",
    "br_netfilter",
    "iptable_filter",
    "iptable_mangle",
    "iptable_nat",
    "ipt_REJECT",
    "nf_conntrack_netlink",
    "xt_MASQUERADE",
    "xt_addrtype",
    "xt_comment",
    "xt_conntrack",
    "xt_limit",
    "xt_mark",
    "xt_multiport",
    "xt_nat",
    "xt_recent",
    "xt_statistic",
    "xt_tcpudp",
];

/// The kernel's modules by name, with their paths and contents.
pub(crate) struct Modules<'a> {
    files: BTreeMap<String, (&'a str, &'a [u8])>,
    builtin: BTreeSet<String>,
}

impl<'a> Modules<'a> {
    /// From the files of a kernel's package below `lib/modules/VERSION`.
    pub(crate) fn new(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let (mut modules, mut builtin) = (BTreeMap::new(), BTreeSet::new());
        for (path, content) in files {
            let file = path.rsplit('/').next().unwrap_or_default();
            if let Some(module) = file.strip_suffix(".ko") {
                modules.insert(name(module), (path, content));
            } else if file == "modules.builtin" {
                let text = String::from_utf8_lossy(content);
                let names = text.lines().filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko"));
                builtin.extend(names.map(name));
            }
        }
        Self { files: modules, builtin }
    }

    /// The modules that a node loads: each after those that it needs.
    ///
    /// # Errors
    /// [`Cause::Node`] naming the one that this kernel does not have.
    pub(crate) fn order(&self) -> Result<Vec<(String, &'a [u8])>> {
        let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
        WANTED.iter().try_for_each(|module| self.visit(module, &mut seen, &mut order))?;
        Ok(order)
    }

    fn visit(&self, module: &str, seen: &mut BTreeSet<String>, order: &mut Vec<(String, &'a [u8])>) -> Result<()> {
        let module = name(module);
        if self.builtin.contains(&module) || !seen.insert(module.clone()) {
            return Ok(());
        }
        let missing = || Error::new(Cause::Node, format!("the node's kernel has no module {module}"));
        let (_, content) = self.files.get(&module).ok_or_else(missing)?;
        depends(content).iter().try_for_each(|needed| self.visit(needed, seen, order))?;
        order.push((format!("{module}.ko"), content));
        Ok(())
    }
}

/// Modules are known by both spellings.
fn name(module: &str) -> String {
    module.replace('-', "_")
}

/// What a module says in its section `.modinfo` that it needs: `depends=A,B`, ended by a zero.
fn depends(content: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = content.windows(KEY.len()).position(|bytes| bytes == KEY) else { return Vec::new() };
    let rest = &content[at + KEY.len()..];
    let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(text);
    names.split(',').filter(|text| !text.is_empty()).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_comes_first_and_what_is_built_in_is_not_loaded() {
        let contents: Vec<_> = WANTED
            .iter()
            .map(|module| {
                let needs = if *module == "iptable_nat" { "x-tables,nf_nat" } else { "" };
                (
                    format!("lib/modules/6/{}.ko", module.replace('_', "-")),
                    format!("\0depends={needs}\0name={module}\0"),
                )
            })
            .chain([("k/nf_nat.ko".to_owned(), "\0depends=\0".to_owned())])
            .collect();
        let builtin =
            ("lib/modules/6/modules.builtin".to_owned(), "kernel/x-tables.ko\nkernel/squashfs.ko\n".to_owned());
        let files = contents.iter().chain([&builtin]);
        let modules = Modules::new(files.map(|(path, content)| (path.as_str(), content.as_bytes())));
        let order: Vec<_> = modules.order().unwrap().into_iter().map(|(name, _)| name).collect();
        let at = |name: &str| order.iter().position(|found| found == name);
        assert!(at("nf_nat.ko") < at("iptable_nat.ko") && at("nf_nat.ko").is_some(), "{order:?}");
        assert_eq!((at("x_tables.ko"), at("squashfs.ko")), (None, None));
        assert_eq!(order.len(), WANTED.len());
    }

    #[test]
    fn a_module_that_is_missing_is_named() {
        let error = Modules::new(std::iter::empty()).order().unwrap_err();
        assert!(error.to_string().contains("virtio_pci"), "{error}");
    }
}
