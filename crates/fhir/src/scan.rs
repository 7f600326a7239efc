//! Finds the values at given paths of a JSON object, in a pass that others may share ([`Cursor`]).
//!
//! A path is a sequence of member names, such as `participant.actor.reference`. Arrays are passed
//! through, as FHIRPath does: a path means every value that it leads to. An array directly within an
//! array is skipped, because no FHIR element is one. Names are compared as JSON means them, escapes
//! included. If a name stands twice in an object, both values are found: readers differ in which one
//! they take.

use crate::cursor::{Cursor, means};
use crate::structure::NotAnObject;

/// Paths that are looked for together, as a trie: what several of them begin with is met once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    root: Node,
}

/// What follows after the names that lead here.
#[derive(Clone, Debug, Default)]
struct Node {
    children: Vec<(Box<str>, Node)>,
    /// A path ends here.
    wanted: bool,
}

impl Paths {
    /// The paths, each as its names separated by dots.
    pub(crate) fn new<'p>(paths: impl IntoIterator<Item = &'p str>) -> Self {
        let mut root = Node::default();
        for path in paths {
            path.split('.').fold(&mut root, Node::child_or_new).wanted = true;
        }
        Self { root }
    }

    /// Passes the value of one member of the object, whose key is written so.
    ///
    /// Calls `found` with the text of each value in it that stands at one of the paths, in the order of
    /// the text. An error if the value is not JSON where a path leads through it. What is not on the way
    /// to the end of a path is skipped.
    pub(crate) fn pass<'a>(
        &self,
        key: &[u8],
        cursor: &mut Cursor<'a>,
        found: &mut impl FnMut(&'a [u8]),
    ) -> Result<(), NotAnObject> {
        self.root.member(key, cursor, found)
    }
}

/// It recurses once for each name of a path, so the depth is that of the paths, whatever the text is.
impl Node {
    fn child_or_new(&mut self, name: &str) -> &mut Self {
        let known = self.children.iter().position(|(known, _)| **known == *name);
        let place = known.unwrap_or_else(|| {
            self.children.push((name.into(), Self::default()));
            self.children.len() - 1
        });
        &mut self.children[place].1
    }

    /// The value of a member of an object that this node stands for.
    fn member<'a>(
        &self,
        key: &[u8],
        cursor: &mut Cursor<'a>,
        found: &mut impl FnMut(&'a [u8]),
    ) -> Result<(), NotAnObject> {
        match self.children.iter().find(|(name, _)| means(key, name)) {
            Some((_, child)) => child.value(cursor, found),
            None => cursor.skip(),
        }
    }

    /// A value, or each element of an array.
    fn value<'a>(
        &self,
        cursor: &mut Cursor<'a>,
        found: &mut impl FnMut(&'a [u8]),
    ) -> Result<(), NotAnObject> {
        if cursor.peek() != Some(b'[') {
            return self.element(cursor, found);
        }
        let mut follows = cursor.enter(b'[', b']')?;
        while follows {
            match cursor.peek() {
                Some(b'[') => cursor.skip()?,
                _ => self.element(cursor, found)?,
            }
            follows = cursor.another(b']')?;
        }
        Ok(())
    }

    /// A value that is not an array.
    fn element<'a>(
        &self,
        cursor: &mut Cursor<'a>,
        found: &mut impl FnMut(&'a [u8]),
    ) -> Result<(), NotAnObject> {
        let opens = cursor.peek();
        let start = cursor.at();
        if opens == Some(b'{') && !self.children.is_empty() {
            let mut follows = cursor.enter(b'{', b'}')?;
            while follows {
                let key = cursor.key()?;
                self.member(&cursor.text()[key], cursor, found)?;
                follows = cursor.another(b'}')?;
            }
        } else {
            cursor.skip()?;
        }
        if self.wanted {
            found(&cursor.text()[start..cursor.at()]);
        }
        Ok(())
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod oracle;

#[cfg(test)]
mod tests;
