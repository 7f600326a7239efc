//! Documents as data: what they show is run and compared, so that they cannot rot.

use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// A document of the project.
pub struct Document {
    /// Its path, from the project's folder on.
    pub path: String,
    text: String,
}

/// A fenced block of code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// The language that its fence names; empty if none.
    pub language: String,
    /// What it holds, without the fences.
    pub text: String,
    /// The line that it begins in.
    pub line: usize,
}

/// The project's folder.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Document {
    /// Reads one, by its path from the project's folder on.
    pub fn read(path: &str) -> Result<Self> {
        let text =
            std::fs::read_to_string(project().join(path)).with_context(|| format!("cannot read {path}"))?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Its fenced blocks, in their order.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (index, line) in self.text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => {
                    let language = language.trim().to_owned();
                    open = Some(Block { language, text: String::new(), line: index + 2 });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        blocks
    }

    /// The cells of the rows of its tables, headings left out.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let cells = |line: &str| -> Option<Vec<String>> {
            let row = line.strip_prefix('|')?.trim_end().strip_suffix('|')?;
            Some(row.split(" | ").map(|cell| cell.trim().to_owned()).collect())
        };
        let mut rows: Vec<Vec<String>> = Vec::new();
        for line in self.prose() {
            match cells(line) {
                // The row above it was the heading.
                Some(_) if line.contains("---") => drop(rows.pop()),
                Some(row) => rows.push(row),
                None => {}
            }
        }
        rows
    }

    /// The anchors of its headings, as GitHub makes them.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.prose().filter(|line| line.starts_with('#'));
        headings
            .map(|line| {
                let text = line.trim_start_matches('#').trim().to_lowercase();
                let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
                kept.map(|c| if c == ' ' { '-' } else { c }).collect()
            })
            .collect()
    }

    /// Where its links lead, images left out.
    pub fn links(&self) -> Vec<String> {
        let mut links = Vec::new();
        for line in self.prose() {
            for (at, _) in line.match_indices("](") {
                let opened = line[..at].rfind('[').unwrap_or(0);
                let target = line[at + 2..].split(')').next().unwrap_or_default();
                if !line[..opened].ends_with('!') {
                    links.push(target.to_owned());
                }
            }
        }
        links
    }

    /// The lines outside of fenced blocks.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut fenced = false;
        self.text.lines().filter(move |line| {
            let fence = line.starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_rows_anchors_and_links() {
        let text = "# The `a`, it's\n\n```sql\nselect 1\n# no heading\n```\n\n| a | b |\n|---|---|\n| `x` | 1 |\n\n\
                    [one](docs/a.md#b), ![none](board.png)\n";
        let document = Document { path: String::new(), text: text.to_owned() };
        let expected = Block { language: "sql".into(), text: "select 1\n# no heading\n".into(), line: 4 };
        assert_eq!(document.blocks(), [expected]);
        assert_eq!(document.rows(), [["`x`", "1"]]);
        assert_eq!(document.anchors(), ["the-a-its"]);
        assert_eq!(document.links(), ["docs/a.md#b"]);
    }
}
