//! The network between host and lab: one veth pair, one subnet, no rule on the host.
//!
//! The interface's name on the host tells its subnet, so that creating it is also what reserves the
//! subnet: two labs that start at the same moment cannot get the same one.

use std::{fmt, net::Ipv4Addr, process::Command, str::FromStr};

use kit::{Cause, Context, Error, Process, Result, Within};
use serde::{Deserialize, Serialize};

/// Addresses of pods, the same in every lab: they exist only in its namespace.
pub(crate) const PODS: &str = "10.244.0.0/16";
/// Addresses of services, likewise.
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// The API server as a service.
pub(crate) const SERVICE_API: &str = "10.96.0.1";
/// Cluster DNS as a service.
pub(crate) const SERVICE_DNS: &str = "10.96.0.10";

/// `10.x.y.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Subnet(u8, u8);

impl Subnet {
    /// The host's address in it.
    pub(crate) const fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, self.1, 1)
    }

    /// The lab's address in it.
    pub(crate) const fn lab(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, self.1, 2)
    }

    /// The host's interface.
    pub(crate) fn interface(self) -> String {
        format!("oa-{}-{}", self.0, self.1)
    }

    fn overlaps(self, other: Block) -> bool {
        let length = other.length.min(24);
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        (u32::from(self.host()) ^ u32::from(other.address)) & mask == 0
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "10.{}.{}.0/24", self.0, self.1)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl TryFrom<String> for Subnet {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Subnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(Cause::Usage, format!("'{text}' is not a lab's subnet"))
                .next("write 10.X.Y.0/24, outside 10.96.0.0/16 and 10.244.0.0/16")
        };
        let address: Ipv4Addr = text.strip_suffix("/24").and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        match address.octets() {
            [10, 96 | 244, _, _] => Err(wrong()),
            [10, x, y, 0] => Ok(Self(x, y)),
            _ => Err(wrong()),
        }
    }
}

/// A range of addresses that this machine uses or routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    address: Ipv4Addr,
    length: u8,
}

/// The subnets to try, best first. The name decides where the search begins, so that a lab tends
/// to keep its address.
fn candidates(name: &str, used: &[Block]) -> Vec<Subnet> {
    let digest = kit::digest::hex(name.as_bytes());
    let start = usize::from_str_radix(&digest[..4], 16).unwrap_or(0);
    let all: Vec<_> = (200..=239).flat_map(|x| (0..=255).map(move |y| Subnet(x, y))).collect();
    let rotated = || all.iter().cycle().skip(start % all.len()).take(all.len()).copied();
    let free = |subnet: &Subnet| !used.iter().any(|block| subnet.overlaps(*block));
    // Where a wide route (a VPN's 10.0.0.0/8) covers everything, a narrow one inside it does no harm.
    let narrow: Vec<_> = used.iter().filter(|block| block.length >= 16).copied().collect();
    let nearly = |subnet: &Subnet| !free(subnet) && !narrow.iter().any(|block| subnet.overlaps(*block));
    rotated().filter(free).chain(rotated().filter(nearly)).collect()
}

/// Creates the veth pair for a lab and returns its subnet. `wanted` leaves no choice.
pub(crate) fn reserve(name: &str, wanted: Option<Subnet>, record: impl Fn(Subnet) -> Result<()>) -> Result<Subnet> {
    let used = used()?;
    let tries = match wanted {
        Some(subnet) => {
            if let Some(block) = used.iter().find(|block| block.length >= 16 && subnet.overlaps(**block)) {
                return Err(Error::new(
                    Cause::Usage,
                    format!("subnet {subnet} is in use: this machine has {}/{}", block.address, block.length),
                )
                .next("name another one with --subnet, or none"));
            }
            vec![subnet]
        }
        None => candidates(name, &used),
    };
    for subnet in tries.into_iter().take(64) {
        // First on record, then made: a killed `up` must not leave an interface that `down` does not know.
        record(subnet)?;
        if add(subnet)? {
            return Ok(subnet);
        }
    }
    Err(Error::new(Cause::Quota, "no free subnet of 10.200.0.0 to 10.239.255.0 for the lab")
        .next("take other labs down, or name a subnet with --subnet"))
}

/// Makes the pair; `false` if another lab was faster.
fn add(subnet: Subnet) -> Result<bool> {
    let (host, peer) = (subnet.interface(), peer(subnet));
    match ip(&["link", "add", &host, "type", "veth", "peer", "name", &peer]) {
        Ok(()) => Ok(true),
        Err(error) if error.line.as_deref().is_some_and(|line| line.contains("File exists")) => Ok(false),
        Err(error) => Err(error.within("cannot create the lab's network interface")),
    }
}

fn peer(subnet: Subnet) -> String {
    format!("{}p", subnet.interface())
}

/// Moves one end into the namespaces of process `pid` and gives both ends their addresses.
///
/// There is no default route in the lab: it has no way out, so what asks for the world fails at
/// once instead of hanging. Services need a route to be looked up at all, before they are translated.
pub(crate) fn connect(subnet: Subnet, pid: u32) -> Result<()> {
    let (host, peer, pid) = (subnet.interface(), peer(subnet), pid.to_string());
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
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    quick("network of the lab, on the host", command).input(outside).run()?;
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid, "--net", "ip", "-batch", "-"]);
    quick("network of the lab, inside", command).input(inside).run()
}

/// Removes the host's end (and with it the other) if it is there.
pub(crate) fn remove(subnet: Subnet) -> Result<()> {
    let interface = subnet.interface();
    if !exists(&interface) {
        return Ok(());
    }
    match ip(&["link", "del", &interface]) {
        // It goes by itself with the lab's namespace: it may have been faster.
        Err(error) if exists(&interface) => Err(error),
        _ => Ok(()),
    }
}

/// Whether this machine has an interface of that name.
pub(crate) fn exists(interface: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(interface).exists()
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    quick("network of the lab", command).run()
}

fn quick(what: &str, command: Command) -> Process<'static> {
    Process::new(what, command).cause(Cause::Node).limit(std::time::Duration::from_secs(20))
}

/// Every address and route of this machine.
fn used() -> Result<Vec<Block>> {
    let read = |arguments: &[&str]| {
        let mut command = Command::new("ip");
        command.args(arguments);
        quick("list of the addresses in use", command).read()
    };
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
    fn subnets_are_read_as_they_are_written() {
        let subnet: Subnet = "10.213.7.0/24".parse().unwrap();
        assert_eq!((subnet.to_string().as_str(), subnet.interface().as_str()), ("10.213.7.0/24", "oa-213-7"));
        for text in ["10.213.7.0", "10.213.7.1/24", "192.168.0.0/24", "10.96.3.0/24", "10.244.0.0/24", ""] {
            assert_eq!(text.parse::<Subnet>().unwrap_err().cause, Cause::Usage, "{text}");
        }
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
