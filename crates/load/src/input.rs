//! The files to be read, one after the other, unpacked.

use anyhow::Context as _;
use flate2::bufread::GzDecoder;
use indicatif::ProgressBar;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Large enough that reading is not what takes the time.
const BUFFER: usize = 256 * 1024;

/// What gzip begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The input of a load. All files are opened before anything is loaded, so that a wrong name is reported at
/// once.
pub struct Inputs {
    files: Vec<(Arc<str>, Option<File>)>,
    total_bytes: Option<u64>,
}

impl Inputs {
    /// Opens files; `-` is standard input.
    ///
    /// # Errors
    ///
    /// If one of them cannot be opened.
    pub fn of(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        let mut total_bytes = Some(0);
        for path in paths {
            if path == Path::new("-") {
                files.push((Arc::from("standard input"), None));
                total_bytes = None;
                continue;
            }
            let name = path.display().to_string();
            // It may hold a password.
            anyhow::ensure!(
                !(name.contains("://") || name.contains("password=")),
                "the database stands where a file is named: name it by --database-url or DATABASE_URL"
            );
            let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
            let metadata = file.metadata().with_context(|| format!("cannot read {name}"))?;
            anyhow::ensure!(
                !metadata.is_dir(),
                "cannot read {name}: it is a directory, name the files in it"
            );
            // A pipe does not tell its length.
            total_bytes = total_bytes.filter(|_| metadata.is_file()).map(|total| total + metadata.len());
            files.push((Arc::from(name), Some(file)));
        }
        Ok(Self { files, total_bytes })
    }

    /// How many bytes the files have; unknown when one of them is a pipe.
    pub(super) fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }

    /// Each file's name and content. `bar` moves with the bytes read, before they are unpacked.
    pub(super) fn open(
        self,
        bar: &ProgressBar,
    ) -> impl Iterator<Item = (Arc<str>, io::Result<Box<dyn BufRead>>)> {
        self.files.into_iter().map(|(name, file)| {
            let raw: Box<dyn Read> = match file {
                Some(file) => Box::new(file),
                None => Box::new(io::stdin()),
            };
            (name, unpacked(bar.wrap_read(raw)))
        })
    }
}

/// The content, unpacked if it is gzip, whatever the name says.
fn unpacked(raw: impl Read + 'static) -> io::Result<Box<dyn BufRead>> {
    let mut raw = BufReader::with_capacity(BUFFER, raw);
    // A pipe may give less than the two bytes at first.
    let mut start = Vec::new();
    raw.by_ref().take(2).read_to_end(&mut start)?;
    let packed = start == GZIP;
    let whole = io::Cursor::new(start).chain(raw);
    Ok(if packed {
        Box::new(BufReader::with_capacity(BUFFER, Gunzip::Member(GzDecoder::new(whole))))
    } else {
        Box::new(whole)
    })
}

/// The files that gzip packed, one behind the other. Zeros behind the last one fill a block, of a tape for instance.
enum Gunzip<R> {
    Member(GzDecoder<R>),
    Ended,
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let Self::Member(decoder) = self else { return Ok(0) };
            let length = decoder.read(out)?;
            if length > 0 || out.is_empty() {
                return Ok(length);
            }
            let Self::Member(decoder) = std::mem::replace(self, Self::Ended) else { return Ok(0) };
            let mut rest = decoder.into_inner();
            match skip_zeros(&mut rest)? {
                None => return Ok(0),
                Some(byte) if byte == GZIP[0] => *self = Self::Member(GzDecoder::new(rest)),
                Some(_) => {
                    let message = "there is something behind the end of what gzip packed";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
            }
        }
    }
}

/// The next byte that is not zero; it is not passed.
fn skip_zeros(input: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let buffer = input.fill_buf()?;
        let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
        let (next, empty) = (buffer.get(zeros).copied(), buffer.is_empty());
        input.consume(zeros);
        if next.is_some() || empty {
            return Ok(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn read(raw: Vec<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        unpacked(io::Cursor::new(raw)).unwrap().read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn gzip_is_recognised_by_its_first_bytes() {
        for plain in [&b""[..], b"{", b"{}", b"\x1f", b"\x1f{}"] {
            assert_eq!(read(plain.to_vec()), plain);
            assert_eq!(read(gzip(plain)), plain);
        }
        // Several files, packed one by one and put together, as bgzip and "cat a.gz b.gz" do.
        assert_eq!(read([gzip(b"{}\n"), gzip(b"[]")].concat()), b"{}\n[]");
        // Filled with zeros, as tapes and some devices do.
        assert_eq!(read([gzip(b"{}\n"), vec![0; 1000], gzip(b"[]"), vec![0; 7]].concat()), b"{}\n[]");
    }

    #[test]
    fn what_gzip_did_not_pack_or_not_to_the_end_is_an_error() {
        let fails = |raw: Vec<u8>| {
            unpacked(io::Cursor::new(raw)).unwrap().read_to_end(&mut Vec::new()).unwrap_err().to_string()
        };
        assert!(fails([gzip(b"{}"), b"{}".to_vec()].concat()).contains("behind the end"));
        let mut cut = gzip(b"{}");
        cut.truncate(cut.len() - 4);
        assert!(!fails(cut).is_empty());
        let mut flipped = gzip(b"{}");
        let crc = flipped.len() - 8;
        flipped[crc] ^= 1;
        assert!(!fails(flipped).is_empty());
    }

    #[test]
    fn a_missing_file_and_a_directory_are_named() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path().to_owned(), directory.path().join("missing")] {
            let error = Inputs::of(std::slice::from_ref(&path)).err().unwrap();
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
    }
}
