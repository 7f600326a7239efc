//! What each event means for the files, and its way to the writer.

use super::batch::Batch;
use super::line::{LineFormat, Op};
use super::state::{Live, Position};
use super::{Change, Destination, Recording, Update};
use crate::content::{Content, NotUnderstood, Notice, NoticeKind};
use crate::error::Result;
use crate::sse::Event;
use crate::subscriber::{Step, Subscriber};
use std::ops::ControlFlow;
use tokio::sync::mpsc::Sender;

/// With this many bytes that the writer has not taken, the stream is not read further.
const FULL: usize = 8 << 20;

/// Turns events into lines, and gathers these in a batch.
pub(super) struct Recorder<O> {
    /// A file per type: lines are told apart by it, and a `reset-all` restarts the files.
    by_type: bool,
    line_format: LineFormat,
    until_live: bool,
    position: Position,
    batch: Batch,
    complete: bool,
    failed: Option<NotUnderstood>,
    observe: O,
}

impl<O: FnMut(Update<'_>)> Recorder<O> {
    pub(super) fn new(recording: &Recording, position: Position, observe: O) -> Self {
        Self {
            by_type: matches!(recording.destination, Destination::Download { .. }),
            line_format: recording.line_format,
            until_live: recording.until_live,
            position,
            batch: Batch::default(),
            complete: false,
            failed: None,
            observe,
        }
    }

    pub(super) fn observe(&mut self, update: Update<'_>) {
        (self.observe)(update);
    }

    /// Follows until the state is complete, if no more was asked for, or until the writer fails, which then says
    /// why. Can be dropped at any await point: what the writer does not have counts as not received.
    pub(super) async fn run(&mut self, subscriber: &mut Subscriber, outbox: Sender<Batch>) -> Result<()> {
        self.observe(Update::Connecting);
        loop {
            let step = tokio::select! {
                permit = outbox.reserve(), if self.batch.moved => {
                    let Ok(permit) = permit else { return Ok(()) };
                    permit.send(self.take());
                    continue;
                }
                () = outbox.closed() => return Ok(()),
                step = subscriber.next(|event, content| self.event(event, content)), if self.batch.bytes() < FULL => step?,
            };
            match step {
                Step::Connected => self.observe(Update::Connected),
                Step::Received(bytes) => self.observe(Update::Received(bytes)),
                Step::Stopped(bytes) => {
                    self.observe(Update::Received(bytes));
                    if let Some(why) = self.failed {
                        return Err(why.into());
                    }
                    // If the writer is gone, it says itself why.
                    let _ = outbox.send(self.take()).await;
                    return Ok(());
                }
                Step::Disconnected { reason, retry_in } => {
                    // The wait may be long.
                    if self.batch.moved && outbox.send(self.take()).await.is_err() {
                        return Ok(());
                    }
                    self.observe(Update::Disconnected { reason: &reason, retry_in });
                }
            }
        }
    }

    fn take(&mut self) -> Batch {
        self.batch.take(&self.position)
    }

    fn event(&mut self, event: Event<'_>, content: &Content) -> ControlFlow<()> {
        let op = match (self.line_format, content) {
            (LineFormat::Plain, _) | (_, Content::Notice(_)) => None,
            (LineFormat::Envelope, Content::Deletion(deletion)) => Some(deletion.into()),
            (LineFormat::Envelope, Content::Resource) => match Op::upsert(event.name, event.data) {
                Ok(op) => Some(op),
                Err(why) => {
                    self.failed = Some(why);
                    return ControlFlow::Break(());
                }
            },
        };
        // In place: this is done for each event.
        let id = self.position.last_event_id.get_or_insert_default();
        id.clear();
        id.push_str(event.id);
        self.batch.moved = true;
        match content {
            Content::Resource => {
                self.write(event.name, event.data, op);
                self.observe(Update::Change(Change::Upsert));
            }
            Content::Deletion(deletion) => {
                self.write(&deletion.resource_type, event.data, op);
                let change = if deletion.out_of_scope { Change::Remove } else { Change::Delete };
                self.observe(Update::Change(change));
            }
            Content::Notice(notice) => self.notice(notice, event.data),
        }
        if self.complete { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Adds a line: the event's data, or its envelope.
    fn write(&mut self, resource_type: &str, data: &[u8], op: Option<Op<'_>>) {
        self.position.lines = self.position.lines.saturating_add(1);
        let seq = self.position.lines;
        let name = if self.by_type { resource_type } else { "" };
        match op {
            Some(op) => self.batch.append_with(name, |line| op.write(seq, line)),
            None => self.batch.append(name, data),
        }
    }

    fn write_notice(&mut self, data: &[u8], op: Op<'_>) {
        self.write("", data, (self.line_format == LineFormat::Envelope).then_some(op));
    }

    fn notice(&mut self, notice: &Notice, data: &[u8]) {
        match &notice.kind {
            NoticeKind::Live(transaction_time) => {
                // A reader that was told to drop what does not come again must know when.
                if std::mem::take(&mut self.position.resetting) {
                    self.write_notice(data, Op::Live);
                }
                self.position.live = Some(Live { transaction_time: transaction_time.clone() });
                self.complete = self.until_live;
            }
            NoticeKind::Reset => self.position.replay_from = self.position.lines,
            NoticeKind::ResetAll if self.by_type => {
                self.position.replay_from = self.position.lines;
                self.batch.restart(self.position.clone());
            }
            NoticeKind::ResetAll => {
                self.position.resetting = true;
                self.write_notice(data, Op::ResetAll);
                self.position.replay_from = self.position.lines;
            }
            NoticeKind::Estimated(total) => {
                let before = self.position.lines.saturating_sub(self.position.replay_from);
                self.observe(Update::Estimated { total: *total, before });
            }
            NoticeKind::Stale(_) | NoticeKind::Fresh | NoticeKind::End | NoticeKind::Other => {}
        }
        self.observe(Update::Notice(notice));
    }
}
