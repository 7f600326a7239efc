//! The task that samples, and how replays ask it.

use super::closings::Closings;
use super::sample::{self, Draft, Request, SampleError};
use crate::Settings;
use crate::check::Finding;
use crate::facts;
use crate::layout::BeforeImages;
use crate::wal_flush::{WalFlush, is_durable};
use feed::{Lsn, Position, Sample, SampleBase, SourceError};
use fhir::Instant;
use pg::database::retry_of;
use pg::{Backoff, Retry};
use pg::{ConnectError, Session};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant as Clock, MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(1);
/// How often a time is closed while no changes are published: a quiet stream is told once a minute up to when it has all.
const CLOSE_WHILE_IDLE: Duration = Duration::from_secs(30);
/// How long a replay waits for a watermark before it is told that the database is away.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long each statement of a sample may take, and how long its watermark may take to hold.
const STATEMENTS: Duration = Duration::from_secs(5);
/// The safe time further behind the clock than this is logged.
const BEHIND: Duration = Duration::from_secs(2);
/// How often the facts are looked at, ...
const LOOK_AT_FACTS: Duration = Duration::from_secs(60);
/// ... and how often while one of them fails.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How often it is looked whether the feed has passed a place, for a request that waits for it.
const PASSED: Duration = Duration::from_millis(20);

/// Somebody who waits for a sample.
struct Asked {
    answer: oneshot::Sender<Result<Sample, SourceError>>,
    /// The facts are to be looked at for it.
    look: bool,
}

/// The samples, as the rest of the crate asks for them.
pub(crate) struct Watermarks {
    asked: mpsc::UnboundedSender<Asked>,
    state: Arc<State>,
    feed: feed::Feed,
    before_images: Arc<BeforeImages>,
}

/// What the task tells the others.
#[derive(Default)]
struct State {
    holding_back: Mutex<Option<String>>,
    failure: Mutex<Option<String>>,
    refusal: Mutex<Option<String>>,
    failing: Mutex<Vec<Finding>>,
    for_patients: Mutex<ForPatients>,
    clock_steps: AtomicU64,
}

/// What streams of patients and Groups need.
#[derive(Clone, Default)]
struct ForPatients {
    /// What is lacking; `None`: not looked at yet.
    lacking: Option<Vec<Finding>>,
    /// Nothing was lacking when the log ended here. What is written from there on has its before image in the log.
    since: Option<Lsn>,
}

fn set<T>(place: &Mutex<T>, value: T) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

fn get<T: Clone>(place: &Mutex<T>) -> T {
    place.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Watermarks {
    /// Starts the task. It runs until `shutdown`.
    pub(crate) fn start(
        settings: Settings,
        feed: feed::Feed,
        wal_flush: WalFlush,
        before_images: Arc<BeforeImages>,
        shutdown: CancellationToken,
    ) -> Self {
        let (asked, asks) = mpsc::unbounded_channel();
        let state = Arc::new(State::default());
        let sampler = Sampler {
            settings,
            feed: feed.clone(),
            asks,
            waiting: Vec::new(),
            state: Arc::clone(&state),
            last: None,
            closings: (0, Closings::default()),
            closed_at: None,
            begins: None,
            unproven: None,
            wal_flush,
            looked: None,
        };
        tokio::spawn(async move {
            // A sample has nothing to finish: it may be cut off anywhere.
            shutdown.run_until_cancelled(sampler.run()).await;
        });
        Self { asked, state, feed, before_images }
    }

    /// A watermark that was begun after this was called. Those who ask while one is taken share the next.
    pub(crate) async fn take(&self) -> Result<Sample, SourceError> {
        self.ask(false).await
    }

    /// Looks at the facts, after this was called: an error if one fails.
    pub(crate) async fn confirm(&self) -> Result<(), SourceError> {
        self.ask(true).await.map(drop)
    }

    /// Whether requests for the resources of patients can be answered. An error says what is lacking.
    pub(crate) async fn knows_patients(&self) -> Result<(), SourceError> {
        let missed = self.before_images.were_missed();
        if missed {
            self.state.for_patients.lock().unwrap_or_else(PoisonError::into_inner).since = None;
        }
        if !matches!(get(&self.state.for_patients), ForPatients { lacking: Some(lacking), since: Some(_) } if lacking.is_empty())
        {
            self.ask(true).await?;
        }
        let ForPatients { lacking, since } = get(&self.state.for_patients);
        if let Some(lacking) = lacking.iter().flatten().next() {
            return Err(SourceError::Refused(lacking.to_string()));
        }
        let waiting = async {
            while since.is_none_or(|since| self.feed.status().received_lsn < since) {
                sleep(PASSED).await;
            }
        };
        timeout(PATIENCE, waiting).await.map_err(|_| {
            SourceError::Unavailable(
                "the log is not read up to where it has the content that each change replaced".into(),
            )
        })
    }

    /// What streams of patients and Groups need and is lacking, as it was when last looked at.
    pub(crate) fn lacking_for_patients(&self) -> Vec<Finding> {
        get(&self.state.for_patients).lacking.unwrap_or_default()
    }

    /// Has the facts looked at soon, because something was refused that may come of one.
    pub(crate) fn suspect(&self) {
        // The answer is for those who ask for the facts. It cannot be sent while the service stops.
        let _stopping = self.asked.send(Asked { answer: oneshot::channel().0, look: true });
    }

    async fn ask(&self, look: bool) -> Result<Sample, SourceError> {
        let (answer_to, answer) = oneshot::channel();
        let stopped = || SourceError::Unavailable("the service is stopping".into());
        self.asked.send(Asked { answer: answer_to, look }).map_err(|_| stopped())?;
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|_| stopped())?,
            Err(_) => {
                Err(SourceError::Unavailable(get(&self.state.failure).unwrap_or_else(|| {
                    format!("no watermark could be taken within {} s", PATIENCE.as_secs())
                })))
            }
        }
    }

    /// Who keeps the safe time from moving on.
    pub(crate) fn holding_back(&self) -> Option<String> {
        get(&self.state.holding_back)
    }

    /// Why no watermark can be taken now, if the last could not.
    pub(crate) fn failure(&self) -> Option<String> {
        get(&self.state.failure)
    }

    /// Why no watermark can be taken until somebody mends it.
    pub(crate) fn refusal(&self) -> Option<String> {
        get(&self.state.refusal)
    }

    /// The facts that fail.
    pub(crate) fn failing(&self) -> Vec<Finding> {
        get(&self.state.failing)
    }

    /// How often the database's clock was seen to step back.
    pub(crate) fn clock_steps(&self) -> u64 {
        self.state.clock_steps.load(Ordering::Relaxed)
    }
}

struct Sampler {
    settings: Settings,
    feed: feed::Feed,
    asks: mpsc::UnboundedReceiver<Asked>,
    /// Who asked while there was no connection.
    waiting: Vec<Asked>,
    state: Arc<State>,
    /// The sample before, to compare the clocks.
    last: Option<Draft>,
    /// Times that were closed in the epoch named, over this connection.
    closings: (u64, Closings),
    /// The head when a time was last closed, and when that was: while it does not move, no other one need be for a while.
    closed_at: Option<(Position, Clock)>,
    /// What the safe time has to reach in an epoch that has no watermark yet.
    begins: Option<(u64, Instant)>,
    /// A watermark of the clock's tick that did not hold at once: looked at again with the next tick.
    unproven: Option<(SampleBase, Draft)>,
    wal_flush: WalFlush,
    /// When the facts were last looked at (`None`: too long ago for who asks now), and which of them failed.
    looked: Option<(Option<Clock>, Vec<Finding>)>,
}

impl Sampler {
    /// Connects, and again when the connection is lost, for ever.
    async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            let (failure, retry) = match self.connect().await {
                Ok(client) => {
                    let error = self.sample_until_failure(&client, &mut backoff).await;
                    let retry = if error.is_refusal() { Retry::Operator } else { Retry::Backoff };
                    (crate::describe_error(&error), retry)
                }
                Err(error) => (crate::describe_error(&error), error.retry()),
            };
            tracing::warn!(%failure, "no watermark can be taken");
            set(&self.state.failure, Some(failure));
            self.last = None;
            // What was closed may be lost, if the server is another one now.
            self.closings.1.clear();
            self.closed_at = None;
            self.begins = None;
            self.unproven = None;
            self.looked = None;
            // Who asks meanwhile waits for the next connection, and is forgotten when it waits no longer.
            let _over = timeout(backoff.next(retry), async {
                while let Some(asked) = self.asks.recv().await {
                    if self.waiting.len() == self.waiting.capacity() {
                        self.waiting.retain(|asked| !asked.answer.is_closed());
                    }
                    self.waiting.push(asked);
                }
                // Nobody can ask any more.
                std::future::pending::<()>().await;
            })
            .await;
        }
    }

    async fn connect(&self) -> Result<Client, ConnectError> {
        self.settings.database.connect(Session::Watermark).await
    }

    /// Samples with every tick and whenever asked, until the connection is of no more use.
    async fn sample_until_failure(&mut self, client: &Client, backoff: &mut Backoff) -> SampleError {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                asked = self.asks.recv() => self.waiting.extend(asked),
            }
            let mut waiting = std::mem::take(&mut self.waiting);
            // Whoever has asked by now gets the sample that begins now.
            while let Ok(asked) = self.asks.try_recv() {
                waiting.push(asked);
            }
            // Who was refused may ask because it was mended.
            let fails = self.looked.as_ref().is_some_and(|(_, failing)| !failing.is_empty());
            if waiting.iter().any(|asked| asked.look || fails) {
                self.looked = self.looked.take().map(|(_, failing)| (None, failing));
            }
            waiting.retain(|asked| !asked.answer.is_closed());
            let result = if waiting.is_empty() {
                self.tick(client).await.map(|()| None)
            } else {
                self.answer(client).await.map(Some)
            };
            match result {
                Ok(sample) => {
                    backoff.reset();
                    set(&self.state.failure, None);
                    set(&self.state.refusal, None);
                    for asked in waiting {
                        // Not there any more: nobody to tell. A tick has nobody waiting.
                        if let Some(sample) = sample {
                            let _ = asked.answer.send(Ok(sample));
                        }
                    }
                }
                Err(error) => {
                    let text = crate::describe_error(&error);
                    set(&self.state.failure, Some(text.clone()));
                    set(&self.state.refusal, error.is_refusal().then(|| text.clone()));
                    for asked in waiting {
                        let _ = asked.answer.send(Err(if error.is_refusal() {
                            SourceError::Refused(text.clone())
                        } else {
                            SourceError::Unavailable(text.clone())
                        }));
                    }
                    if error.needs_connection() {
                        return error;
                    }
                }
            }
        }
    }

    /// A sample that nobody waits for: neither does it wait for the disk.
    async fn tick(&mut self, client: &Client) -> Result<(), SampleError> {
        let (sample_base, draft) = self.sample(client, false).await?;
        let older = self.unproven.take();
        if holds(client, &draft).await? {
            self.feed.note_watermark(sample_base, draft.sample.watermark);
            return Ok(());
        }
        match older {
            Some((marked, older)) if holds(client, &older).await? => {
                self.feed.note_watermark(marked, older.sample.watermark);
                self.unproven = Some((sample_base, draft));
            }
            // The older is nearer to holding.
            Some(older) => self.unproven = Some(older),
            None => self.unproven = Some((sample_base, draft)),
        }
        Ok(())
    }

    /// A sample that a replay waits for.
    async fn answer(&mut self, client: &Client) -> Result<Sample, SampleError> {
        let (sample_base, draft) = self.sample(client, true).await?;
        let on_disk = self.wal_flush.wait(client, draft.sample.watermark.fence_lsn);
        bounded_sample(async { on_disk.await.map_err(sample::standby) }).await?;
        self.feed.note_watermark(sample_base, draft.sample.watermark);
        // An older one must not be told after it.
        self.unproven = None;
        Ok(draft.sample)
    }

    /// Looks at the facts now and then, and when asked: rarely, as it reads a little of an index for each type.
    async fn look_at_facts(&mut self, client: &Client) -> Result<(), SampleError> {
        let fresh = |looked: Clock, failing: &[Finding]| {
            looked.elapsed() < if failing.is_empty() { LOOK_AT_FACTS } else { LOOK_AGAIN }
        };
        if !self.looked.as_ref().is_some_and(|(looked, failing)| looked.is_some_and(|at| fresh(at, failing)))
        {
            let looking = facts::failing(client, &self.settings);
            let failing = bounded_sample(async { Ok(looking.await?) }).await?;
            self.look_for_patients(client).await?;
            let before = self.looked.replace((Some(Clock::now()), failing.clone()));
            let before = before.map(|(_, failing)| failing).unwrap_or_else(|| get(&self.state.failing));
            for fact in failing.iter().filter(|fact| !before.contains(fact)) {
                tracing::error!(reason = %fact, "no replay begins until somebody mends this");
            }
            if failing.is_empty() && !before.is_empty() {
                tracing::info!("the facts on which replays depend hold again");
            }
            set(&self.state.failing, failing);
        }
        match self.looked.as_ref().and_then(|(_, failing)| failing.first()) {
            None => Ok(()),
            Some(fact) => Err(SampleError::FactsFail(fact.to_string())),
        }
    }

    /// Looks at what streams of patients need, which keeps no other stream from being served.
    async fn look_for_patients(&self, client: &Client) -> Result<(), SampleError> {
        let looking = self.settings.layout.lacking_for_patients(client);
        let lacking = bounded_sample(async {
            match looking.await {
                // A question that this role may not ask is not an answer either.
                Err(error) if retry_of(&error) == Retry::Operator => {
                    Ok(vec![Finding::warning("patient index", facts::could_not_be_asked(&error))])
                }
                answer => Ok(answer?),
            }
        })
        .await?;
        let before = get(&self.state.for_patients);
        let known = before.lacking.unwrap_or_default();
        for lack in lacking.iter().filter(|lack| !known.contains(lack)) {
            tracing::warn!(reason = %lack, "streams of patients are refused until this is mended");
        }
        let since = match before.since.filter(|_| lacking.is_empty()) {
            None if lacking.is_empty() => Some(bounded_sample(sample::end_of_log(client)).await?),
            since => since,
        };
        set(&self.state.for_patients, ForPatients { lacking: Some(lacking), since });
        Ok(())
    }

    async fn sample(&mut self, client: &Client, asked: bool) -> Result<(SampleBase, Draft), SampleError> {
        self.look_at_facts(client).await?;
        let sample_base = self.feed.sample_base();
        // Every watermark that held was fed. One that does not hold yet is not, but its safe time is safe all the same.
        self.unproven.take_if(|(marked, _)| marked.epoch != sample_base.epoch);
        let unproven = self.unproven.as_ref().map(|(_, draft)| draft.sample.watermark.safe_time);
        let floor = sample_base.floor.max(unproven);
        if self.closings.0 != sample_base.epoch {
            self.closings = (sample_base.epoch, Closings::default());
            self.closed_at = None;
        }
        let due = self
            .closed_at
            .is_none_or(|(head, closed)| head != sample_base.head || closed.elapsed() >= CLOSE_WHILE_IDLE);
        let begins = self.begins.filter(|(epoch, _)| *epoch == sample_base.epoch).map(|(_, newest)| newest);
        let request = Request {
            floor,
            close: asked,
            must_close: due || (floor.is_none() && self.closings.1.is_empty()),
            fence_lsn: self.last.as_ref().map(|last| last.sample.watermark.fence_lsn),
            reached: begins.map_or(sample_base.reached, |newest| newest.max(sample_base.reached)),
            closings: &mut self.closings.1,
        };
        let sampled = bounded_sample(sample::take(client, self.settings.layout.stamps(), request)).await;
        let draft = match sampled {
            Ok(draft) => draft,
            Err(error) => {
                if let SampleError::Held(holder) = &error {
                    set(&self.state.holding_back, Some(holder.clone()));
                }
                return Err(error);
            }
        };
        if self.last.as_ref().is_some_and(|last| sample::stepped_back(last, &draft)) {
            self.state.clock_steps.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("the database's clock has stepped back");
        }
        if draft.closed {
            self.closed_at = Some((sample_base.head, draft.read));
        }
        if floor.is_none() {
            self.reach_what_was_there(client, sample_base.epoch, draft.sample.watermark.safe_time).await?;
        }
        let clock = draft.clock;
        self.feed.visible_until(sample_base.epoch, draft.visible_until);
        let behind = clock.unix_micros().saturating_sub(draft.visible_until.unix_micros());
        // While no replay can begin, every moment is.
        let holds = draft.sample.watermark.safe_time < self.feed.status().journal_begins
            || u128::try_from(behind).is_ok_and(|behind| behind > BEHIND.as_micros());
        let holder = draft.holder.as_ref().filter(|_| holds).map(|holder| holder.describe(clock));
        set(&self.state.holding_back, holder);
        self.last = Some(draft.clone());
        Ok((sample_base, draft))
    }

    /// The first safe time of an epoch has to reach the newest stamp that is there by then: what was committed before the slot was
    /// made does not come through the log. If it was still invisible when the slot was made it is visible now, and it may
    /// be stamped later than the clock, if a later time had been closed.
    async fn reach_what_was_there(
        &mut self,
        client: &Client,
        epoch: u64,
        safe_time: Instant,
    ) -> Result<(), SampleError> {
        let newest = match self.begins {
            Some((of, newest)) if of == epoch => newest,
            _ => {
                let newest =
                    bounded_sample(async { Ok(self.settings.layout.stamps().newest(client).await?) }).await?;
                let newest = newest.unwrap_or(Instant::MIN);
                self.begins = Some((epoch, newest));
                newest
            }
        };
        if safe_time < newest {
            return Err(SampleError::Held(format!("stamps go up to {newest}")));
        }
        Ok(())
    }
}

/// Whether its watermark holds by now.
async fn holds(client: &Client, draft: &Draft) -> Result<bool, SampleError> {
    let durable = is_durable(client, draft.sample.watermark.fence_lsn);
    bounded_sample(async { durable.await.map_err(sample::standby) }).await
}

async fn bounded_sample<T>(
    statements: impl Future<Output = Result<T, SampleError>>,
) -> Result<T, SampleError> {
    timeout(STATEMENTS, statements).await.unwrap_or(Err(SampleError::Silent))
}
