//! HTTP for the feed: `$export` as Server-Sent Events, with health, metrics and the CapabilityStatement.
//!
//! The crate does not know Postgres: changes come from a [`feed::Feed`], and the state of the database
//! comes as a [`SourceSnapshot`]. Read [`Server`] first, then `routes`, `export` and `stream`.
//! `transport` owns the sockets.
//!
//! ```
//! use sse_api::{EventStream, ServerSettings, SourceSnapshot, bind};
//! use std::io::{Read, Write};
//! use std::sync::Arc;
//! use tokio_util::sync::CancellationToken;
//!
//! # let directory = tempfile::tempdir()?;
//! let options = feed::Options {
//!     directory: directory.path().to_owned(),
//!     retention_bytes: 1 << 30,
//!     retention_age: std::time::Duration::from_secs(3_600),
//!     concurrent_pages: 2,
//!     held_bytes: 8 << 20,
//!     base_urls: fhir::BaseUrls::default(),
//! };
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let (feed, _publisher) = feed::Feed::open(options, Arc::new(EventStream))?;
//! let listen = vec!["127.0.0.1:0".parse()?];
//! let server = bind(ServerSettings { listen, ..ServerSettings::default() }).await?;
//! let address = server.local_addrs().next().ok_or("no address")?;
//!
//! let shutdown = CancellationToken::new();
//! let source = Arc::new(SourceSnapshot::default);
//! let running = tokio::spawn(server.run(feed, source, shutdown.clone()));
//!
//! let answer = tokio::task::spawn_blocking(move || -> std::io::Result<String> {
//!     let mut socket = std::net::TcpStream::connect(address)?;
//!     socket.write_all(b"GET /health/live HTTP/1.0\r\n\r\n")?;
//!     let mut answer = String::new();
//!     socket.read_to_string(&mut answer)?;
//!     Ok(answer)
//! });
//! assert!(answer.await??.ends_with(r#"{"live":true}"#));
//!
//! shutdown.cancel();
//! running.await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod admin;
mod api;
mod clock;
mod export;
mod feed_handle;
mod limits;
mod metrics;
mod request;
mod response;
mod routes;
#[cfg(test)]
mod scripted_feed;
mod server;
mod source;
mod stream;
mod transport;

pub use feed_handle::{FeedHandle, FeedStream};
pub use request::hosts::{InvalidPublicUrl, PublicUrl};
pub use server::{Server, ServerSettings, bind};
pub use source::{Fact, SourceProbe, SourceSnapshot};
pub use stream::framing::EventStream;
pub use transport::listener::{ListenError, is_loopback};
