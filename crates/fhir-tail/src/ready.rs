//! `fhir-tail ready`: whether the service on this machine is ready, as an exit code.
//!
//! A minimal container image has no shell and no curl; what such an image is probed with has to be this program.

use crate::output::say;
use crate::settings::Settings;
use anyhow::{Context as _, bail};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Less than probes usually wait, so that they hear why.
const WITHIN: Duration = Duration::from_secs(4);
/// More than any answer.
const MAX_ANSWER: u64 = 64 * 1024;

/// Asks and says what the answer is; whether it is yes.
pub(crate) async fn run(settings: &Settings, asked: Option<SocketAddr>) -> anyhow::Result<bool> {
    let Some(address) = asked.or_else(|| settings.listen.first().copied()) else {
        bail!("there is no address to ask: give one, such as 127.0.0.1:8080");
    };
    let address = reachable(address);
    let answer = tokio::time::timeout(WITHIN, ask(address))
        .await
        .unwrap_or_else(|_| bail!("no answer within {} s", WITHIN.as_secs()))
        .with_context(|| format!("fhir-tail cannot be asked at {address}"))?;
    let (status, details) = read(&answer)
        .with_context(|| format!("what answers at {address} is not fhir-tail: is the port another's?"))?;
    say(format_args!("{details}"));
    Ok(status == 200)
}

/// Where to connect to reach who listens on every address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// One question in HTTP/1.0, whose answer ends with the connection: an HTTP client would bring nothing more.
async fn ask(address: SocketAddr) -> anyhow::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    let question = format!("GET /health/ready HTTP/1.0\r\nHost: {address}\r\n\r\n");
    socket.write_all(question.as_bytes()).await?;
    let mut answer = String::new();
    socket.take(MAX_ANSWER).read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Status and body of an answer; `None` if it is none of ours.
fn read(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split(' ');
    let status = words.next().filter(|version| version.starts_with("HTTP/1.")).and(words.next())?;
    body.starts_with('{').then_some((status.parse().ok()?, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_reached_on_this_machine() {
        for (listens, asked) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:81", "[::1]:81"),
            ("192.0.2.1:82", "192.0.2.1:82"),
            ("127.0.0.1:83", "127.0.0.1:83"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), asked);
        }
    }

    #[test]
    fn only_an_answer_of_ours_is_one() {
        assert_eq!(read("HTTP/1.0 200 OK\r\na: b\r\n\r\n{}"), Some((200, "{}")));
        assert_eq!(
            read("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\":false}"),
            Some((503, "{\"ready\":false}"))
        );
        for other in ["", "SSH-2.0-x\r\n", "SMTP 200 \r\n\r\n{}", "HTTP/1.0 200 OK\r\n\r\n<html>"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
