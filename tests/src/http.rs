//! HTTP/1.1 over a raw socket: what is sent and what comes back, byte for byte.

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BytesMut};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The answer to one request; the body is read from the socket as it is asked for.
pub struct Response {
    /// The head as it came, with the empty line.
    pub head: Vec<u8>,
    /// The status code.
    pub status: u16,
    /// Names as they came, and values.
    pub headers: Vec<(String, String)>,
    socket: TcpStream,
    bytes: BytesMut,
    body: Body,
}

enum Body {
    /// So many bytes of the present chunk are still to come (with the line end after it).
    Chunks {
        left: usize,
    },
    Length(usize),
    UntilClosed,
    Ended,
}

/// How much is read at once, at least.
const READ: usize = 16 << 10;

/// Sends a request line and headers (lines, without the empty one), and reads the head of the answer.
pub async fn send(address: SocketAddr, request: &str) -> Result<Response> {
    let socket = TcpStream::connect(address).await.context("cannot connect to the server")?;
    send_on(socket, request).await
}

/// As [`get`], over a connection with the smallest receive buffer: what is not read waits in the server.
pub async fn get_with_little_room(address: SocketAddr, target: &str, headers: &str) -> Result<Response> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let socket = socket.connect(address).await.context("cannot connect to the server")?;
    send_on(socket, &get_request(address, target, headers)).await
}

async fn send_on(mut socket: TcpStream, request: &str) -> Result<Response> {
    socket.set_nodelay(true)?;
    socket.write_all(request.as_bytes()).await?;
    let bodyless = request.starts_with("HEAD ");
    let mut bytes = BytesMut::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        ensure!(
            socket.read_buf(&mut bytes).await? > 0,
            "the server closed the connection before it answered"
        );
    };
    let head = bytes.split_to(end).to_vec();
    let text = String::from_utf8(head.clone()).context("the head is not UTF-8")?;
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let find = |wanted: &str| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let body = if bodyless {
        Body::Ended
    } else if find("transfer-encoding").is_some_and(|(_, value)| value == "chunked") {
        Body::Chunks { left: 0 }
    } else if let Some((_, length)) = find("content-length") {
        Body::Length(length.parse()?)
    } else {
        Body::UntilClosed
    };
    Ok(Response { head, status, headers, socket, bytes, body })
}

/// A GET with headers (lines with CR LF), `Host` included by itself.
pub async fn get(address: SocketAddr, target: &str, headers: &str) -> Result<Response> {
    send(address, &get_request(address, target, headers)).await
}

fn get_request(address: SocketAddr, target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n")
}

impl Response {
    /// The value of a header.
    pub fn header(&self, wanted: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.as_str())
    }

    /// The next bytes of the body, as they arrive; `None` at its end. A connection that ends in the middle of it is
    /// an error.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            match &mut self.body {
                Body::Ended => return Ok(None),
                Body::UntilClosed => {
                    let more = !self.bytes.is_empty() || self.read().await? > 0;
                    let bytes = self.bytes.split().to_vec();
                    return Ok(more.then_some(bytes));
                }
                Body::Length(0) => self.body = Body::Ended,
                Body::Length(left) => {
                    if !self.bytes.is_empty() {
                        let bytes = self.bytes.split_to(self.bytes.len().min(*left)).to_vec();
                        *left -= bytes.len();
                        return Ok(Some(bytes));
                    }
                    self.must_read().await?;
                }
                Body::Chunks { left: 0 } => {
                    let Some(end) = memchr::memmem::find(&self.bytes, b"\r\n") else {
                        self.must_read().await?;
                        continue;
                    };
                    let line = String::from_utf8(self.bytes.split_to(end + 2).to_vec())?;
                    let size = usize::from_str_radix(line.trim_end(), 16)
                        .with_context(|| format!("not the size of a chunk: {line:?}"))?;
                    self.body = if size == 0 { Body::Ended } else { Body::Chunks { left: size + 2 } };
                }
                Body::Chunks { left } => {
                    if *left <= 2 {
                        // The line end after the data.
                        if self.bytes.len() < *left {
                            self.must_read().await?;
                            continue;
                        }
                        self.bytes.advance(*left);
                        *left = 0;
                    } else if self.bytes.is_empty() {
                        self.must_read().await?;
                    } else {
                        let bytes = self.bytes.split_to(self.bytes.len().min(*left - 2)).to_vec();
                        *left -= bytes.len();
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// The whole body, of an answer that ends.
    pub async fn body(&mut self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// The whole body as JSON.
    pub async fn json(&mut self) -> Result<serde_json::Value> {
        let body = self.body().await?;
        serde_json::from_slice(&body).with_context(|| format!("not JSON: {}", String::from_utf8_lossy(&body)))
    }

    /// Whether the server closes the connection now, with nothing more to say.
    pub async fn closes(&mut self) -> Result<bool> {
        Ok(self.bytes.is_empty() && self.read().await? == 0)
    }

    /// Takes one byte off the socket, and forgets it; whether there was one.
    pub async fn take_byte(&mut self) -> Result<bool> {
        Ok(self.socket.read(&mut [0]).await? > 0)
    }

    async fn read(&mut self) -> Result<usize> {
        self.bytes.reserve(READ);
        Ok(self.socket.read_buf(&mut self.bytes).await?)
    }

    async fn must_read(&mut self) -> Result<()> {
        if self.read().await? == 0 {
            bail!("the connection ended in the middle of the body");
        }
        Ok(())
    }
}
