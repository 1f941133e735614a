//! Which user a connection is of, by the kernel's word.
//!
//! A Unix socket's peer is known when it connects. A TCP connection from this machine has a second
//! socket, the caller's, in the kernel's table (`/proc/net/tcp`, proc(5)), with the uid of who
//! made it. Only a row that is ESTABLISHED and has an inode counts: once its process closed it, a
//! socket belongs to nobody, and the kernel then shows uid 0.

use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A process on this machine, at the other end of a Unix socket.
    Unix { uid: u32, pid: Option<i32> },
    /// A TCP connection: our end and theirs.
    Tcp {
        local: SocketAddr,
        remote: SocketAddr,
    },
}

/// Who made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) uid: u32,
    process: Process,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    Id(Option<i32>),
    /// Whoever has this socket open.
    Socket(u64),
}

impl Caller {
    /// Whether it is the process that we are. Blocks.
    pub(super) fn is_this_process(self) -> io::Result<bool> {
        let inode = match self.process {
            Process::Id(pid) => return Ok(pid == i32::try_from(std::process::id()).ok()),
            Process::Socket(inode) => format!("socket:[{inode}]"),
        };
        for entry in std::fs::read_dir("/proc/self/fd")? {
            // One that was closed meanwhile is not it.
            let target = std::fs::read_link(entry?.path());
            if target.is_ok_and(|target| target.as_os_str() == inode.as_str()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Peer {
    /// The uid of the caller; `None` when the kernel knows none (a caller from elsewhere, or one
    /// that closed its end). Reads the socket table: blocks.
    pub(crate) fn uid(self) -> io::Result<Option<u32>> {
        Ok(self.caller()?.map(|caller| caller.uid))
    }

    /// The same, and what tells its process.
    pub(super) fn caller(self) -> io::Result<Option<Caller>> {
        let (local, remote) = match self {
            Self::Unix { uid, pid } => {
                let process = Process::Id(pid);
                return Ok(Some(Caller { uid, process }));
            }
            Self::Tcp { local, remote } => (canonical(local), canonical(remote)),
        };
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let file = match std::fs::File::open(table) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // no IPv6
                other => other?,
            };
            for line in BufReader::new(file).lines() {
                if let Some(row) = Row::parse(&line?)
                    && row.is(remote, local)
                {
                    return Ok(Some(Caller {
                        uid: row.uid,
                        process: Process::Socket(row.inode),
                    }));
                }
            }
        }
        Ok(None)
    }
}

/// A row of the kernel's table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    established: bool,
    uid: u32,
    inode: u64,
}

impl Row {
    /// `sl local rem st tx:rx tr:when retrnsmt uid timeout inode …`
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = address(fields.next()?)?;
        let remote = address(fields.next()?)?;
        let established = fields.next()? == "01";
        let uid = fields.nth(3)?.parse().ok()?;
        let inode = fields.nth(1)?.parse().ok()?;
        Some(Self {
            local,
            remote,
            established,
            uid,
            inode,
        })
    }

    fn is(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.established && self.inode != 0 && self.local == local && self.remote == remote
    }
}

/// `0100007F:1F40`: the address as words in the machine's own byte order, the port in hex.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::V4(Ipv4Addr::from(v4)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)),
    };
    Some(canonical(SocketAddr::new(ip, port)))
}

/// An IPv4 address, also where it stands in an IPv6 socket.
fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    // As a little-endian machine shows it.
    #[cfg(target_endian = "little")]
    #[test]
    fn reads_the_table() {
        let line = "   1: 0100007F:C6E6 0100007F:2134 01 00000000:00000000 00:00000000 00000000  1000        0 40763 1 0000000000000000 20 4 30 10 -1";
        let row = Row::parse(line).unwrap();
        let local = "127.0.0.1:50918".parse().unwrap();
        let remote = "127.0.0.1:8500".parse().unwrap();
        assert_eq!((row.uid, row.inode), (1000, 40763));
        assert!(row.is(local, remote) && !row.is(remote, local));
        // Closed by its process: TIME_WAIT, or no inode any more. Shown with uid 0.
        let closed = line.replace(" 01 ", " 06 ").replace("1000  ", "0  ");
        assert!(!Row::parse(&closed).unwrap().is(local, remote));
        let orphan = line.replace("40763", "0");
        assert!(!Row::parse(&orphan).unwrap().is(local, remote));
        let mapped = "0000000000000000FFFF00000100007F:C6E6";
        assert_eq!(address(mapped), Some(local));
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when";
        assert_eq!(Row::parse(heading), None);
    }

    #[tokio::test]
    async fn finds_our_own_connection() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(at) else {
                continue; // no IPv6 here
            };
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, remote) = listener.accept().unwrap();
            let peer = Peer::Tcp {
                local: server.local_addr().unwrap(),
                remote,
            };
            let own = nix::unistd::geteuid().as_raw();
            assert_eq!(peer.uid().unwrap(), Some(own));
            let caller = peer.caller().unwrap().unwrap();
            assert!(caller.is_this_process().unwrap());
            drop(client);
            assert!(!caller.is_this_process().unwrap(), "closed");
            assert_eq!(peer.uid().unwrap(), None, "closed by the caller");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "[ 0-9A-F:]{0,120}") {
            let _ = Row::parse(&line);
        }
    }
}
