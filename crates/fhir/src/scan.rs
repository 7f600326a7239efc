//! Finds the values at given paths of a JSON text in one pass, without building anything.
//!
//! A path is a sequence of member names, such as `participant.actor.reference`. Arrays are passed
//! through, as FHIRPath does: a path means every value that it leads to. An array directly within an
//! array is skipped, because no FHIR element is one. Names are compared as JSON means them, escapes
//! included. If a name stands twice in an object, both values are found: readers differ in which one
//! they take.

use crate::members::means;
use crate::structure::{NotAnObject, Structure};
use std::ops::Range;

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

    /// Calls `found` with the text of each value at one of the paths, in the order of the text.
    ///
    /// An error if the text is not a JSON object. Values that are not on the way to the end of a path
    /// are skipped without a look at their grammar.
    pub(crate) fn find<'a>(
        &self,
        text: &'a [u8],
        mut found: impl FnMut(&'a [u8]),
    ) -> Result<(), NotAnObject> {
        let mut walk = Walk { text, structure: Structure::of(text), at: 0 };
        walk.object(&self.root, &mut found)
    }
}

impl Node {
    fn child_or_new(&mut self, name: &str) -> &mut Self {
        let known = self.children.iter().position(|(known, _)| **known == *name);
        let place = known.unwrap_or_else(|| {
            self.children.push((name.into(), Self::default()));
            self.children.len() - 1
        });
        &mut self.children[place].1
    }

    /// The child of the name that stands between the quotes of a key.
    fn child(&self, written: &[u8]) -> Option<&Self> {
        self.children.iter().find(|(name, _)| means(written, name)).map(|(_, child)| child)
    }
}

/// A pass over a text. It recurses once for each name of a path, so its depth is that of the paths.
struct Walk<'a> {
    text: &'a [u8],
    structure: Structure<'a>,
    at: usize,
}

impl<'a> Walk<'a> {
    /// The members of an object.
    fn object(&mut self, node: &Node, found: &mut impl FnMut(&'a [u8])) -> Result<(), NotAnObject> {
        self.expect(b'{')?;
        if self.passes(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key()?;
            match node.child(&self.text[key]) {
                Some(child) => self.value(child, found)?,
                None => self.skip()?,
            }
            if !self.passes(b',') {
                return self.expect(b'}');
            }
        }
    }

    /// A value, or each element of an array.
    fn value(&mut self, node: &Node, found: &mut impl FnMut(&'a [u8])) -> Result<(), NotAnObject> {
        if !self.passes(b'[') {
            return self.element(node, found);
        }
        if self.passes(b']') {
            return Ok(());
        }
        loop {
            match self.peek() {
                Some(b'[') => self.skip()?,
                _ => self.element(node, found)?,
            }
            if !self.passes(b',') {
                return self.expect(b']');
            }
        }
    }

    /// A value that is not an array.
    fn element(&mut self, node: &Node, found: &mut impl FnMut(&'a [u8])) -> Result<(), NotAnObject> {
        let opens = self.peek();
        let start = self.at;
        if opens == Some(b'{') && !node.children.is_empty() {
            self.object(node, found)?;
        } else {
            self.skip()?;
        }
        if node.wanted {
            found(&self.text[start..self.at]);
        }
        Ok(())
    }

    /// What stands between the quotes of the next key. The colon is passed.
    fn key(&mut self) -> Result<Range<usize>, NotAnObject> {
        self.expect(b'"')?;
        let key = self.at..self.structure.end_of_string(self.at)? - 1;
        self.at = key.end + 1;
        self.expect(b':')?;
        self.peek();
        Ok(key)
    }

    /// Goes to the end of the next value.
    fn skip(&mut self) -> Result<(), NotAnObject> {
        self.at = self.structure.end_of_value(self.at)?;
        Ok(())
    }

    /// The next byte that is not white space. The white space is passed, the byte is not.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Passes the byte if it is next.
    fn passes(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotAnObject> {
        if self.passes(byte) { Ok(()) } else { Err(NotAnObject) }
    }
}

#[cfg(test)]
mod oracle;

#[cfg(test)]
mod tests;
