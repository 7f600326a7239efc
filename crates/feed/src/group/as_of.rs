//! The members of a Group as of a position: the same for whoever asks, whenever.
//!
//! A Group's content as of a position is its newest change in the journal up to there; else what its oldest change after that
//! replaced; else its row in the table, if the feed has passed a place in the log that was taken after the row was read: then
//! what is not in the journal has not changed since.

use super::members::{Members, PatientSet, Question};
use crate::feed::Shared;
use crate::journal::{GroupBefore, JournalError};
use crate::replay::persist;
use crate::subscription::Out;
use crate::{Position, SourceError};
use bytes::Bytes;
use fhir::{GroupContent, Instant, Patients};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Why it cannot be told who is a member.
pub(crate) enum NoMembers {
    /// The Group does not exist, or may not be interpreted: why, for the client.
    Gone(String),
    /// The journal does not go back so far, or the log did not say what a Group was.
    NotKept(&'static str),
    /// The database does not answer.
    Source(SourceError),
}

impl From<SourceError> for NoMembers {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

/// Members from one position to another.
#[derive(Default)]
pub(crate) struct Span {
    /// Those who are members at every position.
    pub(crate) throughout: PatientSet,
    /// Those who are members at one position at least.
    pub(crate) ever: PatientSet,
}

/// Asks for the members of one Group.
pub(crate) struct AsOf<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) out: &'a Out,
    /// The Group.
    pub(crate) id: &'a str,
    /// Of its members only these.
    pub(crate) only: Option<&'a Patients>,
}

impl AsOf<'_> {
    /// The members at a position that is on disk.
    pub(crate) async fn members(&self, at: Position) -> Result<Members, NoMembers> {
        let epoch = self.shared.durable.borrow().epoch;
        let question = Question { group: self.id.into(), only: self.only.cloned(), epoch, at };
        if let Some(known) = self.shared.member_sets.find(&question) {
            return Ok(known);
        }
        let members = self.find(at).await?;
        if self.shared.durable.borrow().epoch == epoch {
            self.shared.member_sets.keep(question, &members);
        }
        Ok(members)
    }

    async fn find(&self, at: Position) -> Result<Members, NoMembers> {
        let (mut groups, mut patients) = (BTreeSet::new(), PatientSet::default());
        let mut found: Vec<Box<str>> = vec![self.id.into()];
        // Before the first tick nobody has begun to be a member.
        let time = self.journal(at, move |journal| journal.tick_at(at)).await?.unwrap_or(Instant::MIN);
        let mut next = None;
        let mut contents = Vec::new();
        loop {
            // Those that were found are asked for together: each question may have to wait for the feed.
            if contents.is_empty() {
                found.retain(|id| groups.insert(id.clone()));
                contents = self.contents(std::mem::take(&mut found), at).await?;
            }
            let Some((id, content)) = contents.pop() else { break };
            let root = *id == *self.id;
            let read = match content {
                None if root => return Err(NoMembers::Gone("the Group was deleted".into())),
                None => continue,
                Some(content) => {
                    // A large Group takes a while.
                    let bases = self.shared.base_urls.clone();
                    let read =
                        tokio::task::spawn_blocking(move || GroupContent::read(&content, &bases)).await;
                    match read {
                        Ok(Ok(read)) => read,
                        Ok(Err(why)) if root => {
                            return Err(NoMembers::Gone(format!("the Group cannot be followed: {why}")));
                        }
                        // Who is in it for certain cannot be said.
                        _ => continue,
                    }
                }
            };
            if read.has_periods() {
                let later = read.next_change_after(time).unwrap_or(Instant::MAX);
                next = Some(next.map_or(later, |next: Instant| next.min(later)));
            }
            patients.add(read.members_at(time).filter(|id| self.only.is_none_or(|only| only.contains(id))));
            found.extend(read.nested().map(Box::from));
        }
        let patients = self.shared.member_sets.share(self.id, patients, next);
        Ok(Members { patients, groups: Arc::new(groups), next })
    }

    /// The Group itself at a position, as it is streamed.
    pub(crate) async fn itself(&self, at: Position) -> Result<Option<Bytes>, NoMembers> {
        let contents = self.contents(vec![self.id.into()], at).await?;
        Ok(contents.into_iter().find_map(|(_, content)| content))
    }

    /// Who is a member from one position to another, both included.
    pub(crate) async fn span(&self, from: Position, to: Position) -> Result<Span, NoMembers> {
        let mut members = self.members(from).await?;
        let all = PatientSet::clone(&members.patients);
        let mut span = Span { ever: all.clone(), throughout: all };
        let mut at = from;
        while let Some(next) = self.next_change(&members, at, to).await? {
            members = self.members(next).await?;
            span.throughout = span.throughout.and(&members.patients);
            span.ever.add(members.patients.iter());
            at = next;
        }
        Ok(span)
    }

    /// The first change of one of the Groups, or of the time if that matters, after a position, up to another.
    async fn next_change(
        &self,
        members: &Members,
        after: Position,
        until: Position,
    ) -> Result<Option<Position>, NoMembers> {
        let (groups, has_periods) = (members.groups.clone(), members.next.is_some());
        self.journal(after, move |journal| {
            let mut next = if has_periods { journal.tick_after(after)? } else { None };
            for id in groups.iter() {
                let change = journal.group_after(id, after)?.map(|change| change.position);
                next = next.into_iter().chain(change).min();
            }
            Ok(next.filter(|next| *next <= until))
        })
        .await
    }

    /// What Groups are as of a position; `None` for one that does not exist there.
    async fn contents(
        &self,
        ids: Vec<Box<str>>,
        at: Position,
    ) -> Result<Vec<(Box<str>, Option<Bytes>)>, NoMembers> {
        let (mut contents, mut rows) = (Vec::new(), Vec::new());
        for id in ids {
            match self.in_journal(&id, at).await? {
                Some(known) => contents.push((id, known)),
                None => {
                    let source = self.shared.source(self.out).await;
                    let row = persist(self.out, || source.group(&id)).await?;
                    rows.push((id, row));
                }
            }
        }
        if rows.is_empty() {
            return Ok(contents);
        }
        // What is visible of them was committed before this ends.
        let source = self.shared.source(self.out).await;
        let fence = persist(self.out, || source.mark()).await?.mark.l;
        self.shared.passed(fence).await;
        for (id, row) in rows {
            let content = self.in_journal(&id, at).await?.unwrap_or(row);
            contents.push((id, content));
        }
        Ok(contents)
    }

    /// What the journal says of it, if it does.
    async fn in_journal(&self, id: &str, at: Position) -> Result<Option<Option<Bytes>>, NoMembers> {
        let id: Box<str> = id.into();
        let before = self
            .journal(at, move |journal| {
                if let Some(change) = journal.group_at(&id, at)? {
                    return Ok(Some(Ok(change.after)));
                }
                let next = journal.group_after(&id, at)?;
                Ok(next.map(|change| match change.before {
                    GroupBefore::Nothing => Ok(None),
                    GroupBefore::Content(content) => Ok(Some(content)),
                    GroupBefore::Unknown => {
                        Err(NoMembers::NotKept("the log does not have what the Group was"))
                    }
                }))
            })
            .await?;
        before.transpose()
    }

    /// Looks into the journal, which must go back to a position.
    async fn journal<T: Send + 'static>(
        &self,
        back_to: Position,
        look: impl FnOnce(&dyn crate::journal::Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, NoMembers> {
        let journal = self.shared.journal.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let found = look(&*journal)?;
            // The state after the look: it says what is dropped before it is.
            let kept = journal.load()?.is_some_and(|state| state.floor.position <= back_to);
            Ok::<_, JournalError>((found, kept))
        });
        match looked.await {
            Ok(Ok((found, true))) => Ok(found),
            Ok(Ok((_, false))) => Err(NoMembers::NotKept("what the Group was then is no longer kept")),
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the journal cannot be read");
                tokio::time::sleep(crate::follow::RETRY_AFTER).await;
                Err(NoMembers::NotKept("the journal cannot be read"))
            }
            Err(error) if error.is_panic() => Err(NoMembers::NotKept("the journal is damaged")),
            // The runtime ends, and this with it.
            Err(_) => std::future::pending().await,
        }
    }
}
