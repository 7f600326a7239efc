//! One stream over all its connections: connect, read, resume, wait, reconnect.

use crate::backoff::Backoff;
use crate::connection::{self, Answer, Connector, Credentials};
use crate::content::{Content, NotUnderstood, Notice, NoticeKind};
use crate::error::Result;
use crate::sse::{Event, Parser};
use crate::target::Target;
use reqwest::Response;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Follows a stream, and resumes it after every loss of its connection.
pub struct Subscriber {
    connector: Connector,
    silence: Duration,
    last_event_id: Option<String>,
    backoff: Backoff,
    state: State,
}

/// What [`Subscriber::next`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The service accepted the request, and the stream begins.
    Connected,
    /// This many bytes arrived, and the handler was given each event that they complete.
    Received(usize),
    /// The same, and the handler broke off: events after that one are dropped. A further call reconnects,
    /// and resumes after it.
    Stopped(usize),
    /// There is no stream. The next call waits for this long and then reconnects.
    Disconnected {
        /// Why, for people.
        reason: String,
        /// The back-off, or what the service asked for.
        retry_in: Duration,
    },
}

enum State {
    /// Connects at this moment.
    Waiting(Instant),
    Streaming(Box<Stream>),
    /// The service said that the stream ends.
    Ended(String),
}

struct Stream {
    response: Response,
    parser: Parser,
}

/// Why the events of some bytes were not read to their end.
enum Broken {
    Off,
    Ended(String),
    NotUnderstood(NotUnderstood),
}

impl Subscriber {
    /// A subscriber that is not connected yet. It resumes after `last_event_id`; `None`: from the beginning.
    ///
    /// # Errors
    ///
    /// If no TLS can be set up.
    pub fn new(target: Target, credentials: Credentials, last_event_id: Option<String>) -> Result<Self> {
        Ok(Self {
            silence: target.silence(),
            connector: Connector::new(target, credentials)?,
            last_event_id,
            backoff: Backoff::default(),
            state: State::Waiting(Instant::now()),
        })
    }

    /// The id of the last event that the handler was given: keep it to resume after it.
    #[must_use]
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Whether there is a stream.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Streaming(_))
    }

    /// Connects if there is no stream, after the wait that is due; otherwise waits for bytes of the stream.
    ///
    /// `each` is called for every event, in order, with its content. Can be dropped at any await point: `each` is
    /// called after the last of them.
    ///
    /// # Errors
    ///
    /// If the service refuses the request for good, or sends what is no stream of FHIR resources. Everything
    /// that may pass is a [`Step::Disconnected`].
    pub async fn next(
        &mut self,
        mut each: impl FnMut(Event<'_>, &Content) -> ControlFlow<()>,
    ) -> Result<Step> {
        let stream = match &mut self.state {
            State::Waiting(due) => {
                sleep_until(*due).await;
                return self.connect().await;
            }
            State::Ended(reason) => {
                let reason = std::mem::take(reason);
                return Ok(self.disconnected(reason, None));
            }
            State::Streaming(stream) => stream,
        };
        let bytes = match connection::next(&mut stream.response, self.silence).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(self.disconnected("the stream ended".to_owned(), None)),
            Err(reason) => return Ok(self.disconnected(reason, None)),
        };
        let (last_event_id, backoff) = (&mut self.last_event_id, &mut self.backoff);
        let flow = stream.parser.push(&bytes, |event| {
            let content = match Content::of(event.name, event.data) {
                Ok(_) if event.id.is_empty() => {
                    return ControlFlow::Break(Broken::NotUnderstood(NotUnderstood::NoId));
                }
                Ok(content) => content,
                Err(why) => return ControlFlow::Break(Broken::NotUnderstood(why)),
            };
            // In place: this is done for each event.
            let id = last_event_id.get_or_insert_default();
            id.clear();
            id.push_str(event.id);
            if !matches!(&content, Content::Notice(notice) if !matches!(notice.kind, NoticeKind::Live(_))) {
                backoff.reset();
            }
            if each(event, &content).is_break() {
                return ControlFlow::Break(Broken::Off);
            }
            match content {
                Content::Notice(Notice { kind: NoticeKind::End, text }) => {
                    ControlFlow::Break(Broken::Ended(text))
                }
                _ => ControlFlow::Continue(()),
            }
        })?;
        if let Some(retry) = stream.parser.retry() {
            self.backoff.start_from(retry);
        }
        match flow {
            ControlFlow::Continue(()) => Ok(Step::Received(bytes.len())),
            ControlFlow::Break(Broken::NotUnderstood(why)) => Err(why.into()),
            ControlFlow::Break(Broken::Ended(reason)) => {
                self.state = State::Ended(reason);
                Ok(Step::Received(bytes.len()))
            }
            ControlFlow::Break(Broken::Off) => {
                self.state = State::Waiting(Instant::now());
                Ok(Step::Stopped(bytes.len()))
            }
        }
    }

    async fn connect(&mut self) -> Result<Step> {
        let after = self.last_event_id.as_deref();
        match self.connector.open(after).await? {
            Answer::Refused(why) => Err(crate::Error::Refused(why)),
            Answer::Later { why, wait } => Ok(self.disconnected(why, wait)),
            Answer::Stream(response) => {
                let parser = Parser::after(after.unwrap_or_default());
                self.state = State::Streaming(Box::new(Stream { response, parser }));
                Ok(Step::Connected)
            }
        }
    }

    fn disconnected(&mut self, reason: String, at_least: Option<Duration>) -> Step {
        let retry_in = self.backoff.next(at_least);
        self.state = State::Waiting(Instant::now() + retry_in);
        Step::Disconnected { reason, retry_in }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, Selection};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const PATIENT: &str = "retry: 1\nid: a\nevent: Patient\ndata: {}\n\nid: b\nevent: Patient\ndata: {}\n\n";
    const END: &str = "id: c\nevent: OperationOutcome\ndata: {\"issue\":[{\"severity\":\"error\",\
                       \"diagnostics\":\"gone\"}]}\n\nid: d\nevent: Patient\ndata: {}\n\n";

    /// Answers each connection with one of these, closes it, and returns the requests.
    async fn serve(listener: TcpListener, answers: Vec<String>) -> Vec<String> {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(socket.read_u8().await.unwrap());
            }
            requests.push(String::from_utf8(request).unwrap().to_ascii_lowercase());
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    }

    fn stream(events: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{events}")
    }

    #[tokio::test]
    async fn it_resumes_after_the_last_event_and_ends_when_it_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/fhir", listener.local_addr().unwrap());
        let refused = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_owned();
        let answers = vec![stream(PATIENT), stream(END), stream(PATIENT), refused];
        let serving = tokio::spawn(serve(listener, answers));
        let target = Target::new(&url, Selection::default()).unwrap();
        let mut subscriber = Subscriber::new(target, Credentials::default(), None).unwrap();
        let (mut ids, mut reasons, mut stop) = (Vec::new(), Vec::new(), false);
        let refusal = loop {
            let step = subscriber.next(|event, _| {
                ids.push(event.id.to_owned());
                if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            match step.await {
                Ok(Step::Disconnected { reason, .. }) => reasons.push(reason),
                Ok(_) => {}
                Err(error) => break error,
            }
            stop = reasons.len() == 2;
        };
        assert!(matches!(refusal, Error::Refused(_)), "{refusal}");
        // After the end nothing is read, nor after the handler broke off.
        assert_eq!(ids, ["a", "b", "c", "a"]);
        assert_eq!(reasons, ["the stream ended", "gone"]);
        let requests = serving.await.unwrap();
        let resumed = requests.iter().map(|request| {
            request.lines().find_map(|line| line.strip_prefix("last-event-id: ")).map(str::to_owned)
        });
        assert!(resumed.eq([None, Some("b"), Some("c"), Some("a")].map(|id| id.map(str::to_owned))));
        assert_eq!(subscriber.last_event_id(), Some("a"));
    }
}
