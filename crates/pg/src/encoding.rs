//! The text of rows, converted here from the database's encoding.
//!
//! A server that converts fails at the first character that has no equivalent: the walsender at the same row again and
//! again, a statement with all of its rows. So the log and the pages are read in the encoding that the database has,
//! and each value is converted by itself: one that cannot be is a bad row. What a code means is asked of the server,
//! once for all codes of an encoding, so that the text is the same as if the server had converted it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use tokio_postgres::Client;
use tokio_postgres::error::Error;

/// The encoding of a database that does not say what its bytes mean.
pub const SQL_ASCII: &str = "SQL_ASCII";
/// The encoding that needs no conversion.
pub const UTF8: &str = "UTF8";

/// The encoding of a database.
#[derive(Default)]
pub struct Encoding {
    name: String,
    /// `None`: text is UTF-8, or no text.
    codes: Option<Codes>,
}

impl Encoding {
    /// That of the database of this session; `last`, if it is still the same.
    pub async fn of(client: &Client, last: &Arc<Self>) -> Result<Arc<Self>, Error> {
        let name = client.query_one("select current_setting('server_encoding')", &[]).await?;
        let name: String = name.try_get(0)?;
        if name == last.name {
            return Ok(Arc::clone(last));
        }
        let codes = match name.as_str() {
            UTF8 | SQL_ASCII => None,
            name => Some(Codes::of(client, name).await?),
        };
        Ok(Arc::new(Self { name, codes }))
    }

    /// The bytes as text; `None` if the encoding does not define them.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Option<Cow<'a, str>> {
        match &self.codes {
            Some(codes) if !bytes.is_ascii() => codes.decode(bytes).map(Cow::Owned),
            _ => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        }
    }

    /// Whether [`decode`](Self::decode) refuses what is not UTF-8.
    pub const fn is_utf8(&self) -> bool {
        self.codes.is_none()
    }

    /// A character that is the last in the order of bytes.
    pub fn last_character(&self) -> &'static [u8] {
        match self.name.as_str() {
            "" | UTF8 => "\u{10ffff}".as_bytes(),
            // Two bytes are a character of all of them.
            name if name.starts_with(EUC) => &[0xfe, 0xfe],
            _ => &[0xff],
        }
    }
}

impl fmt::Debug for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoding").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The encodings of several bytes that a database can have, but for UTF8 and `MULE_INTERNAL`, from which the server has no
/// conversion, so that no session of ours can be opened.
const EUC: &str = "EUC_";

/// What begins with a byte that is not ASCII.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Code {
    Undefined,
    /// A piece of [`Codes::text`].
    Text {
        start: u32,
        length: u8,
    },
    /// The index of the node that the next byte is looked up in.
    Longer(u16),
}

type Node = [Code; 128];

/// The codes of an encoding in which all ASCII is as it is, and each byte of another character is 0x80 or more.
struct Codes {
    /// The first is that of the first bytes.
    nodes: Vec<Node>,
    text: String,
}

impl Codes {
    async fn of(client: &Client, encoding: &str) -> Result<Self, Error> {
        let (leads, first) = if encoding.starts_with(EUC) { (EUC_LEADS, 0xa1) } else { (NO_LEAD, 0x80) };
        // A block can say nothing but by a setting. It is none of the server's own, and only this session has it.
        // A line for each lead, as what grows is copied with each code.
        let ask = format!(
            "do $$
             declare
                 source name := getdatabaseencoding();
                 lead   bytea;
                 code   bytea;
                 line   text;
                 lines  text[] := '{{}}';
             begin
                 for lead in {leads} loop
                     line := '';
                     for code in select lead || set_byte('\\x00', 0, i) from generate_series({first}, 255) i loop
                         begin
                             line := line || encode(code, 'hex') || ' '
                                          || encode(convert(code, source, 'UTF8'), 'hex') || ',';
                         exception when untranslatable_character or character_not_in_repertoire then
                             null;
                         end;
                     end loop;
                     lines := lines || line;
                 end loop;
                 perform set_config('{ANSWER}', array_to_string(lines, ''), false);
             end $$"
        );
        client.batch_execute(&ask).await?;
        let answer = client.query_one(&format!("select current_setting('{ANSWER}')"), &[]).await?;
        client.batch_execute(&format!("reset {ANSWER}")).await?;
        let mut codes = Self::default();
        for (code, text) in answer.try_get::<_, &str>(0)?.split(',').filter_map(|pair| pair.split_once(' ')) {
            if let (Some(code), Some(Ok(text))) = (bytes(code), bytes(text).map(String::from_utf8)) {
                codes.define(&code, &text);
            }
        }
        Ok(codes)
    }

    fn define(&mut self, code: &[u8], text: &str) {
        let Some((last, before)) = code.split_last() else { return };
        let mut node = 0;
        for byte in before {
            let next = self.nodes.len();
            let Some(place) = self.place(node, *byte) else { return };
            node = match *place {
                Code::Longer(node) => usize::from(node),
                _ => {
                    let Ok(index) = u16::try_from(next) else { return };
                    *place = Code::Longer(index);
                    self.nodes.push([Code::Undefined; 128]);
                    next
                }
            };
        }
        if let (Ok(start), Ok(length)) = (u32::try_from(self.text.len()), u8::try_from(text.len()))
            && let Some(place) = self.place(node, *last)
        {
            *place = Code::Text { start, length };
            self.text.push_str(text);
        }
    }

    fn place(&mut self, node: usize, byte: u8) -> Option<&mut Code> {
        self.nodes.get_mut(node)?.get_mut(usize::from(byte.checked_sub(128)?))
    }

    fn decode(&self, mut bytes: &[u8]) -> Option<String> {
        let mut out = String::with_capacity(bytes.len() + bytes.len() / 8);
        while !bytes.is_empty() {
            let ascii = bytes.iter().position(|byte| !byte.is_ascii()).unwrap_or(bytes.len());
            let (text, rest) = bytes.split_at(ascii);
            out.push_str(std::str::from_utf8(text).ok()?);
            bytes = rest;
            let mut node = 0;
            while let Some((byte, rest)) = bytes.split_first() {
                bytes = rest;
                match *self.nodes.get(node)?.get(usize::from(byte.checked_sub(128)?))? {
                    Code::Undefined => return None,
                    Code::Longer(next) => node = usize::from(next),
                    Code::Text { start, length } => {
                        let start = start as usize;
                        out.push_str(self.text.get(start..start + usize::from(length))?);
                        node = 0;
                        break;
                    }
                }
            }
            if node != 0 {
                // Cut off within a character.
                return None;
            }
        }
        Some(out)
    }
}

impl Default for Codes {
    fn default() -> Self {
        Self { nodes: vec![[Code::Undefined; 128]], text: String::new() }
    }
}

/// Where the answer stands.
const ANSWER: &str = "fhir_tail.codes";

/// Each code is a byte.
const NO_LEAD: &str = "select ''::bytea";

/// What precedes the last byte of a code: one byte, or 0x8e and in `EUC_TW` two more, or 0x8f and one more.
const EUC_LEADS: &str = "with high as (select set_byte('\\x00', 0, i) as b from generate_series(161, 254) i) \
     select b from high union all select '\\x8e'::bytea union all select '\\x8f'::bytea || b from high \
     union all select '\\x8e'::bytea || p.b || a.b from high p, high a where source = 'EUC_TW' and p.b <= '\\xa7'";

/// What hexadecimal digits stand for.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks_exact(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_each_length_are_decoded_and_nothing_else_is() {
        let mut codes = Codes::default();
        for (code, text) in
            [(&[0x80][..], "€"), (&[0xc5, 0xc4], "田"), (&[0x8f, 0xb0, 0xa1], "丂"), (&[0xa4, 0xf7], "か゚")]
        {
            codes.define(code, text);
        }
        let encoding = Encoding { name: "EUC_X".into(), codes: Some(codes) };
        let decoded = |bytes: &[u8]| encoding.decode(bytes).map(Cow::into_owned);
        assert_eq!(decoded(b"a\x80b\xc5\xc4\x8f\xb0\xa1\xa4\xf7").unwrap(), "a€b田丂か゚");
        assert_eq!(decoded(b"plain").unwrap(), "plain");
        assert_eq!(decoded(b"").unwrap(), "");
        // Undefined, of a defined first byte, cut off, and followed by ASCII.
        for bytes in [&b"a\x81"[..], b"\xc5\xc5", b"\xc5", b"\x8f\xb0", b"\xc5a", b"\xc5\xc4\xc5", b"\xff"] {
            assert_eq!(decoded(bytes), None, "{bytes:?}");
        }
        // What is UTF-8 by chance is not taken for it.
        assert_eq!(decoded("é".as_bytes()), None);
    }

    #[test]
    fn without_codes_text_is_utf_8() {
        let encoding = Encoding::default();
        assert_eq!(encoding.decode("é".as_bytes()).unwrap(), "é");
        assert_eq!(encoding.decode(b"\xff"), None);
    }
}
