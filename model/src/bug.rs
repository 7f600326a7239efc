//! Mistakes that were made, or nearly made: each is one step of the protocol done otherwise.

/// A seeded mistake.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Bug {
    /// A row is stamped with the clock, even if that time was closed.
    StampIgnoresClosedTime,
    /// The clock is read for the stamp before the wait for a concurrent writer of the same key.
    StampBeforeLock,
    /// An insert that was stamped before it waited is told, although its key was deleted meanwhile.
    DeletedBehindStamp,
    /// A row is stamped before its transaction has an id, by which others see that it writes.
    StampBeforeTransactionId,
    /// A watermark looks who is writing first, and closes a time afterwards.
    WritersBeforeClosing,
    /// A time that was closed counts as safe at once, whoever was writing then.
    ClosedIsSafe,
    /// The closed time is not in the database's log, so that a crash forgets it.
    ClosedTimeIsForgotten,
    /// A journal begins at the clock, even if what is in the tables is stamped later.
    JournalBeginsAtClock,
    /// Neither a watermark nor a page waits for the log to come to the database's disk.
    NothingWaitsForDisk,
    /// A round is resumed with a watermark that is taken anew.
    ResumeWithNewWatermark,
    /// A replay begins before the safe time has passed the beginning of the journal.
    ReplayBeforeJournalBegins,
    /// The id of a live event has the safe time of the last sample, even if the feed has not passed its fence LSN.
    IdHasNewestSafeTime,
    /// `position` tells the safe time of the newest watermark, even if the feed has not passed its fence LSN.
    PositionHasNewestSafeTime,
    /// A commit that stands exactly at the fence LSN counts as lying before it.
    CommitAtFenceIsBefore,
    /// A watermark waits for the disk, but a page is sent before the log is there up to what the page may have seen.
    PageBeforeLogIsOnDisk,

    /// A keepalive's place is acknowledged as it comes, before the fsync of what was received before it.
    AcknowledgeKeepaliveAtOnce,
    /// What was received is acknowledged, not what is on disk.
    AcknowledgeReceived,
    /// The head is read first, and the channel entered afterwards.
    JoinAfterReadingHead,
    /// The channel is joined, and the journal read up to what is on disk, not up to the joining point.
    JoinWithoutWaitingForDisk,
    /// A subscriber is told the position of the last change that it got, not of the last that it passed.
    PositionIsLastMatch,
    /// A `position` notice tells the head without a look at what still waits in the channel.
    PositionWithFullChannel,
    /// A chunk is sent as it comes, whatever of it the client has already.
    ChunkAsItComes,
    /// After a failure of the journal it goes on from the hub's head, not from its own.
    JournalGoesOnFromHub,

    /// A replay of one patient makes a second round.
    LaterRoundInScope,
    /// A change does not carry the content that it replaced.
    NoBeforeImage,
    /// The members are those of the Group's row as it is now.
    MembersFromTable,
    /// A Group whose earlier changes were dropped is read from its row, not from what its next change replaced.
    GroupWithoutBeforeImage,
    /// A Group's row is believed although the journal has dropped a change of it that nobody sees yet.
    RowBehindDroppedChange,
    /// A member at both of two positions counts as one in between.
    MembersAtBothEndsOnly,
    /// A leaver is silenced with the transition, not with the change of the Group.
    SilencedLate,
    /// A change of a leaver's resource is not told as a removal.
    LeaversDeletionsSilenced,
    /// The transition happens at the change of the Group, without a watermark that was taken after it.
    JoinAtOnce,
    /// A transition does not read what the pages leave to the feed.
    NothingRecent,
    /// A leaver's resources are listed by the table alone, though the log has a newer version.
    LeaversByTableAlone,
    /// What a joiner shares with somebody who stays is sent again.
    StayersAgain,
    /// A transition sends a row although the log has a newer version of it.
    RowsAndRecent,
    /// A transition is over with `live`: what leavers had and was replaced meanwhile is not told of.
    NoFading,
    /// It fades until the end of the log as it was before the leavers' list was read.
    FadingFromBefore,
    /// An id within a transition does not say whose resources the client holds.
    PagingForgetsFrom,
    /// An id between a change of the Group and its transition does not say it.
    MovingForgetsFrom,

    /// A resource that no longer matches a filter is passed over, as if it had never matched.
    LeavesFilterSilently,
    /// The rows of who joins are sent whether they match the filter or not.
    JoinersUnfiltered,
    /// A `_since` goes on before the first resource that is younger, whatever has changed of the Group before that.
    SinceIgnoresGroups,
    /// A `_since` goes on although the journal has dropped what is younger.
    SinceBeforeJournal,
    /// With a `_since` only who was a member then is taken back, not who came and went afterwards.
    CameAndWentIsKept,
    /// Who leaves a shared transition goes on from where that is, not from the last id that it passed on.
    GoesOnFromTransition,
    /// Who joins a shared transition late begins with its next item, not with its first.
    LateJoinerStartsAtNewest,
    /// A shared transition serves all with the same filter, wherever they stand.
    SharedByFilterAlone,
    /// The items of a shared transition are passed on without their ids.
    PassesOnWithoutIds,

    /// An id has no hash of its transaction, or it is not looked at.
    IdWithoutTransaction,
    /// An id ahead of the feed is waited for, and not compared when the feed passes its place.
    IdAheadIsNotCompared,
    /// A reset goes back to the id's safe time although nothing proves that the id is of this history.
    ResetWithoutProof,
    /// A process that starts goes on with the run of the one before it.
    RunSurvivesRestart,
    /// Pages are resumed, or their end followed, although nothing proves that their watermark is of this history.
    WatermarkIsNotProven,

    /// A deletion without a tombstone is passed over.
    UntoldIsPassedOver,
    /// A tombstone that the transaction left before its last deletion counts as the answer to it.
    AnsweredBefore,
    /// The epoch after an untold deletion does not count as that of a fork.
    UntoldIsNoFork,
    /// A transaction with an untold deletion is acknowledged before its fork is on disk.
    UntoldIsAcknowledged,
    /// A new slot is made before the fork that it is made for is noted on disk.
    ForkIsNotNoted,
    /// A client is told that it has everything without a look at the facts.
    NoLookAfterPages,
    /// The facts are looked at when a replay begins, not when its pages are read.
    LookBeforePages,
    /// A page that a policy filters is no error.
    PolicyIsNoError,
    /// A client is told to drop what it has without a look at the facts.
    ResetWithoutLook,
    /// A page is sent although the journal cannot note its watermark.
    PageBeforeWatermarkIsNoted,
    /// Ids are given out although the journal cannot note the run that they carry.
    IdBeforeRunIsNoted,
}
