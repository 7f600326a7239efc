//! The client: what it has, its id, and what an id is still good for.

use super::service::lsn;
use super::{Database, Disk, Lsn, Service, Transaction};
use crate::Bug;

/// An event id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Id {
    /// The run that gave it out.
    pub run: u8,
    /// The last transaction that was passed and concerned somebody: so many lie before its end.
    pub position: Lsn,
    /// Its number, of which a real id has a hash; 0: there is none.
    pub transaction: Transaction,
    /// How far the client is.
    pub stage: Stage,
}

/// How far a client is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    /// In the pages, up to this place in the log.
    Pages(Lsn),
    /// The pages are done, and the feed has not passed this place.
    Cutover(Lsn),
    /// In the feed.
    Live,
}

impl Stage {
    pub(super) fn watermark(self) -> Option<Lsn> {
        match self {
            Self::Pages(watermark) | Self::Cutover(watermark) => Some(watermark),
            Self::Live => None,
        }
    }
}

/// What is done for the client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Server {
    /// It is not connected.
    #[default]
    Away,
    /// It was told to begin again, and has no page yet.
    Reset,
    /// As `Reset`, with the watermark of its pages.
    Marked(Lsn),
    /// It has half of its pages.
    Pages,
    /// It came with an id that the feed has not passed yet, or not compared.
    Unverified,
    /// It follows.
    Following,
}

/// The client.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Client {
    /// What is done for it.
    pub server: Server,
    /// What it has, by number.
    pub has: Vec<Transaction>,
    /// Its last id.
    pub id: Option<Id>,
    /// Told to drop what does not come again.
    pub told_all: bool,
    /// Told to go on from its safe time.
    pub told_reset: bool,
    /// Told so although what it has could have been continued.
    pub needless: bool,
    /// The epoch that its last pages were read in.
    pub epoch: Option<u8>,
}

/// What an id is good for.
enum Verdict {
    Resume,
    Follow,
    Reset,
    All,
}

impl Client {
    /// Comes with its last id, or for the first time.
    /// `restored`: the history may be another. Without that every reset within an epoch is needless, unless retention
    /// has dropped what follows.
    pub(super) fn connect(
        &mut self,
        database: &Database,
        disk: &Disk,
        service: &Service,
        restored: bool,
        bug: Option<Bug>,
    ) {
        (self.told_all, self.told_reset) = (false, false);
        let Some(id) = self.id else {
            self.server = Server::Reset;
            return;
        };
        match verdict(id, database, disk, bug) {
            Verdict::Resume => self.server = Server::Pages,
            Verdict::Follow => self.server = Server::Unverified,
            Verdict::Reset => (self.server, self.told_reset) = (Server::Reset, true),
            Verdict::All => (self.server, self.told_all) = (Server::Reset, true),
        }
        let continuable = if restored {
            let kept =
                disk.run(id.run).is_some_and(|run| run.epoch == disk.epoch) && id.position >= disk.floor;
            kept && id.stage == Stage::Live && self.is_current(database, service)
        } else {
            let place = match id.stage {
                Stage::Pages(watermark) => watermark,
                Stage::Cutover(_) | Stage::Live => id.position,
            };
            self.epoch == Some(disk.epoch) && place >= disk.floor
        };
        self.needless |= self.server == Server::Reset && continuable;
    }

    /// Whether it has exactly what the database had when the id's position was passed.
    fn is_current(&self, database: &Database, service: &Service) -> bool {
        let passed = self.id.map_or(0, |id| usize::from(id.position));
        passed <= service.received.len() && self.has == concerning(&database.log, passed)
    }

    /// A watermark is taken, and returned: the pages will show what was committed before it.
    pub(super) fn watermark(&mut self, log: &[Transaction]) -> Lsn {
        let watermark = lsn(log);
        self.server = Server::Marked(watermark);
        watermark
    }

    /// Half of the pages, or the rest and over to the feed.
    pub(super) fn page(&mut self, log: &[Transaction], disk: &Disk, service: &Service) {
        let half = |number: &Transaction| number.is_multiple_of(2);
        if let Server::Marked(watermark) = self.server {
            let log = log.get(..usize::from(watermark)).unwrap_or_default();
            let shown = concerning(log, log.len()).into_iter().filter(half);
            match self.told_reset {
                true => self.has.extend(shown.collect::<Vec<_>>()),
                false => self.has = shown.collect(),
            }
            self.stand(service, Stage::Pages(watermark));
            (self.server, self.epoch) = (Server::Pages, Some(disk.epoch));
        } else if let Some(Stage::Pages(watermark)) = self.id.map(|id| id.stage) {
            self.has
                .extend(concerning(log, usize::from(watermark)).into_iter().filter(|number| !half(number)));
            // What came in meanwhile lies on the feed's side.
            let beyond = service.received.get(usize::from(watermark)..).unwrap_or_default();
            self.has.extend(beyond.iter().filter(|number| **number != 0));
            self.stand(service, Stage::Cutover(watermark));
            self.server = Server::Following;
        }
        self.tidy();
    }

    /// Compares, or hears, what has come in.
    pub(super) fn told(&mut self, log: &[Transaction], service: &Service, bug: Option<Bug>) {
        let Some(id) = self.id else { return };
        if self.server == Server::Unverified {
            if service.lsn() < id.position {
                if bug == Some(Bug::IdAheadIsNotCompared) {
                    self.server = Server::Following;
                }
                return;
            }
            let passed = usize::from(id.position).checked_sub(1);
            let there = passed.and_then(|at| service.received.get(at)).copied().unwrap_or(0);
            if there != id.transaction && bug != Some(Bug::IdWithoutTransaction) {
                self.needless |= self.has == concerning(log, usize::from(id.position));
                (self.server, self.told_all) = (Server::Reset, true);
                return;
            }
            self.server = Server::Following;
        }
        if self.server == Server::Following {
            let from = usize::from(id.position.max(id.stage.watermark().unwrap_or(0)));
            let new = service.received.get(from..).unwrap_or_default();
            self.has.extend(new.iter().filter(|number| **number != 0));
            self.tidy();
            let stage = match id.stage {
                Stage::Cutover(watermark) if service.lsn() < watermark => id.stage,
                _ => Stage::Live,
            };
            // What is ahead of the feed is not told backwards (a seeded mistake).
            if service.lsn() >= id.position {
                self.stand(service, stage);
            }
        }
    }

    fn stand(&mut self, service: &Service, stage: Stage) {
        let last = service.received.iter().rposition(|number| *number != 0);
        let transaction = last.and_then(|last| service.received.get(last)).copied().unwrap_or(0);
        let position = last.and_then(|last| u8::try_from(last + 1).ok()).unwrap_or(0);
        self.id = Some(Id { run: service.run, position, transaction, stage });
    }

    fn tidy(&mut self) {
        self.has.sort_unstable();
        self.has.dedup();
    }

    pub(super) fn cut(&mut self) {
        self.server = Server::Away;
    }

    /// Cuts are steps only where they lead to something new.
    pub(super) fn may_be_cut(&self, pages: bool) -> bool {
        match self.server {
            Server::Following => true,
            Server::Pages => pages,
            _ => false,
        }
    }
}

/// What an id is still good for: `docs/design.md`, "Ids, epochs, resets".
fn verdict(id: Id, database: &Database, disk: &Disk, bug: Option<Bug>) -> Verdict {
    let Some(run) = disk.run(id.run).filter(|run| !run.forked) else { return Verdict::All };
    let same_epoch = run.epoch == disk.epoch;
    let proven = |place: Lsn| place <= run.end;
    if let Some(watermark) = id.stage.watermark()
        && watermark > run.paged
        && bug != Some(Bug::WatermarkIsNotProven)
    {
        return Verdict::All;
    }
    let reset = if proven(id.position) || bug == Some(Bug::ResetWithoutProof) {
        Verdict::Reset
    } else {
        Verdict::All
    };
    match id.stage {
        // Without a `_since` of its own a round has no lower bound.
        Stage::Pages(watermark) if !same_epoch || watermark < disk.floor => Verdict::All,
        Stage::Pages(_) => Verdict::Resume,
        _ if !same_epoch || id.position < disk.floor => reset,
        _ if usize::from(id.position) > database.log.len() => Verdict::All,
        _ => Verdict::Follow,
    }
}

/// The transactions before a place that concern the client.
pub(super) fn concerning(log: &[Transaction], before: usize) -> Vec<Transaction> {
    let mut numbers: Vec<_> = log.iter().take(before).copied().filter(|number| *number != 0).collect();
    numbers.sort_unstable();
    numbers
}
