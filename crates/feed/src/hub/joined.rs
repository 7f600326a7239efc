//! A listener's place in a channel.

use super::{ChannelMessage, Chunk, Head, Hub, Key};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::broadcast;

/// What a listener gets of a channel.
pub(crate) enum Next {
    /// Changes, with their frames.
    Chunk(Arc<Chunk>, Bytes),
    /// See [`ChannelMessage::Freshness`].
    Freshness(Arc<Head>),
}

/// A place in a channel, entered at a known head.
pub(crate) struct Joined {
    /// `None` only while it is dropped.
    pub(super) receiver: Option<broadcast::Receiver<ChannelMessage>>,
    /// The head at that moment: what lies beyond comes through the channel.
    pub(crate) head: Head,
    pub(super) key: Key,
    pub(super) hub: Arc<Hub>,
}

impl Joined {
    /// What comes next; `None`: the subscriber is behind, or the channel is gone. Either way it goes on in the journal.
    pub(crate) async fn next(&mut self) -> Option<Next> {
        match self.receiver.as_mut()?.recv().await {
            Ok(ChannelMessage::Chunk(chunk)) => {
                let frames = chunk.frames.lock().clone()?;
                Some(Next::Chunk(chunk, frames))
            }
            Ok(ChannelMessage::Freshness(head)) => Some(Next::Freshness(head)),
            Ok(ChannelMessage::Skipped) | Err(_) => None,
        }
    }

    /// The head, if everything up to it that came through the channel was taken: it was read first.
    pub(crate) fn idle_head(&self) -> Option<Head> {
        let head = self.hub.head();
        let empty = self.receiver.as_ref().is_some_and(broadcast::Receiver::is_empty);
        (empty && head.epoch == self.head.epoch).then_some(head)
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.receiver = None;
        self.hub.leave(&self.key);
    }
}
