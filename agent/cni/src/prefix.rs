//! A network prefix, such as `10.0.0.0/8`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and how many of its bits count. The others are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// Reads `address/bits`; nothing when it is not that. An address alone is
    /// not a prefix, as in Nomad.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let bits = crate::config::digits::<u8>(bits)?;
        let address = match address.parse().ok()? {
            IpAddr::V4(address) => {
                let kept = u32::MAX.checked_shl(32u8.checked_sub(bits)?.into());
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & kept.unwrap_or(0)))
            }
            IpAddr::V6(address) => {
                let kept = u128::MAX.checked_shl(128u8.checked_sub(bits)?.into());
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & kept.unwrap_or(0)))
            }
        };
        Some(Self { address, bits })
    }

    /// Whether it is one of IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_that_do_not_count_are_zero() {
        for (text, is) in [
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("10.1.2.3/32", Some("10.1.2.3/32")),
            ("10.1.2.3/0", Some("0.0.0.0/0")),
            ("fd00:1::1/16", Some("fd00::/16")),
            ("::1/128", Some("::1/128")),
            ("::1/0", Some("::/0")),
            ("10.1.2.3", None),
            ("10.1.2.3/33", None),
            ("::1/129", None),
            ("10.1.2.3/+8", None),
            ("10.1.2/8", None),
            ("10.1.2.3/", None),
            ("fe80::1%eth0/64", None),
            ("10.1.2.3/8 -j ACCEPT", None),
        ] {
            let parsed = Prefix::parse(text).map(|prefix| prefix.to_string());
            assert_eq!(parsed.as_deref(), is, "{text}");
        }
    }
}
