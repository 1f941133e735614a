//! `host:port`, where the host is an address or a name for the resolver.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use crate::transparent::Transparency;

/// An address, or a name for the resolver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Ip(IpAddr),
    Name(Arc<str>),
}

impl FromStr for Host {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(ip) = bare.parse() {
            return Ok(Self::Ip(ip));
        }
        let fits = !text.is_empty()
            && text.len() <= 253
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        match fits {
            true => Ok(Self::Name(Arc::from(text))),
            false => Err("not an address and not a host name"),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

impl Address {
    /// The addresses to try, in order. Only a name needs the resolver, which
    /// runs on another thread, or the agent.
    pub(crate) async fn resolve(&self, transparent: &Transparency) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, self.port)]),
            // Boxed, since it is rare: what it needs is not held by all.
            Host::Name(name) => Box::pin(transparent.lookup(name, self.port)).await,
        }
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or("not of the form host:port")?;
        Ok(Self {
            host: host.parse()?,
            port: port
                .parse()
                .map_err(|_| "the port is not a number up to 65535")?,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn forms() {
        for (text, again) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("app.local:8080", "app.local:8080"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), again);
        }
        for text in ["", "app", "app:", "app:70000", ":80", "a b:80", "a/b:1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
