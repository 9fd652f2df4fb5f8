//! The network between host and lab: one veth pair, one subnet, no rule on the host.
//!
//! The interface's name on the host tells its subnet, so that giving it that name is also what reserves the
//! subnet: two labs that start at the same moment cannot get the same one. Its alias tells whose it is.

use std::{fs, net::Ipv4Addr, path::Path, process::Command};

use kit::{
    Cause, Context, Error, Process, Result, Within,
    record::{LabMachine, Subnet},
};
use serde::Deserialize;

use crate::{layout::Layout, prerequisites::command, record::Record};

/// The interfaces of this machine.
pub(crate) const INTERFACES: &str = "/sys/class/net";

/// Addresses of pods, the same in every lab: they exist only in its namespace.
pub(crate) const PODS: &str = "10.244.0.0/16";
/// Addresses of services, likewise.
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// The API server as a service.
pub(crate) const SERVICE_API: &str = "10.96.0.1";
/// Cluster DNS as a service.
pub(crate) const SERVICE_DNS: &str = "10.96.0.10";

/// A range of addresses that this machine uses or routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    address: Ipv4Addr,
    length: u8,
}

fn overlaps(subnet: Subnet, block: Block) -> bool {
    let length = block.length.min(24);
    let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
    (u32::from(subnet.host()) ^ u32::from(block.address)) & mask == 0
}

/// The subnets to try, best first. The name decides where the search begins, so that a lab tends
/// to keep its address.
fn candidates(name: &str, used: &[Block]) -> Vec<Subnet> {
    let digest = kit::digest::hex(name.as_bytes());
    let start = usize::from_str_radix(&digest[..4], 16).unwrap_or(0);
    let all: Vec<_> = (200..=239).flat_map(|x| (0..=255).map(move |y| Subnet(x, y))).collect();
    let rotated = || all.iter().cycle().skip(start % all.len()).take(all.len()).copied();
    let free = |subnet: &Subnet| !used.iter().any(|block| overlaps(*subnet, *block));
    // Where a wide route (a VPN's 10.0.0.0/8) covers everything, a narrow one inside it does no harm.
    let narrow: Vec<_> = used.iter().filter(|block| block.length >= 16).copied().collect();
    let nearly = |subnet: &Subnet| !free(subnet) && !narrow.iter().any(|block| overlaps(*subnet, *block));
    rotated().filter(free).chain(rotated().filter(nearly)).collect()
}

/// Creates the veth pair for a lab and returns its subnet. `wanted` leaves no choice.
pub(crate) fn reserve(layout: &Layout, wanted: Option<Subnet>) -> Result<Subnet> {
    let used = used()?;
    let tries = match wanted {
        Some(subnet) => {
            if let Some(block) = used.iter().find(|block| block.length >= 16 && overlaps(subnet, **block)) {
                return Err(Error::new(
                    Cause::Usage,
                    format!("subnet {subnet} is in use: this machine has {}/{}", block.address, block.length),
                )
                .next("name another one with --subnet, or none"));
            }
            vec![subnet]
        }
        None => candidates(&layout.name, &used),
    };
    create(layout)?;
    for subnet in tries.into_iter().take(64) {
        if take(&draft(layout), subnet)? {
            return Ok(subnet);
        }
    }
    Err(Error::new(Cause::Quota, "no free subnet of 10.200.0.0 to 10.239.255.0 for the lab")
        .next("take other labs down, or name a subnet with --subnet"))
}

/// The name of the lab's interface before it has a subnet. No other lab has the same, so that a killed `up` leaves
/// nothing of which nobody knows whose it is.
fn draft(layout: &Layout) -> String {
    format!("oa{}", &kit::digest::hex(layout.id().as_bytes())[..10])
}

/// The end of a pair that goes into the lab.
fn peer(interface: &str) -> String {
    format!("{interface}p")
}

/// Makes the pair, marked as the lab's.
fn create(layout: &Layout) -> Result<()> {
    let (name, alias) = (draft(layout), layout.alias());
    let batch = format!("link add {name} type veth peer name {}\nlink set dev {name} alias {alias}\n", peer(&name));
    ip(&["-batch", "-"]).input(batch).run().within(|| "cannot create the lab's network interface")
}

/// Gives the interface the name that stands for the subnet; `false` if another lab was faster.
fn take(name: &str, subnet: Subnet) -> Result<bool> {
    match ip(&["link", "set", "dev", name, "name", &subnet.interface()]).run() {
        Ok(()) => Ok(true),
        Err(error) if error.line.as_deref().is_some_and(|line| line.contains("File exists")) => Ok(false),
        Err(error) => Err(error.within("cannot name the lab's network interface")),
    }
}

/// Moves one end into the namespaces of process `pid` and gives both ends their addresses.
///
/// There is no default route in the lab: it has no way out, so what asks for the world fails at
/// once instead of hanging. Services need a route to be looked up at all, before they are translated.
pub(crate) fn connect(layout: &Layout, subnet: Subnet, pid: u32) -> Result<()> {
    let (host, peer) = (subnet.interface(), peer(&draft(layout)));
    let outside = format!(
        "addr replace {}/24 dev {host}\nlink set {host} up\nlink set {peer} netns {pid} name eth0\n",
        subnet.host()
    );
    let inside = format!(
        "link set lo up\naddr replace {}/24 dev eth0\nlink set eth0 up\nroute replace {SERVICES} via {}\n\
         route replace unreachable default metric 4278198272\n",
        subnet.lab(),
        subnet.host()
    );
    ip(&["-batch", "-"]).input(outside).run()?;
    self::inside(pid, &["-batch", "-"]).input(inside).run()
}

/// The addresses of the pods of a node, by its number; 0 is the node that this machine is.
pub(crate) fn pods(node: u8) -> String {
    PODS.replace(".0.0/16", &format!(".{node}.0/24"))
}

/// The lab's end of the wire to a machine.
pub(crate) fn interface(machine: &LabMachine) -> String {
    format!("node{}", machine.number)
}

/// Lays a wire to a machine, inside the lab of process `pid`: the machine and its pods are behind it.
pub(crate) fn attach(record: &Record, machine: &LabMachine, pid: u32) -> Result<()> {
    let (name, lab, address) = (interface(machine), record.address(), machine.address);
    // An `up` that was killed may have come this far.
    let there = inside(pid, &["link", "show", "dev", &name]).run().is_ok();
    let create = if there { String::new() } else { format!("tuntap add dev {name} mode tap\n") };
    let batch = format!(
        "{create}addr replace {lab}/32 dev {name}\nlink set {name} up\nroute replace {address}/32 dev {name}\n\
         route replace {} via {address} dev {name} onlink\n",
        pods(machine.number)
    );
    inside(pid, &["-batch", "-"]).input(batch).run()
}

/// `ip` in the network of process `pid`.
fn inside(pid: u32, arguments: &[&str]) -> Process<'static> {
    let mut enter = command("nsenter");
    enter.args(["--target", &pid.to_string(), "--net", "ip"]).args(arguments);
    quick("network of the lab, inside", enter)
}

/// Removes every interface that is marked as the lab's (and with it the other end), and no other.
pub(crate) fn remove(layout: &Layout) -> Result<()> {
    let entries = fs::read_dir(INTERFACES).cause(Cause::Node, || "cannot list the interfaces")?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let ours = names.filter(|name| *name == draft(layout) || alias(name).as_deref() == Some(&layout.alias()));
    ours.into_iter().try_for_each(|name| match ip(&["link", "del", &name]).run() {
        // It goes by itself with the lab's namespace: it may have been faster.
        Err(error) if exists(&name) => Err(error),
        _ => Ok(()),
    })
}

/// What an interface says whose it is.
pub(crate) fn alias(interface: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new(INTERFACES).join(interface).join("ifalias")).ok()?;
    Some(text.trim_end().to_owned()).filter(|text| !text.is_empty())
}

fn exists(interface: &str) -> bool {
    Path::new(INTERFACES).join(interface).exists()
}

fn ip(arguments: &[&str]) -> Process<'static> {
    let mut ip = command("ip");
    ip.args(arguments);
    quick("network of the lab", ip)
}

fn quick(what: &str, command: Command) -> Process<'static> {
    Process::new(what, command).cause(Cause::Node).limit(std::time::Duration::from_secs(20))
}

/// Every address and route of this machine.
fn used() -> Result<Vec<Block>> {
    let read = |arguments: &[&str]| ip(arguments).read().within(|| "list of the addresses in use");
    let mut blocks = parse_routes(&read(&["-json", "-4", "route", "show", "table", "all"])?)?;
    blocks.extend(parse_addresses(&read(&["-json", "-4", "address", "show"])?)?);
    Ok(blocks)
}

fn parse_routes(json: &str) -> Result<Vec<Block>> {
    #[derive(Deserialize)]
    struct Route {
        dst: Option<String>,
    }
    let routes: Vec<Route> = parse(json)?;
    Ok(routes.iter().filter_map(|route| block(route.dst.as_deref()?)).collect())
}

fn parse_addresses(json: &str) -> Result<Vec<Block>> {
    #[derive(Deserialize)]
    struct Interface {
        #[serde(default)]
        addr_info: Vec<Address>,
    }
    #[derive(Deserialize)]
    struct Address {
        local: Option<Ipv4Addr>,
        prefixlen: Option<u8>,
    }
    let interfaces: Vec<Interface> = parse(json)?;
    let addresses = interfaces.into_iter().flat_map(|interface| interface.addr_info);
    Ok(addresses.filter_map(|a| Some(Block { address: a.local?, length: a.prefixlen? })).collect())
}

fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T> {
    // iproute2 prints nothing at all, not even brackets, when it has nothing to list.
    let json = if json.trim().is_empty() { "[]" } else { json };
    serde_json::from_str(json).cause(Cause::Node, || "ip -json").within(|| "cannot read this machine's addresses")
}

fn block(text: &str) -> Option<Block> {
    let (address, length) = text.split_once('/').unwrap_or((text, "32"));
    // 'default' and IPv6 are no concern of ours.
    Some(Block { address: address.parse().ok()?, length: length.parse().ok().filter(|length| *length <= 32)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(texts: &[&str]) -> Vec<Block> {
        texts.iter().filter_map(|text| block(text)).collect()
    }

    #[test]
    fn a_lab_keeps_its_subnet_and_avoids_what_is_used() {
        let first = candidates("default", &[])[0];
        assert_eq!(first, candidates("default", &[])[0]);
        assert_ne!(first, candidates("other", &[])[0]);
        let used = blocks(&[&first.host().to_string()]);
        assert_ne!(candidates("default", &used)[0], first);
        let all = candidates("default", &blocks(&["10.200.0.0/13", "10.208.0.0/12"]));
        assert!(all.iter().take(256).all(|subnet| subnet.0 >= 224), "{:?}", all[0]);
    }

    #[test]
    fn a_route_over_everything_leaves_a_choice_and_a_default_route_does_not_count() {
        assert_eq!(candidates("default", &blocks(&["10.0.0.0/8"])).len(), 40 * 256);
        assert_eq!(candidates("default", &blocks(&["default"])).len(), 40 * 256);
        assert_eq!(candidates("default", &blocks(&["0.0.0.0/0"])).len(), 40 * 256);
        assert_eq!(candidates("default", &blocks(&["10.200.0.0/16"])).len(), 39 * 256);
    }

    #[test]
    fn reads_what_iproute2_prints() {
        let routes =
            r#"[{"dst":"default","gateway":"192.0.2.1"},{"type":"local","dst":"127.0.0.1"},{"dst":"10.1.0.0/16"}]"#;
        assert_eq!(parse_routes(routes).unwrap(), blocks(&["127.0.0.1/32", "10.1.0.0/16"]));
        let addresses = r#"[{"ifname":"eth0","addr_info":[{"family":"inet","local":"192.0.2.2","prefixlen":24}]},{}]"#;
        assert_eq!(parse_addresses(addresses).unwrap(), blocks(&["192.0.2.2/24"]));
        assert_eq!(parse_routes("").unwrap(), vec![]);
        assert!(parse_routes("{").is_err());
    }
}
