//! A subscriber: one chain of connections, each resuming where the one before it was cut.

use crate::sse::{Item, Parser};
use crate::{Heard, What, http, until};
use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use reqwest_eventsource::{Event, EventSource, retry};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// What it speaks HTTP with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    /// A raw socket, with `Prefer: respond-eventsource`: it can be cut at any byte.
    Raw,
    /// `reqwest-eventsource`, which asks by `Accept` as browsers do.
    EventSource,
}

/// What it asks for.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The path, `/fhir/$export` or `/fhir/Observation/$export`.
    pub path: String,
    /// The query, encoded, without `_lastEventId`.
    pub query: String,
    /// With what.
    pub client: Client,
}

impl Subscribe {
    /// Everything.
    pub fn all(client: Client) -> Self {
        Self { path: "/fhir/$export".to_owned(), query: String::new(), client }
    }

    /// Everything with this query.
    pub fn with(client: Client, query: &str) -> Self {
        Self { query: query.to_owned(), ..Self::all(client) }
    }
}

/// When a connection is cut by us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// It is not.
    Never,
    /// After so many events.
    Events(u64),
    /// After so many bytes of the body: in the middle of a frame, most likely. (Of `Client::EventSource`, whose bytes
    /// nobody sees, after a thousandth as many events.)
    Bytes(u64),
}

/// Why a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// What was waited for has been heard.
    Done,
    /// We cut it.
    Cut,
    /// The other side ended it, or it never began.
    Lost(String),
}

/// A subscriber.
pub struct Reader {
    /// What it asks for.
    pub subscribe: Subscribe,
    /// What it got, in all its connections.
    pub heard: Vec<Heard>,
    /// The id to resume from.
    pub last_id: Option<String>,
    /// How many connections it has tried.
    pub connections: u32,
    /// Whether the next connections say where they resume in the query instead of the header.
    pub resume_by_query: bool,
    open: Option<Open>,
}

enum Open {
    Raw { response: Box<http::Response>, parser: Parser, items: VecDeque<Item>, left: u64 },
    EventSource(Box<EventSource>),
}

impl Reader {
    /// One that has not connected yet.
    pub fn new(subscribe: Subscribe) -> Self {
        Self { subscribe, heard: vec![], last_id: None, connections: 0, resume_by_query: false, open: None }
    }

    /// Connects, resuming if there is something to resume from. What was open before is cut.
    pub async fn connect(&mut self, address: SocketAddr) -> Result<()> {
        self.connections += 1;
        self.open = None;
        let mut query = self.subscribe.query.clone();
        let by_query = self.last_id.as_ref().filter(|_| self.resume_by_query);
        if let Some(id) = by_query {
            let separator = if query.is_empty() { "" } else { "&" };
            query = format!("{query}{separator}_lastEventId={id}");
        }
        let by_header = self.last_id.as_ref().filter(|_| !self.resume_by_query);
        let target = format!("{}?{query}", self.subscribe.path);
        let target = target.trim_end_matches('?');
        self.open = Some(match self.subscribe.client {
            Client::Raw => {
                let resume = by_header.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
                let mut response =
                    http::get(address, target, &format!("Prefer: respond-eventsource\r\n{resume}")).await?;
                if response.status != 200 {
                    let body = response.body().await?;
                    bail!("{}: {}", response.status, String::from_utf8_lossy(&body));
                }
                let parser = Parser::default();
                Open::Raw { response: Box::new(response), parser, items: VecDeque::new(), left: u64::MAX }
            }
            Client::EventSource => {
                let client = reqwest::Client::builder().no_proxy().build()?;
                let mut request = client.get(format!("http://{address}{target}"));
                if let Some(id) = by_header {
                    request = request.header("Last-Event-ID", id);
                }
                let mut source = EventSource::new(request)?;
                // It would come back by itself; we decide when.
                source.set_retry_policy(Box::new(retry::Never));
                match source.next().await.context("no answer")?? {
                    Event::Open => Open::EventSource(Box::new(source)),
                    Event::Message(_) => bail!("a message before the stream was open"),
                }
            }
        });
        Ok(())
    }

    /// The next event. `None`: the stream has ended, or `left` bytes have been read.
    pub async fn next(&mut self) -> Result<Option<&Heard>> {
        let (id, event, data) = match self.open.as_mut().context("not connected")? {
            Open::Raw { response, parser, items, left } => loop {
                if let Some(item) = items.pop_front() {
                    let Item::Frame(frame) = item else { continue };
                    let field =
                        |name| frame.get(name).with_context(|| format!("a frame without {name}: {frame:?}"));
                    break (field("id")?, field("event")?, field("data")?);
                }
                if *left == 0 {
                    return Ok(None);
                }
                let Some(bytes) = response.next().await? else { return Ok(None) };
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                parser.push(&bytes[..taken]);
                items.extend(std::iter::from_fn(|| parser.next_item()));
            },
            Open::EventSource(source) => match source.next().await {
                Some(Ok(Event::Message(message))) => (message.id, message.event, message.data),
                Some(Ok(Event::Open)) => bail!("opened twice"),
                Some(Err(reqwest_eventsource::Error::StreamEnded)) | None => return Ok(None),
                Some(Err(error)) => return Err(error.into()),
            },
        };
        let what = What::read(&event, &data)?;
        self.last_id = Some(id.clone());
        self.heard.push(Heard { connection: self.connections, event_id: id, what });
        Ok(self.heard.last())
    }

    /// Cuts the connection.
    pub fn cut(&mut self) {
        self.open = None;
    }

    /// Connects, and reads until what is waited for was heard (it is asked before the first event too, and after
    /// each), or the connection ends.
    pub async fn read(&mut self, address: SocketAddr, cut: Cut, done: impl FnMut(&Self) -> bool) -> Ended {
        if let Err(error) = self.connect(address).await {
            return Ended::Lost(format!("{error:#}"));
        }
        self.read_on(cut, done).await
    }

    /// As [`read`](Self::read), in the connection that is open.
    pub async fn read_on(&mut self, cut: Cut, mut done: impl FnMut(&Self) -> bool) -> Ended {
        let mut events = match cut {
            Cut::Never => u64::MAX,
            Cut::Events(events) => events,
            Cut::Bytes(bytes) => match &mut self.open {
                Some(Open::Raw { left, .. }) => {
                    *left = bytes;
                    u64::MAX
                }
                _ => bytes / 1_000,
            },
        };
        let ended = loop {
            if done(self) {
                return Ended::Done;
            }
            if events == 0 {
                break Ended::Cut;
            }
            match self.next().await.map(|heard| heard.is_some()) {
                Ok(true) => events -= 1,
                Ok(false) if matches!(self.open, Some(Open::Raw { left: 0, .. })) => break Ended::Cut,
                Ok(false) => break Ended::Lost("the stream ended".to_owned()),
                Err(error) => break Ended::Lost(format!("{error:#}")),
            }
        };
        self.cut();
        ended
    }

    /// Reads the open connection until this is so, within `limit`; a lost connection is an error.
    pub async fn hear(&mut self, what: &str, limit: Duration, done: impl FnMut(&Self) -> bool) -> Result<()> {
        let reading = self.read_on(Cut::Never, done);
        match tokio::time::timeout(limit, reading).await {
            Ok(Ended::Done) => Ok(()),
            Ok(ended) => bail!("{ended:?} while waiting for {what}; {}", self.tail()),
            Err(_) => bail!("waited {limit:?} for {what}; {}", self.tail()),
        }
    }

    /// Reads, reconnecting as often as the connection is lost, until this is so.
    pub async fn hear_on(
        &mut self,
        address: impl Fn() -> Option<SocketAddr>,
        what: &str,
        limit: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut last = String::new();
        while tokio::time::Instant::now() < deadline {
            let left = deadline - tokio::time::Instant::now();
            let at = until("an address", left, || {
                let now = address();
                async move { Ok(now) }
            })
            .await?;
            match tokio::time::timeout(left, self.read(at, Cut::Never, &done)).await {
                Ok(Ended::Done) => return Ok(()),
                Ok(Ended::Lost(reason)) => last = reason,
                Ok(Ended::Cut) | Err(_) => {}
            }
            // The pace of coming back, not a wait for something to be so.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("waited {limit:?} for {what}; last {last:?}; {}", self.tail())
    }

    /// The notices with this code.
    pub fn notices<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = &'a Heard> {
        self.heard.iter().filter(move |heard| heard.what.code() == Some(wanted))
    }

    /// Whether there was one.
    pub fn noticed(&self, code: &str) -> bool {
        self.notices(code).next().is_some()
    }

    /// The instant that the last `live` gave as the next `_since`.
    pub fn transaction_time(&self) -> Option<String> {
        let mut times = self.heard.iter().filter_map(|heard| match &heard.what {
            What::Notice { transaction_time, .. } => transaction_time.clone(),
            _ => None,
        });
        times.next_back()
    }

    /// Whether something about this resource was heard.
    pub fn heard_of(&self, id: &str) -> bool {
        self.heard.iter().any(|heard| heard.what.key().is_some_and(|key| key.id == id))
    }

    /// What was heard of the resource, in order.
    pub fn about<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a What> {
        self.heard
            .iter()
            .map(|heard| &heard.what)
            .filter(move |what| what.key().is_some_and(|key| key.id == id))
    }

    /// The last events, for the message of a failure.
    pub fn tail(&self) -> String {
        let from = self.heard.len().saturating_sub(8);
        format!(
            "{} events in {} connections, the last: {:#?}",
            self.heard.len(),
            self.connections,
            &self.heard[from..]
        )
    }
}
