//! Follows the stream over all its connections, and hands what comes to the writer.

use super::batch::Batch;
use super::connection::{self, Answer, Connector};
use super::content::{Code, Content, NotUnderstood, Notice};
use super::events::{Event, Parser, TooLarge};
use super::pause::Pause;
use super::progress::{Phase, Progress};
use super::state::{Live, Position};
use anyhow::bail;
use reqwest::Response;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// With so many bytes that the writer has no time for, the stream is not read on.
const FULL: usize = 8 << 20;

/// One subscriber.
pub(super) struct Subscriber {
    pub(super) connector: Connector,
    pub(super) silence: Duration,
    /// A file per type: lines are told apart by it, and a `reset-all` begins the files anew.
    pub(super) by_type: bool,
    pub(super) until_live: bool,
    pub(super) position: Position,
    pub(super) progress: Progress,
    pub(super) outbox: Sender<Batch>,
    pub(super) batch: Batch,
    pub(super) pause: Pause,
}

/// Why a connection is not read on.
#[derive(Debug)]
enum Ended {
    /// The state is complete, and no more was asked for.
    Complete,
    /// It is gone; it can be taken up again.
    Lost(String),
    /// It cannot be understood.
    Broken(NotUnderstood),
    /// Who writes has failed, and says itself why.
    NoWriter,
}

impl Subscriber {
    /// Follows until nothing is left to do. Can be dropped at any await point: what the writer has not got counts as
    /// not received.
    pub(super) async fn run(&mut self) -> anyhow::Result<()> {
        loop {
            self.progress.enters(Phase::Connecting);
            let (why, wait) = match self.connector.open(self.position.last_event_id.as_deref()).await? {
                Answer::Refused(why) => bail!(why),
                Answer::Later { why, wait } => (why, wait),
                Answer::Stream(response) => match self.read(response).await? {
                    Ended::Complete => {
                        self.hand_over().await;
                        return Ok(());
                    }
                    Ended::NoWriter => return Ok(()),
                    Ended::Broken(why) => bail!("the stream cannot be understood: {why}"),
                    Ended::Lost(why) => (why, None),
                },
            };
            // The wait may be long.
            if self.batch.moved && !self.hand_over().await {
                return Ok(());
            }
            let wait = self.pause.next(wait);
            self.progress.log(|| tracing::warn!(%why, again_in = ?wait, "no stream"));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.outbox.closed() => return Ok(()),
            }
        }
    }

    /// Gives the writer the rest. `false`: it is gone, and says itself why.
    async fn hand_over(&mut self) -> bool {
        let batch = self.batch.take(&self.position);
        self.outbox.send(batch).await.is_ok()
    }

    async fn read(&mut self, mut response: Response) -> Result<Ended, TooLarge> {
        let mut parser = Parser::after(self.position.last_event_id.as_deref().unwrap_or_default());
        self.progress.enters(Phase::Replaying);
        loop {
            let piece = tokio::select! {
                permit = self.outbox.reserve(), if self.batch.moved => {
                    let Ok(permit) = permit else { return Ok(Ended::NoWriter) };
                    permit.send(self.batch.take(&self.position));
                    continue;
                }
                () = self.outbox.closed() => return Ok(Ended::NoWriter),
                piece = connection::next(&mut response, self.silence), if self.batch.bytes() < FULL => piece,
            };
            let bytes = match piece {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Ok(Ended::Lost("the stream ended".to_owned())),
                Err(why) => return Ok(Ended::Lost(why)),
            };
            let before = self.batch.count;
            let flow = parser.push(&bytes, |event| self.take(event))?;
            self.progress.received(self.batch.count.saturating_sub(before), bytes.len());
            if let Some(retry) = parser.retry() {
                self.pause.asked_for(retry);
            }
            if let ControlFlow::Break(ended) = flow {
                return Ok(ended);
            }
        }
    }

    fn take(&mut self, event: Event<'_>) -> ControlFlow<Ended> {
        let content = match Content::of(event.name, event.data) {
            Ok(_) if event.id.is_empty() => return ControlFlow::Break(Ended::Broken(NotUnderstood::NoId)),
            Ok(content) => content,
            Err(why) => return ControlFlow::Break(Ended::Broken(why)),
        };
        // In place: this is done for each event.
        let id = self.position.last_event_id.get_or_insert_default();
        id.clear();
        id.push_str(event.id);
        let flow = match content {
            Content::Resource => {
                self.batch.append(if self.by_type { event.name } else { "" }, event.data);
                self.pause.worked();
                ControlFlow::Continue(())
            }
            Content::Deletion(deletion) => {
                self.batch.append(if self.by_type { &deletion.resource_type } else { "" }, event.data);
                self.pause.worked();
                ControlFlow::Continue(())
            }
            Content::Notice(notice) => self.notice(notice, event.data),
        };
        self.batch.moved = true;
        flow
    }

    fn notice(&mut self, notice: Notice, data: &[u8]) -> ControlFlow<Ended> {
        let text = notice.text;
        match notice.code {
            Code::Live(transaction_time) => {
                self.pause.worked();
                self.progress.enters(Phase::Live);
                // Who was told to drop what does not come again must know when.
                if std::mem::take(&mut self.position.resetting) {
                    self.batch.append("", data);
                }
                self.position.live = Some(Live { transaction_time });
                if self.until_live {
                    return ControlFlow::Break(Ended::Complete);
                }
            }
            Code::Reset => {
                self.progress.enters(Phase::Replaying);
                self.progress.log(|| tracing::warn!("reset: {text}"));
            }
            Code::ResetAll => {
                self.progress.enters(Phase::Replaying);
                self.progress.log(|| tracing::warn!("reset-all: {text}"));
                if self.by_type {
                    self.batch.begin_anew(self.position.clone());
                } else {
                    self.position.resetting = true;
                    self.batch.append("", data);
                }
            }
            Code::Stale(since) => {
                self.progress.enters(Phase::Stale);
                let since = since.unwrap_or_else(|| "an unknown time".to_owned());
                self.progress
                    .log(|| tracing::warn!("stale: what changed after {since} may be missing: {text}"));
            }
            Code::Fresh => {
                self.progress.enters(if self.position.live.is_some() {
                    Phase::Live
                } else {
                    Phase::Replaying
                });
                self.progress.log(|| tracing::info!("fresh: {text}"));
            }
            Code::End => return ControlFlow::Break(Ended::Lost(text)),
            Code::Other => {}
        }
        ControlFlow::Continue(())
    }
}
