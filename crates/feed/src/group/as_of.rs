//! The members of a Group as of a position: every query gets the same answer.
//!
//! A Group's content as of a position is its newest change in the journal up to there; else what its oldest change after that
//! replaced; else its row in the table, if the feed has passed a place in the log that was taken after the row was read: then
//! what is not in the journal has not changed since.

use super::members::{Members, NoMembers, Question};
use super::now::members_of;
use super::patient_set::PatientSet;
use crate::Position;
use crate::delivery::subscription::{Generator, ItemSender};
use crate::journal::{GroupBefore, JournalError, UNREADABLE};
use crate::replay::persist;
use crate::shared::Shared;
use bytes::Bytes;
use fhir::{Instant, Patients};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Members from one position to another.
#[derive(Default)]
pub(crate) struct Span {
    /// Those who are members at every position.
    pub(crate) throughout: Arc<PatientSet>,
    /// Those who are members at one position at least.
    pub(crate) ever: Arc<PatientSet>,
}

/// Asks for the members of one Group.
pub(crate) struct AsOf<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) out: &'a ItemSender,
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
        let sets = &self.shared.member_sets;
        if let Some(known) = sets.find(&question) {
            return Ok(known);
        }
        // A thousand may ask at once, and a Group may have a hundred thousand members.
        let answer = sets.finding.join(&question, Err(NoMembers::NotKept(UNREADABLE)), || {
            let (shared, id, only) = (self.shared.clone(), Box::<str>::from(self.id), self.only.cloned());
            let question = question.clone();
            let work = Generator::new(|out| async move {
                AsOf { shared: &shared, out: &out, id: &id, only: only.as_ref() }.find_in_task(question).await
            });
            work.end()
        });
        answer.await
    }

    async fn find_in_task(&self, question: Question) -> Result<Members, NoMembers> {
        let sets = &self.shared.member_sets;
        // Another task may have found it just now.
        if let Some(known) = sets.find(&question) {
            return Ok(known);
        }
        let members = match self.unchanged(&question).await? {
            Some(members) => members,
            None => self.find(question.at).await?,
        };
        if self.shared.durable.borrow().epoch == question.epoch {
            sets.keep(question, &members);
        }
        Ok(members)
    }

    /// The members at another position, if they are known and nothing has changed in between.
    async fn unchanged(&self, question: &Question) -> Result<Option<Members>, NoMembers> {
        let Some((at, members)) = self.shared.member_sets.near(question) else { return Ok(None) };
        let (from, to) = (at.min(question.at), at.max(question.at));
        match self.next_change(&members, from, to).await {
            Ok(change) => Ok(change.is_none().then_some(members)),
            Err(NoMembers::NotKept(_)) => Ok(None),
            Err(why) => Err(why),
        }
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
                Some(content) => match members_of(content, &self.shared.base_urls).await {
                    Some(Ok(read)) => read,
                    Some(Err(why)) if root => {
                        return Err(NoMembers::Gone(format!("the Group cannot be followed: {why}")));
                    }
                    // Its members are not certain.
                    _ => continue,
                },
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

    /// The members from one position to another, both included.
    pub(crate) async fn span(&self, from: Position, to: Position) -> Result<Span, NoMembers> {
        let mut members = self.members(from).await?;
        let all = members.patients.clone();
        let mut span = Span { ever: all.clone(), throughout: all };
        let mut at = from;
        while let Some(next) = self.next_change(&members, at, to).await? {
            members = self.members(next).await?;
            span.throughout = span.throughout.and(&members.patients);
            span.ever = span.ever.or(&members.patients);
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
        let fence = persist(self.out, || source.watermark()).await?.watermark.fence_lsn;
        self.shared.until_durable(fence).await;
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
        read: impl FnOnce(&dyn crate::journal::JournalReader) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, NoMembers> {
        let read = self.shared.journal.read_or_reset(move |journal| {
            let found = read(journal)?;
            // The state after the look: it says what is dropped before it is.
            let kept = journal.load()?.is_some_and(|state| state.floor.position <= back_to);
            Ok((found, kept))
        });
        match read.await {
            Ok((found, true)) => Ok(found),
            Ok((_, false)) => Err(NoMembers::NotKept("what the Group was then is no longer kept")),
            Err(reason) => Err(NoMembers::NotKept(reason)),
        }
    }
}
