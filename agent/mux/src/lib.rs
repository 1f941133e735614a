//! `mesh/1`: many byte streams over one connection.
//!
//! Between two sidecars a TLS handshake costs far more than a small exchange,
//! and a `send` costs more than everything else that a proxy does to one. So
//! the TCP connections of a service share one warm connection to each peer,
//! and everything that is ready in one turn of the loop leaves in one write.
//! The wire form is `docs/reference/mesh-1.md`; it is spoken over mTLS with the
//! ALPN token [`ALPN`], but this crate works over any byte pipe.
//!
//! - One [`Driver`] future a connection does all I/O. A [`Stream`] has no task,
//!   and no buffer while nothing is in it; it only appends to the connection's
//!   write buffer and takes from what the driver handed to it.
//! - Credit for each stream and for the connection bounds what an endpoint
//!   holds for slow readers; a stream that nobody reads blocks no other one.
//! - Writers that find the buffer full take turns, first come first served.
//! - A peer that breaks a rule ends the connection, with a reason for both ends.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use mesh_mux::{Config, Connection};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
//!
//! let (near, far) = tokio::io::duplex(4096);
//! let (opener, client) = Connection::client(BufReader::new(near), Config::default());
//! let (mut acceptor, server) = Connection::server(BufReader::new(far), Config::default());
//! tokio::spawn(client);
//! tokio::spawn(server);
//! tokio::spawn(async move {
//!     while let Some(mut incoming) = acceptor.accept().await {
//!         assert_eq!(&incoming.metadata[..], b"to=payment");
//!         let _ = incoming.stream.write_all(b"hello").await;
//!         let _ = incoming.stream.shutdown().await;
//!     }
//! });
//!
//! let mut stream = opener.open("to=payment".into()).await.unwrap();
//! stream.shutdown().await.unwrap();
//! let mut text = String::new();
//! stream.read_to_string(&mut text).await.unwrap();
//! assert_eq!(text, "hello");
//! # });
//! ```
#![forbid(unsafe_code)]

mod acceptor;
mod config;
mod connection;
mod decode;
mod driver;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod later;
mod opener;
mod outbox;
mod scratch;
mod state;
mod stream;
mod wire;

pub use acceptor::{Acceptor, Incoming};
pub use config::Config;
pub use connection::{Connection, Control, Stats};
pub use driver::Driver;
pub use error::{CloseReason, ErrorCode, OpenError, ResetCode, StreamError, Violation};
pub use later::Later;
pub use opener::Opener;
pub use scratch::let_go;
pub use stream::Stream;
pub use wire::{ALPN, MAX_METADATA, MAX_PAYLOAD};
