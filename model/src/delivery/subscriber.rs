//! A subscriber: the journal, the joining, the channel; and its client with what it was told.

use super::log::{Position, Script, rows};
use super::service::{Chunk, Disk, Service};
use crate::Bug;

/// A channel holds so many chunks for a subscriber; who is further behind goes to the journal.
const CHANNEL: usize = 1;

/// What the service does for the subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Server {
    /// It is not connected.
    Away,
    /// Was told that it cannot go on from its id: what follows is a replay, which is not this model's.
    Reset,
    /// Reads the journal.
    Journal,
    /// Has read the head and is not in the channel yet (a seeded mistake).
    Joining(Position),
    /// In the channel, which it entered at this head: reads the journal up to there.
    Joined(Position),
    /// Has it all from the channel.
    Live,
    /// Nothing came for a while: it is going to tell the position.
    Quiet,
    /// Has read the head, and looks next whether the channel is empty.
    Telling(Position),
}

/// The subscriber.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Subscriber {
    /// What is done for it.
    pub server: Server,
    /// Everything up to here was passed.
    pub position: Position,
    /// What waits in the channel.
    pub channel: Option<Chunk>,
    /// More came than the channel holds.
    pub lagged: bool,
    /// The client's last id.
    pub id: Position,
    /// What its last id would be without a mistake.
    pub passed: Position,
    /// What it heard, as bits.
    pub heard: u16,
    /// Something came twice, or after something newer.
    pub twice: bool,
    /// It was reset though nothing was dropped that it had not passed.
    pub needless: bool,
}

impl Subscriber {
    pub(crate) fn new() -> Self {
        Self {
            server: Server::Away,
            position: 0,
            channel: None,
            lagged: false,
            id: 0,
            passed: 0,
            heard: 0,
            twice: false,
            needless: false,
        }
    }

    /// Comes back with its last id.
    pub(crate) fn connect(&mut self, disk: &Disk) {
        self.position = self.id;
        self.server = Server::Journal;
        if self.id < disk.floor {
            self.reset(disk);
        }
    }

    /// The connection is lost.
    pub(crate) fn cut(&mut self) {
        if self.server != Server::Reset {
            self.server = Server::Away;
        }
        (self.position, self.channel, self.lagged) = (0, None, false);
    }

    fn reset(&mut self, disk: &Disk) {
        self.cut();
        self.server = Server::Reset;
        self.needless |= self.passed >= disk.floor;
    }

    fn in_channel(&self) -> bool {
        matches!(self.server, Server::Joined(_) | Server::Live | Server::Quiet | Server::Telling(_))
    }

    /// A batch was published: what of it concerns the filter goes through the channel.
    pub(crate) fn offer(&mut self, chunk: Chunk, script: Script) {
        let concerned =
            rows(script).any(|(_, row, wanted)| wanted && (chunk.first..=chunk.last).contains(&row));
        if !self.in_channel() || !concerned {
            return;
        }
        const { assert!(CHANNEL == 1) };
        if self.channel.replace(chunk).is_some() {
            (self.channel, self.lagged) = (None, true);
        }
    }

    /// Whether there is something to do.
    pub(crate) fn is_ready(&self, disk: &Disk, service: &Service, bug: Option<Bug>) -> bool {
        match self.server {
            Server::Away | Server::Reset => false,
            Server::Journal | Server::Joining(_) | Server::Quiet | Server::Telling(_) => true,
            Server::Joined(head) => {
                self.position >= head
                    || disk.head > self.position
                    || bug == Some(Bug::JoinWithoutWaitingForDisk)
            }
            Server::Live => self.lagged || self.channel.is_some() || service.head > self.position,
        }
    }

    /// The next thing.
    pub(crate) fn step(&mut self, disk: &Disk, service: &Service, script: Script, bug: Option<Bug>) {
        match self.server {
            Server::Away | Server::Reset => {}
            Server::Journal if disk.head > self.position => self.read(disk, script),
            Server::Journal if bug == Some(Bug::JoinAfterReadingHead) => {
                self.server = Server::Joining(service.head);
            }
            Server::Journal => self.server = Server::Joined(service.head),
            Server::Joining(head) => self.server = Server::Joined(head),
            Server::Joined(_)
                if bug == Some(Bug::JoinWithoutWaitingForDisk) && disk.head <= self.position =>
            {
                self.server = Server::Live;
            }
            Server::Joined(head) if self.position >= head => self.server = Server::Live,
            Server::Joined(_) => self.read(disk, script),
            Server::Live if self.lagged => {
                (self.server, self.lagged, self.channel) = (Server::Journal, false, None);
            }
            Server::Live => match self.channel.take() {
                Some(chunk) => self.chunk(chunk, script, bug),
                None => self.server = Server::Quiet,
            },
            Server::Quiet => self.server = Server::Telling(service.head),
            Server::Telling(head) => {
                self.server = Server::Live;
                let idle = self.channel.is_none() && !self.lagged;
                if (idle || bug == Some(Bug::PositionWithFullChannel)) && head > self.position {
                    self.position = head;
                    self.tell(head, bug);
                }
            }
        }
    }

    /// One row of the journal.
    fn read(&mut self, disk: &Disk, script: Script) {
        if disk.floor > self.position {
            self.reset(disk);
            return;
        }
        let row = self.position + 1;
        if disk.rows & 1 << row != 0 && is_wanted(script, row) {
            self.hear(row);
        }
        self.position = row;
    }

    fn chunk(&mut self, chunk: Chunk, script: Script, bug: Option<Bug>) {
        let all = bug == Some(Bug::ChunkAsItComes);
        if chunk.last <= self.position && !all {
            return;
        }
        let first = if all { chunk.first } else { chunk.first.max(self.position + 1) };
        (first..=chunk.last).filter(|row| is_wanted(script, *row)).for_each(|row| self.hear(row));
        self.position = chunk.last;
    }

    /// An event and its id arrive.
    fn hear(&mut self, row: Position) {
        self.twice |= self.heard >> row != 0;
        self.heard |= 1 << row;
        (self.id, self.passed) = (row, row);
    }

    /// A `position` notice arrives.
    fn tell(&mut self, position: Position, bug: Option<Bug>) {
        self.passed = position;
        if bug != Some(Bug::PositionIsLastMatch) {
            self.id = position;
        }
    }
}

pub(super) fn is_wanted(script: Script, position: Position) -> bool {
    rows(script).any(|(_, row, wanted)| row == position && wanted)
}
