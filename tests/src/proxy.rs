//! A proxy that loses and delays: between the service and Postgres, or between the service and its clients.

use crate::Address;
use anyhow::Result;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where a connection goes on to.
pub enum Target {
    /// A Unix socket: the Postgres of a test.
    Unix(PathBuf),
    /// The server, wherever it listens when a connection comes.
    Server(Address),
}

/// A TCP port in front of a target.
pub struct Proxy {
    address: SocketAddr,
    network: watch::Sender<Network>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Default)]
struct Network {
    /// Nothing passes, and nobody is told.
    frozen: bool,
    /// A connection that was made at an earlier count is gone.
    cuts: u64,
}

impl Proxy {
    /// Listens on a free port.
    pub async fn start(target: Target) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (network, state) = watch::channel(Network::default());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = state.clone();
                match &target {
                    Target::Unix(path) => {
                        let path = path.clone();
                        tokio::spawn(
                            async move { join(client, UnixStream::connect(path).await?, state).await },
                        );
                    }
                    // Without a server the client finds its connection closed.
                    Target::Server(server) => {
                        let Some(server) = server.now() else { continue };
                        tokio::spawn(
                            async move { join(client, TcpStream::connect(server).await?, state).await },
                        );
                    }
                }
            }
        });
        Ok(Self { address, network, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.network.send_modify(|network| network.cuts += 1);
    }

    /// Stops all traffic, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        self.network.send_modify(|network| network.frozen = frozen);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections end as their network does.
        self.task.abort();
    }
}

async fn join<T>(client: TcpStream, target: T, mut network: watch::Receiver<Network>) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    client.set_nodelay(true)?;
    let born = network.borrow().cuts;
    let (from_client, to_client) = client.into_split();
    let (from_target, to_target) = tokio::io::split(target);
    let there = pass(from_client, to_target, network.clone());
    let back = pass(from_target, to_client, network.clone());
    tokio::select! {
        // An error is the end of the proxy.
        _ = network.wait_for(|network| network.cuts != born) => Ok(()),
        both = async { tokio::try_join!(there, back) } => both.map(drop),
    }
}

async fn pass<R, W>(mut from: R, mut to: W, mut network: watch::Receiver<Network>) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if network.wait_for(|network| !network.frozen).await.is_err() {
            return Ok(());
        }
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}
