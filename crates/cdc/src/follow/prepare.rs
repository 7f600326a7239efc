//! Before the stream: connections, publication, slot; and whether the journal may go on.

use super::error::{RunError, SessionError};
use super::slot_monitor::look_at_slot;
use crate::Settings;
use crate::SourceStatus;
use crate::facts;
use crate::identity::Identity;
use crate::lossy::{Lossy, is_unconvertible};
use crate::publication;
use crate::sink::{Epoch, Sink};
use crate::slot::{self, Slot};
use feed::{Lsn, Origin};
use fhir::Instant;
use pg::Session;
use pg::database::Connected;
use pg::replication::{self, Channel, Connection, System};
use std::time::Duration;
use tokio::sync::watch;
use tokio_postgres::Client;

/// A session that can begin.
pub(super) struct Prepared {
    pub(super) connected: Connected,
    pub(super) connection: Connection<Channel>,
    /// Where the stream starts: where the slot stands, not where we do. What lies between comes again, and shows
    /// whether the database still has the history that was published.
    pub(super) start: Lsn,
    /// What is followed, see [`Origin::identity`].
    pub(super) identity: Identity,
    /// To be begun before the stream is started.
    pub(super) epoch: Option<Epoch>,
}

/// What the sink knows, read before anything is awaited.
pub(super) struct Known {
    pub(super) origin: Option<Origin>,
    pub(super) durable: Lsn,
    /// Up to here clients may have been told what the log says.
    pub(super) reached: Lsn,
    /// What was published may not be part of the database's history.
    pub(super) forked: bool,
    /// Rows are gone, and no change says so.
    pub(super) untold: bool,
    /// If the slot is missing, it was given up by us.
    pub(super) gave_up_slot: bool,
    /// The server's process that served us last.
    pub(super) walsender: Option<i32>,
}

impl Known {
    pub(super) fn of(sink: &impl Sink) -> Self {
        let (origin, durable, reached) = (sink.origin(), sink.durable_lsn(), sink.reached());
        Self { origin, durable, reached, forked: false, untold: false, gave_up_slot: false, walsender: None }
    }
}

/// How often those are named that the making of a slot waits for.
const NAME_BLOCKERS: Duration = Duration::from_secs(5);

/// Does all that comes before the stream. Can be dropped: a slot that was made by then is found to be
/// beyond what the journal acknowledged, which begins a new epoch too; and the journal has it noted if that is of a fork.
pub(super) async fn prepare(
    settings: &Settings,
    known: &mut Known,
    sink: &mut impl Sink,
    status: &watch::Sender<SourceStatus>,
) -> Result<Prepared, SessionError> {
    let connected = settings.database.connect_watched(Session::Monitor).await?;
    let client = &connected.client;
    look_at_slot(client, settings, status).await?;
    let mut connection = replication::connect(&settings.database, &connected.endpoint).await?;
    let system = connection.identify_system().await?;
    if let Some(origin) = &known.origin
        && origin.system != system.id
    {
        return Err(RunError::OtherSystem { journal: origin.system, database: system.id }.into());
    }

    // The publication first: a slot that is older than its publication cannot be read.
    publication::ensure(client, &settings.publication, settings.layout.tables()).await?;
    publication::refuse_subscribed(client, settings.layout.tables()).await?;
    let identity = Identity::of(client, &settings.publication, &*settings.layout).await?;
    let slot = ours(settings, slot::find(client, &settings.slot).await?)?;
    // Before anything is concluded from where it stands: whoever reads from it moves it on.
    if let Some(pid) = slot.as_ref().and_then(|slot| slot.reader) {
        return Err(match known.walsender {
            Some(ours) if ours == pid => SessionError::HeldByOurLast,
            _ => SessionError::HeldByAnother { slot: settings.slot.clone(), pid },
        });
    }
    let difference = known.origin.as_ref().and_then(|origin| identity.differs_from(&origin.identity));
    let same_timeline = known.origin.as_ref().is_some_and(|origin| origin.timeline == system.timeline);
    let fork = known.forked
        || known.untold
        || is_fork(known, &system, &mut connection).await?
        || difference.is_some_and(|difference| difference.fork)
        // A copy of the database that was made before the slot was, or without it, has none; by now it may stand
        // beyond the journal. Nothing tells it from a slot that was dropped.
        || (slot.is_none() && same_timeline && !known.gave_up_slot);
    // If we fail before the epoch is begun, the slot that we made by then says nothing of it.
    known.forked = fork;
    let remake = match (&slot, difference) {
        // From here on a decoder would look for a publication or a table that its snapshot does not have.
        (Some(_), Some(difference)) => Some(difference.reason),
        // The transaction would come again, and end this session too.
        (Some(_), None) if known.untold => Some("rows were deleted without a word"),
        (Some(slot), None) if slot.lost => Some("the server has thrown away the log that the slot needs"),
        (Some(_), None) => None,
        (None, Some(difference)) => Some(difference.reason),
        (None, None) => Some("the slot is new"),
    };
    let reason = match &slot {
        Some(slot) if remake.is_none() => reason_to_begin_anew(known, slot, fork, same_timeline),
        _ => remake,
    };
    if reason.is_some() {
        epoch_may_begin(client, settings).await?;
        if fork {
            // A slot that is new, or stands behind what was lost, would say nothing of it to a process that starts now.
            sink.taint().await.map_err(SessionError::Publish)?;
        }
    }
    let start = match slot {
        Some(slot) if remake.is_none() => slot.confirmed,
        slot => {
            if slot.is_some() {
                connection.drop_slot(settings.slot.as_str()).await?;
            }
            make_slot(settings, client, &mut connection, status).await?
        }
    };
    let epoch = match reason {
        None => None,
        Some(reason) => {
            tracing::info!(reason, %start, fork, "a new epoch begins");
            let origin = Origin { system: system.id, timeline: system.timeline, identity: identity.text() };
            // After the slot was made: no replay begins before the safe time has passed it.
            let since = clock(client).await?;
            Some(Epoch { origin, start, since, fork })
        }
    };
    Ok(Prepared { connected, connection, start, identity, epoch })
}

/// A new epoch resets all subscribers, who read the tables then: it is of no use before these can be read whole.
async fn epoch_may_begin(client: &Client, settings: &Settings) -> Result<(), SessionError> {
    match facts::failing(client, settings).await?.first() {
        None => Ok(()),
        Some(fact) => Err(SessionError::FactsFail(fact.to_string())),
    }
}

fn reason_to_begin_anew(known: &Known, slot: &Slot, fork: bool, same_timeline: bool) -> Option<&'static str> {
    if known.origin.is_none() {
        Some("the journal is new")
    } else if fork {
        Some("the database's history has forked")
    } else if !same_timeline {
        Some("the database has a new timeline")
    } else if slot.confirmed > known.durable {
        Some("the slot was moved on by somebody else")
    } else {
        None
    }
}

/// The slot, if it is one that we can use.
fn ours(settings: &Settings, slot: Option<Slot>) -> Result<Option<Slot>, SessionError> {
    let Some(slot) = slot else { return Ok(None) };
    match slot.other_owner(settings.database.dbname()) {
        None => Ok(Some(slot)),
        Some(owner) => Err(SessionError::SlotOfAnother { slot: settings.slot.clone(), owner }),
    }
}

/// Whether the database may lack what clients were told from it: it stands before it (restored from a copy), or its timeline
/// branched off before it.
async fn is_fork(
    known: &Known,
    system: &System,
    connection: &mut Connection<Channel>,
) -> Result<bool, SessionError> {
    let Some(origin) = &known.origin else { return Ok(false) };
    let reached = known.reached;
    if system.flushed < reached {
        return Ok(true);
    }
    if origin.timeline == system.timeline {
        return Ok(false);
    }
    // The first timeline has no history; nothing but a restored copy goes back to it.
    if system.timeline <= 1 {
        return Ok(true);
    }
    let history = connection.timeline_history(system.timeline).await?;
    Ok(branched_before(&history, origin.timeline, reached))
}

fn branched_before(history: &[replication::Timeline], timeline: u32, reached: Lsn) -> bool {
    history
        .iter()
        .find(|ancestor| ancestor.id == timeline)
        .is_none_or(|ancestor| ancestor.switch_point < reached)
}

/// Makes the slot, and says meanwhile whom the server waits for.
async fn make_slot(
    settings: &Settings,
    client: &Client,
    connection: &mut Connection<Channel>,
    status: &watch::Sender<SourceStatus>,
) -> Result<Lsn, SessionError> {
    let pid = connection.pid();
    let name = settings.slot.as_str();
    let failover = slot::is_kept_by_standbys(client).await?;
    let mut made = std::pin::pin!(connection.create_slot(name, failover));
    loop {
        tokio::select! {
            start = &mut made => {
                let start = start?;
                tracing::info!(slot = name, %start, "made the replication slot");
                return Ok(start);
            }
            () = tokio::time::sleep(NAME_BLOCKERS) => {
                let blockers = blockers(client, pid).await?;
                tracing::warn!(
                    slot = name,
                    blockers,
                    "the replication slot is made when the transactions that are open now have ended"
                );
                status.send_modify(|status| {
                    status.state = format!(
                        "making the replication slot, which waits for the end of the transactions that are open: {blockers}"
                    );
                });
            }
        }
    }
}

/// Whom the server's process waits for now, in words for people. Others of the cluster may follow.
async fn blockers(client: &Client, pid: i32) -> Result<String, tokio_postgres::Error> {
    let rows = match client.query(&blocked_by(true), &[&pid]).await {
        Err(error) if is_unconvertible(&error) => client.query(&blocked_by(false), &[&pid]).await?,
        rows => rows?,
    };
    let named = rows.iter().map(|row| row.try_get::<_, Lossy>(0).map(|Lossy(text)| text));
    let named: Vec<String> = named.collect::<Result<_, _>>()?;
    Ok(if named.is_empty() { "not known at this moment".to_owned() } else { named.join("; ") })
}

/// A prepared transaction has no process. By their numbers, what has a name that cannot be converted.
fn blocked_by(names: bool) -> String {
    let (role, database, gid, owner) = match names {
        true => ("a.usename", "a.datname", "format('%L', p.gid)", "p.owner"),
        false => ("a.usesysid::text", "a.datid::text", "p.transaction::text", "'?'"),
    };
    let of = if names { "p.database" } else { "'?'" };
    format!(
        "select format('process %s (role %s, database %s, application %L, %s%s)', b.pid, coalesce({role}, '?'),
                coalesce({database}, '?'), coalesce(a.application_name, ''), coalesce(a.state, 'state unknown'),
                coalesce(format(', since %s s', extract(epoch from clock_timestamp() - a.xact_start)::int8), ''))
           from unnest(pg_blocking_pids($1)) b(pid) left join pg_stat_activity a on a.pid = b.pid
          where b.pid <> 0
         union all
         select format('prepared transaction %s (role %s, database %s, since %s s): commit prepared or rollback prepared',
                       {gid}, {owner}, {of}, extract(epoch from clock_timestamp() - p.prepared)::int8)
           from pg_locks l join pg_prepared_xacts p on p.transaction = l.transactionid
          where l.pid = $1 and not l.granted"
    )
}

async fn clock(client: &Client) -> Result<Instant, tokio_postgres::Error> {
    let row = client.query_one("select (extract(epoch from clock_timestamp()) * 1000000)::int8", &[]).await?;
    Ok(Instant::from_unix_micros(row.try_get(0)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::Timeline;

    #[test]
    fn a_timeline_goes_on_only_from_before_its_branch() {
        let history = [
            Timeline { id: 1, switch_point: Lsn::new(100) },
            Timeline { id: 2, switch_point: Lsn::new(200) },
        ];
        assert!(!branched_before(&history, 1, Lsn::new(100)));
        assert!(branched_before(&history, 1, Lsn::new(101)));
        assert!(!branched_before(&history, 2, Lsn::new(101)));
        assert!(branched_before(&history, 4, Lsn::new(1)));
    }
}
