//! Strangers who take connections and want nothing.

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Connections that are held until this is dropped, as far as the other side lets them.
pub struct Takers(Vec<TcpStream>);

impl Takers {
    /// So many, of which some say nothing, some begin a request and do not end it, and some talk another language.
    pub async fn take(address: SocketAddr, count: usize) -> Result<Self> {
        let mut taken = Vec::with_capacity(count);
        for number in 0..count {
            let mut socket = TcpStream::connect(address).await?;
            let words: &[u8] = match number % 4 {
                0 => b"GET /fhir/$export HTTP/1.1\r\nHost: local",
                1 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                _ => b"",
            };
            // It may be closed already.
            let _ = socket.write_all(words).await;
            taken.push(socket);
        }
        Ok(Self(taken))
    }

    /// How many of them the other side still holds, as far as can be seen.
    pub fn held(&self) -> usize {
        let open = |socket: &&TcpStream| matches!(socket.try_read(&mut [0; 1024]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        self.0.iter().filter(open).count()
    }
}

/// Lets this process have as many files open as it may.
pub(crate) fn raise_descriptors() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}
