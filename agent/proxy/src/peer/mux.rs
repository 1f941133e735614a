//! A `mesh/1` connection to a peer.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use mesh_mux::{CloseReason, Config, Connection, OpenError, Opener, Stream};
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use super::Warm;
use crate::engine::greeting::Greeted;

/// A connection to open streams on. Clones share it; when the last one goes it
/// ends, after its streams.
#[derive(Clone)]
pub(crate) struct MuxClient(Rc<Opener>);

impl MuxClient {
    /// Begins `mesh/1` on a connection, and waits for the other side's
    /// greeting.
    pub(super) async fn begin<T>(io: T, until: Option<(Instant, Instant)>) -> io::Result<Self>
    where
        T: AsyncBufRead + AsyncWrite + Unpin + 'static,
    {
        let (io, greeted) = Greeted::new(io);
        let (opener, driver) = Connection::client(io, Config::default());
        let control = opener.control();
        tokio::task::spawn_local(async move {
            let Some((close, cut)) = until else {
                driver.await;
                return;
            };
            let end = async {
                sleep_until(close).await;
                control.drain();
                sleep_until(cut).await;
            };
            tokio::select! {
                _ = driver => {}
                () = end => {}
            }
        });
        let control = opener.control();
        tokio::select! {
            biased;
            Ok(()) = greeted => Ok(Self(Rc::new(opener))),
            reason = control.closed() => Err(match reason {
                CloseReason::Io(error) => io::Error::other(error),
                other => io::Error::other(other),
            }),
        }
    }

    pub(super) async fn open(&self) -> Result<Stream, OpenError> {
        self.0.open(Bytes::new()).await
    }
}

impl Warm for MuxClient {
    fn is_ended(&self) -> bool {
        self.0.is_closed()
    }

    fn has_room(&self) -> bool {
        self.0.is_ready()
    }

    fn load(&self) -> usize {
        self.0.active_streams()
    }

    fn is_clogged(&self) -> bool {
        self.0.is_clogged()
    }
}
