//! Names that the sidecar itself has to find: of an instance that was
//! registered with one. A resolver's socket would go to a name server, which a
//! transparent sidecar may not ask and may not reach (docs/reference/cni.md); so
//! the agent is asked here, too.

use std::io;
use std::net::SocketAddr;

use mesh_dns::{Name, addresses_in, ask, kind};

use super::Transparency;

/// As many addresses of a name are tried.
const MOST: usize = 4;

impl Transparency {
    /// The addresses of a name, in the order in which to try them.
    ///
    /// # Errors
    /// When it has none, or nobody can say.
    pub(crate) async fn lookup(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let is_transparent = self.answers.borrow().is_some();
        // That one is in `/etc/hosts`.
        if !is_transparent || name.eq_ignore_ascii_case("localhost") {
            let found = tokio::net::lookup_host((name, port)).await?;
            return Ok(found.take(MOST).collect());
        }
        let labels = name.strip_suffix('.').unwrap_or(name).split('.');
        let asked = Name::from_labels(labels)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a name of DNS"))?;
        let (ip4, ip6) = tokio::join!(
            self.questions.ask(ask(&asked, kind::A)),
            self.questions.ask(ask(&asked, kind::AAAA)),
        );
        let mut found = Vec::new();
        let mut failed = None;
        for answer in [ip4, ip6] {
            match answer {
                Ok(answer) => found.extend(addresses_in(&answer)),
                Err(error) => failed = Some(error),
            }
        }
        if let (true, Some(error)) = (found.is_empty(), failed) {
            return Err(io::Error::other(format!("{name}: {error}")));
        }
        let at = |ip| SocketAddr::new(ip, port);
        Ok(found.into_iter().take(MOST).map(at).collect())
    }
}
