//! The links of a narrative: `<a href="…">` and `<img src="…">`, within a JSON string that is left as it is written.

use std::ops::Range;

/// Each link and where it stands in the string's text, which is that between the quotes.
pub(super) fn links(raw: &str) -> Vec<(Range<usize>, String)> {
    let chars = unescaped(raw);
    let mut scan = Scan { chars: &chars, at: 0 };
    let mut links = Vec::new();
    while scan.find('<') {
        if scan.chars[scan.at..].iter().map(|(_, c)| *c).take(3).eq("!--".chars()) {
            scan.skip_comment();
            continue;
        }
        let tag = scan.word(&['>', '/']);
        while let Some((attribute, value)) = scan.attribute() {
            let is_link = (tag.eq_ignore_ascii_case("a") && attribute.eq_ignore_ascii_case("href"))
                || (tag.eq_ignore_ascii_case("img") && attribute.eq_ignore_ascii_case("src"));
            if is_link
                && let (Some((start, _)), Some((end, _))) = (chars.get(value.start), chars.get(value.end))
            {
                links.push((*start..*end, chars[value].iter().map(|(_, c)| c).collect()));
            }
        }
    }
    links
}

/// The characters that the string stands for, and where each begins in its text; and where that ends.
fn unescaped(raw: &str) -> Vec<(usize, char)> {
    let mut chars = Vec::with_capacity(raw.len());
    let mut rest = raw.char_indices();
    while let Some((at, c)) = rest.next() {
        let c = match (c, c == '\\') {
            (_, true) => match rest.next() {
                Some((_, 'n' | 't' | 'r' | 'b' | 'f')) => ' ',
                Some((_, 'u')) => {
                    let digits: String = rest.by_ref().take(4).map(|(_, digit)| digit).collect();
                    // Halves of surrogate pairs are part of no link.
                    u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).unwrap_or('\u{fffd}')
                }
                Some((_, other)) => other,
                None => break,
            },
            (c, false) => c,
        };
        chars.push((at, c));
    }
    chars.push((raw.len(), '\0'));
    chars
}

struct Scan<'a> {
    chars: &'a [(usize, char)],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).map(|(_, c)| *c)
    }

    /// Goes behind the next such character.
    fn find(&mut self, wanted: char) -> bool {
        let rest = self.chars.get(self.at..).unwrap_or_default();
        let found = rest.iter().position(|(_, c)| *c == wanted);
        self.at = found.map_or(self.chars.len(), |found| self.at + found + 1);
        found.is_some()
    }

    fn skip_comment(&mut self) {
        self.at += 3;
        while self.find('>') {
            if self.at >= 3 && self.chars[self.at - 3].1 == '-' && self.chars[self.at - 2].1 == '-' {
                return;
            }
        }
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// The characters up to a blank or one of these.
    fn word(&mut self, ends: &[char]) -> String {
        let start = self.at;
        while self.peek().is_some_and(|c| !c.is_whitespace() && !ends.contains(&c)) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().map(|(_, c)| c).collect()
    }

    /// The next attribute of the tag, and which characters its value has; `None` at the tag's end, which is passed.
    fn attribute(&mut self) -> Option<(String, Range<usize>)> {
        loop {
            self.skip_blanks();
            match self.peek()? {
                '>' => {
                    self.at += 1;
                    return None;
                }
                '/' | '=' => self.at += 1,
                _ => break,
            }
        }
        let name = self.word(&['>', '/', '=']);
        self.skip_blanks();
        if self.peek() != Some('=') {
            return Some((name, self.at..self.at));
        }
        self.at += 1;
        self.skip_blanks();
        let start = self.at;
        match self.peek()? {
            quote @ ('"' | '\'') => {
                self.at += 1;
                let start = self.at;
                self.find(quote).then(|| (name, start..self.at - 1))
            }
            _ => {
                self.word(&['>']);
                Some((name, start..self.at))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(raw: &str) -> Vec<String> {
        links(raw)
            .into_iter()
            .map(|(range, link)| {
                assert_eq!(&raw[range], link, "{raw}");
                link
            })
            .collect()
    }

    #[test]
    fn links_are_those_of_a_and_img() {
        let raw = concat!(
            r#"<div xmlns=\"http://www.w3.org/1999/xhtml\"><p title=\"a > b\">urn:x <a class='c' href = 'urn:1'>x</a>"#,
            r#"<img\n alt=\"<a href='urn:no'>\" src=\"urn:2\"/><a name=\"urn:no\">href=\"urn:no\"</a><b href=\"urn:no\"/>"#,
            r#"<!-- <a href=\"urn:no\"> --><img href=\"urn:no\"/><A HREF=\u0022urn:3\u0022>é\ud83d\ude00</A><a href=\"urn:4"#,
        );
        assert_eq!(found(raw), ["urn:1", "urn:2", "urn:3"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read(raw in "(<|>|a |img |href|src|=|\"|'|\\\\\"|\\\\u00|\\\\|/|-|!| |urn:x|é){0,30}") {
            for (range, _) in links(&raw) {
                prop_assert!(raw.get(range).is_some());
            }
        }
    }
}
