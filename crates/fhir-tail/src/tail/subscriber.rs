//! Follows the stream over all its connections, and hands what comes to the writer.

use super::batch::Batch;
use super::connection::{self, Answer, Connector};
use super::content::{Code, Content, NotUnderstood, Notice};
use super::events::{Event, Parser, TooLarge};
use super::line::{Form, Op};
use super::pause::Pause;
use super::progress::{Kind, Phase, Progress};
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
    pub(super) form: Form,
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
            self.progress.lost();
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
            let flow = parser.push(&bytes, |event| self.take(event))?;
            self.progress.received(bytes.len());
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
        let op = match (self.form, &content) {
            (Form::Plain, _) | (_, Content::Notice(_)) => None,
            (Form::Envelope, Content::Deletion(deletion)) => Some(deletion.into()),
            (Form::Envelope, Content::Resource) => match Op::upsert(event.name, event.data) {
                Ok(op) => Some(op),
                Err(why) => return ControlFlow::Break(Ended::Broken(why)),
            },
        };
        // In place: this is done for each event.
        let id = self.position.last_event_id.get_or_insert_default();
        id.clear();
        id.push_str(event.id);
        let flow = match &content {
            Content::Resource => {
                self.write(event.name, event.data, op);
                self.change(Kind::Upsert)
            }
            Content::Deletion(deletion) => {
                self.write(&deletion.resource_type, event.data, op);
                self.change(if deletion.out_of_scope { Kind::Remove } else { Kind::Delete })
            }
            Content::Notice(notice) => self.notice(notice, event.data),
        };
        self.batch.moved = true;
        flow
    }

    /// Adds a line: what came, or its envelope.
    fn write(&mut self, resource_type: &str, data: &[u8], op: Option<Op<'_>>) {
        self.position.lines = self.position.lines.saturating_add(1);
        let seq = self.position.lines;
        let name = if self.by_type { resource_type } else { "" };
        match op {
            Some(op) => self.batch.append_with(name, |line| op.write(seq, line)),
            None => self.batch.append(name, data),
        }
    }

    fn change(&mut self, kind: Kind) -> ControlFlow<Ended> {
        self.progress.counts(kind);
        self.pause.worked();
        ControlFlow::Continue(())
    }

    /// What is to be written of a notice.
    fn write_notice(&mut self, data: &[u8], op: Op<'_>) {
        self.write("", data, (self.form == Form::Envelope).then_some(op));
    }

    fn notice(&mut self, notice: &Notice, data: &[u8]) -> ControlFlow<Ended> {
        let text = &notice.text;
        match &notice.code {
            Code::Live(transaction_time) => {
                self.pause.worked();
                self.progress.is_live();
                // Who was told to drop what does not come again must know when.
                if std::mem::take(&mut self.position.resetting) {
                    self.write_notice(data, Op::Live);
                }
                self.position.live = Some(Live { transaction_time: transaction_time.clone() });
                if self.until_live {
                    return ControlFlow::Break(Ended::Complete);
                }
            }
            Code::Reset => {
                self.progress.resets("reset");
                self.progress.log(|| tracing::warn!("reset: {text}"));
                self.position.replay_from = self.position.lines;
            }
            Code::ResetAll => {
                self.progress.resets("reset-all");
                self.progress.log(|| tracing::warn!("reset-all: {text}"));
                if self.by_type {
                    self.position.replay_from = self.position.lines;
                    self.batch.begin_anew(self.position.clone());
                } else {
                    self.position.resetting = true;
                    self.write_notice(data, Op::ResetAll);
                    self.position.replay_from = self.position.lines;
                }
            }
            Code::Estimated(total) => {
                self.progress.expects(*total, self.position.lines.saturating_sub(self.position.replay_from));
            }
            Code::Stale(since) => {
                self.progress.is_stale(since.as_deref());
                let since = since.as_deref().unwrap_or("an unknown time");
                self.progress
                    .log(|| tracing::warn!("stale: what changed after {since} may be missing: {text}"));
            }
            Code::Fresh => {
                self.progress.is_fresh();
                self.progress.log(|| tracing::info!("fresh: {text}"));
            }
            Code::End => return ControlFlow::Break(Ended::Lost(text.clone())),
            Code::Other => {}
        }
        ControlFlow::Continue(())
    }
}
