//! Where a redirected connection was going.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::SockRef;
use tokio::net::TcpStream;

/// Who says where a redirected connection was going.
#[derive(Clone, Default)]
pub enum OriginalDestination {
    /// The kernel, which redirected it.
    #[default]
    Kernel,
    /// A test, by the address that the connection comes from: nothing is
    /// redirected there.
    Given(Arc<dyn Fn(SocketAddr) -> Option<SocketAddr> + Send + Sync>),
}

impl OriginalDestination {
    /// Where it was going; `None`: here, and nobody redirected it.
    pub(crate) fn of(&self, socket: &TcpStream) -> Option<SocketAddr> {
        let here = socket.local_addr().ok()?;
        let there = match self {
            Self::Given(of) => of(socket.peer_addr().ok()?)?,
            Self::Kernel => {
                let socket = SockRef::from(socket);
                let there = match here {
                    SocketAddr::V4(_) => socket.original_dst_v4(),
                    SocketAddr::V6(_) => socket.original_dst_v6(),
                };
                // Where nothing was ever redirected the kernel knows nothing.
                there.ok()?.as_socket()?
            }
        };
        let same = there.ip().to_canonical() == here.ip() && there.port() == here.port();
        (!same).then_some(there)
    }
}

impl fmt::Debug for OriginalDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "Kernel",
            Self::Given(_) => "Given(..)",
        })
    }
}
