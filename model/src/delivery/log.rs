//! The database's side: a log of transactions, a slot, and a walsender that decodes what is on disk.
//!
//! Only what is flushed is decoded, so a crash of the database takes nothing back that was sent. What it does take back is
//! the slot's memory of what was acknowledged, which goes to disk only now and then.

/// Everything that will be committed: of each transaction its rows, and whether the subscriber's filter wants them.
pub type Script = &'static [&'static [bool]];

/// How many transactions, from the first, lie before a place in the log.
pub type Lsn = u8;

/// A row's number in the whole log, from 1: its position. 0 is before them all.
pub type Position = u8;

/// What the walsender sends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// A row, of a transaction by its number from 0.
    Row(Position, u8),
    /// The end of a transaction: everything before this place was sent.
    Commit(Lsn),
    /// A sign of life. In the middle of a transaction it may name that transaction's end already.
    Keepalive(Lsn),
}

/// Transaction and number of each row.
pub fn rows(script: Script) -> impl Iterator<Item = (u8, Position, bool)> {
    let all = (0u8..)
        .zip(script)
        .flat_map(|(transaction, rows)| rows.iter().map(move |wanted| (transaction, *wanted)));
    all.zip(1u8..).map(|((transaction, wanted), position)| (transaction, position, wanted))
}

/// The transaction of a row.
pub fn transaction_of(script: Script, position: Position) -> Option<u8> {
    rows(script).find(|(_, at, _)| *at == position).map(|(transaction, _, _)| transaction)
}

/// A replication connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Walsender {
    /// The last row that was sent, or that lies before the start.
    pub sent: Position,
    /// The transaction that is being sent or comes next.
    pub transaction: u8,
    /// A keepalive was sent and nothing since.
    pub quiet: bool,
}

impl Walsender {
    /// A new stream: whole transactions from a place on.
    pub fn start(script: Script, from: Lsn) -> Self {
        let sent = rows(script).filter(|(transaction, _, _)| *transaction < from).count();
        // A script has a handful of rows.
        Self { sent: u8::try_from(sent).unwrap_or(u8::MAX), transaction: from, quiet: false }
    }

    /// The next message of the log, of which so many transactions are on disk.
    pub fn next(&self, script: Script, committed: Lsn) -> Option<Message> {
        if self.transaction >= committed {
            return None;
        }
        Some(match transaction_of(script, self.sent + 1) {
            Some(transaction) if transaction == self.transaction => Message::Row(self.sent + 1, transaction),
            _ => Message::Commit(self.transaction + 1),
        })
    }

    /// Sends it.
    pub fn advance(&mut self, message: Message) {
        self.quiet = matches!(message, Message::Keepalive(_));
        match message {
            Message::Row(position, _) => self.sent = position,
            Message::Commit(lsn) => self.transaction = lsn,
            Message::Keepalive(_) => {}
        }
    }

    /// A keepalive as it would be sent now.
    pub fn keepalive(&self, script: Script, committed: Lsn) -> Message {
        let within =
            transaction_of(script, self.sent).is_some_and(|transaction| transaction == self.transaction);
        Message::Keepalive(if within { self.transaction + 1 } else { self.transaction.min(committed) })
    }
}
