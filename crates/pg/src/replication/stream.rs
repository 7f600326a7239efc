//! The log as it comes in, within CopyBoth.

use super::codec::{Backend, Codec};
use super::error::{Error, ServerError};
use super::feedback::Feedback;
use crate::Lsn;
use bytes::{Buf, Bytes};
use futures_util::{FutureExt, StreamExt};
use postgres_protocol::message::backend::Message;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::io::{AsyncRead, ReadHalf};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::codec::Framed;

/// The log as it comes in. Dropping it closes the connection.
pub struct Stream<S> {
    frames: Framed<ReadHalf<S>, Codec>,
    feedback: Feedback,
    asks: Asks,
}

/// What comes in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A message of the output plugin.
    Message(Bytes),
    /// All that was committed before this place has been sent, if no transaction is being sent.
    Keepalive(Lsn),
}

/// How long the server may take to end its side of the stream.
const FAREWELL: Duration = Duration::from_secs(1);

impl<S: AsyncRead + Unpin> Stream<S> {
    pub(super) fn new(frames: Framed<ReadHalf<S>, Codec>, feedback: Feedback) -> Self {
        Self { frames, feedback, asks: Asks::default() }
    }

    /// What comes next. Can be dropped at any time and called again.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let message = self.frames.next().await.ok_or(Error::Closed)??;
            if let Some(event) = self.take(message)? {
                return Ok(event);
            }
        }
    }

    /// What has come already, if anything has.
    pub fn try_next(&mut self) -> Option<Result<Event, Error>> {
        self.next().now_or_never()
    }

    /// What the server was last told to be safe, as it changes.
    pub fn acked(&self) -> watch::Receiver<Lsn> {
        self.feedback.acked()
    }

    /// Tells the server a last time what is safe, and ends the stream in good order.
    pub async fn close(mut self) -> Result<(), Error> {
        self.feedback.farewell().await?;
        // Closing a socket with unread input would make the kernel drop what we have just written.
        // After our CopyDone the server sends its own and waits for another command.
        let ended = async {
            loop {
                match self.frames.next().await {
                    Some(Ok(Backend::Other(Message::ReadyForQuery(_)))) | None | Some(Err(_)) => return,
                    Some(Ok(_)) => {}
                }
            }
        };
        // It has a second; what it does not hear now it will ask for again.
        let _late = tokio::time::timeout(FAREWELL, ended).await;
        Ok(())
    }

    fn take(&mut self, message: Backend) -> Result<Option<Event>, Error> {
        match message {
            Backend::Copy(payload) => self.copy(payload),
            Backend::Other(Message::ErrorResponse(body)) => {
                Err(Error::Server(ServerError::read(body.fields())))
            }
            Backend::Other(Message::NoticeResponse(body)) => {
                let notice = ServerError::read(body.fields());
                tracing::debug!(sql_state = notice.sql_state, "the server sent a notice");
                Ok(None)
            }
            Backend::Other(Message::ParameterStatus(_) | Message::NotificationResponse(_)) => Ok(None),
            // How a server that shuts down takes its leave.
            Backend::Other(Message::CopyDone | Message::CommandComplete(_) | Message::ReadyForQuery(_)) => {
                Err(Error::Closed)
            }
            _ => Err(Error::Protocol("something that does not belong into the stream")),
        }
    }

    fn copy(&mut self, mut payload: Bytes) -> Result<Option<Event>, Error> {
        match payload.first() {
            // XLogData: kind, start, end, clock, then the message.
            Some(b'w') if payload.len() >= 25 => {
                payload.advance(1);
                let (start, end) = (payload.get_u64(), payload.get_u64());
                payload.advance(8);
                self.feedback.received(Lsn::new(start.max(end)));
                Ok(Some(Event::Message(payload)))
            }
            // Keepalive: kind, end, clock, whether an answer is wanted.
            Some(b'k') if payload.len() == 18 => {
                payload.advance(1);
                let end = Lsn::new(payload.get_u64());
                payload.advance(8);
                self.feedback.received(end);
                if payload.get_u8() != 0 {
                    if self.asks.too_many(Instant::now()) {
                        return Err(Error::ShuttingDown);
                    }
                    self.feedback.ask();
                }
                Ok(Some(Event::Keepalive(end)))
            }
            _ => Err(Error::Protocol("a message of the stream that is none")),
        }
    }
}

/// A server that shuts down asks again as soon as it is answered, for as long as not all of the log is
/// acknowledged; and it does not go before. Whoever asks more than ten times a second is one.
#[derive(Default)]
struct Asks(VecDeque<Instant>);

const ASKS: usize = 10;
const ASKS_WITHIN: Duration = Duration::from_secs(1);

impl Asks {
    fn too_many(&mut self, now: Instant) -> bool {
        self.0.push_back(now);
        if self.0.len() <= ASKS {
            return false;
        }
        let first = self.0.pop_front().unwrap_or(now);
        now.duration_since(first) < ASKS_WITHIN
    }
}
