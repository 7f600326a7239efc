//! Who is a member: a function of the position alone.

use super::world::{Patients, Position, World};
use super::{KEYS, RESOURCES};
use crate::Bug;

/// The question cannot be answered yet: the feed has to go on first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wait;

impl World {
    /// A Group's members as of a position, from what the journal still has, else from its row.
    fn group_at(&self, key: usize, position: Position, bug: Option<Bug>) -> Result<Patients, Wait> {
        let row = self.table[key];
        let members = |content: Option<Patients>| content.unwrap_or(0);
        if bug == Some(Bug::MembersFromTable) {
            return Ok(row.map_or(0, |row| row.patients));
        }
        let known = (self.floor..self.decoded).filter(|place| self.log[*place].key == key);
        let (mut before, mut after) = (None, None);
        for place in known {
            if place < position {
                before = Some(place);
            } else if after.is_none() {
                after = Some(place);
            }
        }
        if let Some(place) = before {
            return Ok(members(self.log[place].new));
        }
        if let Some(place) = after
            && bug != Some(Bug::GroupWithoutBeforeImage)
        {
            return Ok(members(self.log[place].old));
        }
        // A row that is younger than what the feed has passed for sure, or that is gone: its change may not have come yet.
        // While the journal has dropped what nobody may see yet, the row may be of before that.
        let seen = self.floor_stamp <= self.passed_safe_time() || bug == Some(Bug::RowBehindDroppedChange);
        let certain = seen && row.is_some_and(|row| row.stamp <= self.passed_safe_time());
        if !certain && !self.is_at_rest() {
            return Err(Wait);
        }
        Ok(row.map_or(0, |row| row.patients))
    }

    /// The members of all Groups as of a position.
    pub(super) fn members(&self, position: Position, bug: Option<Bug>) -> Result<Patients, Wait> {
        (RESOURCES..KEYS).try_fold(0, |all, key| Ok(all | self.group_at(key, position, bug)?))
    }

    /// Who is a member at every position from one to another.
    pub(super) fn throughout(
        &self,
        from: Position,
        to: Position,
        bug: Option<Bug>,
    ) -> Result<Patients, Wait> {
        let ends = self.members(from, bug)? & self.members(to, bug)?;
        if bug == Some(Bug::MembersAtBothEndsOnly) {
            return Ok(ends);
        }
        let changes = (from..to).filter(|place| self.log[*place].is_group());
        changes.into_iter().try_fold(ends, |all, place| Ok(all & self.members(place + 1, bug)?))
    }

    /// Who is a member at one position at least, from one to another.
    pub(super) fn ever(&self, from: Position, to: Position, bug: Option<Bug>) -> Result<Patients, Wait> {
        let first = self.members(from, bug)?;
        if bug == Some(Bug::CameAndWentIsKept) {
            return Ok(first);
        }
        let changes = (from..to).filter(|place| self.log[*place].is_group());
        changes.into_iter().try_fold(first, |all, place| Ok(all | self.members(place + 1, bug)?))
    }

    /// Who is a member by the whole history, without a rule.
    pub(super) fn true_members(&self, first: &[Option<Patients>; KEYS], position: Position) -> Patients {
        let content = |key: usize| {
            let newest = self.log[..position].iter().rev().find(|entry| entry.key == key);
            newest.map_or(first[key], |entry| entry.new)
        };
        (RESOURCES..KEYS).fold(0, |all, key| all | content(key).unwrap_or(0))
    }
}
