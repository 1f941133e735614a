//! Virtual addresses: what a name of the mesh means to an application whose
//! connections are intercepted. No machine has one; the sidecar beside the
//! application takes the connection and knows by the address which service is
//! meant.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// 240.0.0.0, of which the addresses are offsets.
const BASE: u32 = 0xf000_0000;

/// Of the IPv6 addresses, the upper 96 bits: a unique local prefix (RFC 4193),
/// whose global id spells `meshv`. The same in every mesh, since an address is
/// only ever seen between an application and the sidecar beside it.
const PREFIX: [u16; 6] = [0xfd6d, 0x6573, 0x6876, 0, 0, 0];

/// An address of a service: one of 240.0.0.0/4, and its twin in
/// `fd6d:6573:6876::/96`, which has it in its last 32 bits.
///
/// Neither 240.0.0.0 itself is one, nor anything of 255.0.0.0/8, of which
/// systems take the last for the broadcast address and some refuse more.
///
/// Reads and prints as its IPv4 form; reads its IPv6 form too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Ipv4Addr", into = "Ipv4Addr")]
pub struct VirtualAddress(u32);

/// An address that is no virtual one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no virtual address; those are 240.0.0.1 to 254.255.255.255, and the same below fd6d:6573:6876::/96"
)]
pub struct NotVirtual(String);

impl VirtualAddress {
    /// How many there are.
    pub const COUNT: u32 = 0x0eff_ffff;

    /// The one with this number, from 0; `None` from [`Self::COUNT`] on.
    pub fn nth(number: u32) -> Option<Self> {
        (number < Self::COUNT).then(|| Self(number + 1))
    }

    /// The virtual address that this one is, in either form or as an IPv4
    /// address mapped into IPv6. `None`: it is none of the mesh's.
    pub fn of(address: IpAddr) -> Option<Self> {
        let bits = match address.to_canonical() {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, high, low] = address.segments();
                if [a, b, c, d, e, f] != PREFIX {
                    return None;
                }
                u32::from(high) << 16 | u32::from(low)
            }
        };
        Self::nth(bits.checked_sub(BASE)?.checked_sub(1)?)
    }

    /// Of 240.0.0.0/4.
    pub fn ip4(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(BASE + self.0)
    }

    /// Of `fd6d:6573:6876::/96`.
    pub fn ip6(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = PREFIX;
        let [w, x, y, z] = self.ip4().octets();
        let (high, low) = (u16::from_be_bytes([w, x]), u16::from_be_bytes([y, z]));
        Ipv6Addr::new(a, b, c, d, e, f, high, low)
    }
}

impl fmt::Display for VirtualAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip4().fmt(f)
    }
}

impl FromStr for VirtualAddress {
    type Err = NotVirtual;

    fn from_str(text: &str) -> Result<Self, NotVirtual> {
        let refuse = || NotVirtual(text.chars().take(64).collect());
        let address = text.parse().map_err(|_| refuse())?;
        Self::of(address).ok_or_else(refuse)
    }
}

impl TryFrom<Ipv4Addr> for VirtualAddress {
    type Error = NotVirtual;

    fn try_from(address: Ipv4Addr) -> Result<Self, NotVirtual> {
        Self::of(address.into()).ok_or_else(|| NotVirtual(address.to_string()))
    }
}

impl From<VirtualAddress> for Ipv4Addr {
    fn from(address: VirtualAddress) -> Self {
        address.ip4()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_forms_are_one_address() {
        for (number, ip4, ip6) in [
            (0, "240.0.0.1", "fd6d:6573:6876::f000:1"),
            (0x0001_0202, "240.1.2.3", "fd6d:6573:6876::f001:203"),
            (
                VirtualAddress::COUNT - 1,
                "254.255.255.255",
                "fd6d:6573:6876::feff:ffff",
            ),
        ] {
            let address = VirtualAddress::nth(number).unwrap();
            assert_eq!(address.to_string(), ip4);
            assert_eq!(address.ip4().to_string(), ip4);
            assert_eq!(address.ip6().to_string(), ip6);
            for text in [ip4, ip6, &format!("::ffff:{ip4}")] {
                assert_eq!(text.parse(), Ok(address), "{text}");
            }
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(json, format!("\"{ip4}\""));
            assert_eq!(
                serde_json::from_str::<VirtualAddress>(&json).unwrap(),
                address
            );
        }
        assert_eq!(VirtualAddress::nth(VirtualAddress::COUNT), None);
        assert_eq!(VirtualAddress::nth(u32::MAX), None);
    }

    #[test]
    fn what_is_no_address_of_ours_is_refused() {
        for text in [
            "",
            "240.0.0.0",
            "239.255.255.255",
            "255.0.0.0",
            "255.255.255.255",
            "10.0.0.1",
            "::",
            "::1",
            "fd6d:6573:6876::",
            "fd6d:6573:6876::f000:0",
            "fd6d:6573:6876::a00:1",
            "fd6d:6573:6876::ff00:0",
            "fd6d:6573:6876:0:0:1:f000:1",
            "fd6d:6573:6877::f000:1",
            "::ffff:10.0.0.1",
            "240.1.2.3/32",
            "240.1.2.3:80",
        ] {
            assert!(text.parse::<VirtualAddress>().is_err(), "{text}");
            let json = serde_json::to_string(text).unwrap();
            assert!(
                serde_json::from_str::<VirtualAddress>(&json).is_err(),
                "{text}"
            );
        }
        let error = "x".repeat(500).parse::<VirtualAddress>().unwrap_err();
        assert!(error.to_string().len() < 200, "{error}");
    }
}
