//! Who may ask: this machine and the allocations on its bridges. Whoever answers everybody is used
//! to flood others with its answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use tokio::time::Instant;

/// How old what is known of the interfaces may be: Nomad makes its bridge when it first needs it.
const FRESH: Duration = Duration::from_secs(2);

/// The machine's own addresses and the networks of its bridges.
#[derive(Debug, Default)]
pub(crate) struct Networks(Mutex<Option<(Instant, Vec<Network>)>>);

/// An address and how many of its first bits others there share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    fn has(&self, caller: IpAddr) -> bool {
        let shared = match (self.address, caller) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return false,
        };
        shared >= self.prefix
    }
}

impl Networks {
    /// Whether a caller is answered.
    pub(crate) fn has(&self, caller: IpAddr) -> bool {
        let caller = caller.to_canonical();
        if caller.is_loopback() {
            return true;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if known.as_ref().is_none_or(|(at, _)| *at + FRESH <= now) {
            *known = Some((now, read()));
        }
        let networks = known.iter().flat_map(|(_, networks)| networks);
        networks.into_iter().any(|it| it.has(caller))
    }
}

fn read() -> Vec<Network> {
    let Ok(interfaces) = getifaddrs() else {
        return Vec::new();
    };
    let networks = interfaces.filter_map(|it| {
        let address = ip(it.address.as_ref()?)?;
        let whole = match address {
            IpAddr::V4(_) => Ipv4Addr::BITS,
            IpAddr::V6(_) => Ipv6Addr::BITS,
        };
        let folder = Path::new("/sys/class/net").join(&it.interface_name);
        let prefix = match (folder.join("bridge").exists(), it.netmask) {
            (true, Some(mask)) => match ip(&mask)? {
                IpAddr::V4(mask) => mask.to_bits().leading_ones(),
                IpAddr::V6(mask) => mask.to_bits().leading_ones(),
            },
            _ => whole,
        };
        Some(Network { address, prefix })
    });
    networks.collect()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let four = address.as_sockaddr_in().map(|it| it.ip().into());
    four.or_else(|| address.as_sockaddr_in6().map(|it| it.ip().into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_machine_is_answered_and_the_world_is_not() {
        let networks = Networks::default();
        let own = |text: &str| networks.has(text.parse().unwrap());
        assert!(own("127.0.0.1") && own("::1") && own("::ffff:127.0.0.1"));
        assert!(!own("192.0.2.1") && !own("2001:db8::1"));
        for one in read() {
            assert!(networks.has(one.address), "{one:?}");
        }
    }

    #[test]
    fn a_network_ends_where_its_prefix_says() {
        let network = |address: &str, prefix| Network {
            address: address.parse().unwrap(),
            prefix,
        };
        let bridge = network("172.26.64.1", 20);
        assert!(bridge.has("172.26.79.254".parse().unwrap()));
        assert!(!bridge.has("172.26.80.1".parse().unwrap()));
        assert!(!bridge.has("fd00::1".parse().unwrap()));
        let six = network("fd00:1::1", 64);
        assert!(six.has("fd00:1::9".parse().unwrap()));
        assert!(!six.has("fd00:1:0:1::9".parse().unwrap()));
        let alone = network("10.0.0.5", 32);
        assert!(alone.has("10.0.0.5".parse().unwrap()) && !alone.has("10.0.0.4".parse().unwrap()));
    }
}
