//! The client itself: one thread, one buffer, one look at the clock for each read.

use super::{Counted, Ready, Spec, scan};
use crate::{clock, output};
use anyhow::{Context as _, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

/// As much as a socket's buffer holds at first; larger ones would not stay in the processor's cache.
const BUFFER: usize = 256 << 10;
/// So many streams are a crowd, which would wake the client for each frame, at the cost of who writes it. A client on another
/// machine costs nobody that, so this one lets frames gather when only few came: what that takes is in its latencies.
const CROWD: usize = 100;
const FEW: usize = 64;
const GATHER: Duration = Duration::from_micros(250);
/// The notice that says that what was is sent comes last; so far from the end of a read it is looked for.
const TAIL: usize = 4 << 10;
const GOOD: &[u8] = b"HTTP/1.1 200 ";
const HEAD: &[u8] = b"\r\n\r\n";
const GREETING: &[u8] = b": hi\n\n";
const LIVE: &[u8] = br#""code":"live""#;

/// A connection.
struct Stream {
    socket: TcpStream,
    /// The last byte that was read; 0 before the first.
    last: u8,
    ready: bool,
    /// Of what was read, the part in which something may still be found.
    rest: Vec<u8>,
}

/// Does what it is told on standard input, until that ends.
pub(crate) fn run() -> Result<()> {
    let mut lines = std::io::stdin().lines();
    let spec = lines.next().context("the client was told nothing")??;
    let spec: Spec = serde_json::from_str(&spec)?;
    let mut client = Client::connect(&spec)?;
    answer(&client.until_ready()?)?;
    for line in lines {
        let wanted: u64 = line?.trim().parse().context("how many frames to count")?;
        let began = (clock::now(), clock::processor());
        answer(&"counting")?;
        let counted = client.count(wanted, began)?;
        if let Some(path) = &spec.record {
            write_record(path, &client.record)?;
            client.record.clear();
        }
        answer(&counted)?;
    }
    Ok(())
}

fn answer(value: &impl serde::Serialize) -> Result<()> {
    output::show(&serde_json::to_string(value)?);
    Ok(())
}

struct Client {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    streams: Vec<Stream>,
    ready: Ready,
    began: (i64, i64),
    frames: u64,
    bytes: u64,
    /// Numbers of events and when they came.
    recording: bool,
    record: Vec<(u32, i64)>,
}

impl Client {
    fn connect(spec: &Spec) -> Result<Self> {
        let began = (clock::now(), clock::processor());
        let poll = Poll::new()?;
        let mut streams = Vec::new();
        for (request, count) in &spec.requests {
            for _ in 0..*count {
                let mut socket = std::net::TcpStream::connect(spec.address).context("cannot connect")?;
                socket.set_nodelay(true)?;
                socket.write_all(request.as_bytes())?;
                socket.set_nonblocking(true)?;
                let mut socket = TcpStream::from_std(socket);
                poll.registry().register(&mut socket, Token(streams.len()), Interest::READABLE)?;
                streams.push(Stream { socket, last: 0, ready: false, rest: Vec::new() });
            }
        }
        let (events, buffer) = (Events::with_capacity(1024), vec![0; BUFFER]);
        let (ready, recording) = (spec.ready, spec.record.is_some());
        Ok(Self {
            poll,
            events,
            buffer,
            streams,
            ready,
            began,
            frames: 0,
            bytes: 0,
            recording,
            record: Vec::new(),
        })
    }

    /// Reads until every stream has begun.
    fn until_ready(&mut self) -> Result<Counted> {
        let mut waiting = self.streams.len();
        let mut ended = self.began.0;
        while waiting > 0 {
            ended = self.turn(&mut waiting)?;
        }
        Ok(self.counted(self.began, ended))
    }

    /// Reads until so many frames have come.
    fn count(&mut self, wanted: u64, began: (i64, i64)) -> Result<Counted> {
        (self.frames, self.bytes) = (0, 0);
        let mut ended = began.0;
        while self.frames < wanted {
            ended = self.turn(&mut 0)?;
        }
        ensure!(self.frames == wanted, "{} frames came instead of {wanted}", self.frames);
        Ok(self.counted(began, ended))
    }

    fn counted(&self, (began, processor): (i64, i64), ended: i64) -> Counted {
        let processor = clock::processor() - processor;
        Counted { frames: self.frames, bytes: self.bytes, began, ended, processor }
    }

    /// Reads what there is; `waiting` counts the streams that have not begun. When the last read was.
    fn turn(&mut self, waiting: &mut usize) -> Result<i64> {
        if self.streams.len() >= CROWD && self.events.iter().take(FEW).count() < FEW {
            clock::pause(GATHER);
        }
        loop {
            match self.poll.poll(&mut self.events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => break done?,
            }
        }
        let mut now = 0;
        for event in &self.events {
            let Some(stream) = self.streams.get_mut(event.token().0) else { continue };
            loop {
                let count = match stream.socket.read(&mut self.buffer) {
                    Ok(0) => bail!("the server closed a connection"),
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error.into()),
                };
                now = clock::now();
                let read = &self.buffer[..count];
                self.bytes += count as u64;
                if stream.last == 0 && !read.starts_with(GOOD) {
                    bail!("a stream was refused: {}", String::from_utf8_lossy(read));
                }
                if !stream.ready && stream.begins(read, self.ready) {
                    stream.ready = true;
                    *waiting -= 1;
                }
                let frames = scan::frames(read, &mut stream.last);
                if self.recording && stream.ready {
                    // Only events that have numbers count: idle streams get notices now and then.
                    let before = self.record.len();
                    let record = &mut self.record;
                    stream.numbers(read, |number| record.push((number, now)));
                    self.frames += (self.record.len() - before) as u64;
                } else {
                    self.frames += frames;
                }
                // What comes from here on wakes the poll again.
                if count < self.buffer.len() {
                    break;
                }
            }
        }
        Ok(now)
    }
}

impl Stream {
    /// Finds the numbers of events in what was just read. Only what may be half of one is kept.
    fn numbers(&mut self, read: &[u8], found: impl FnMut(u32)) {
        if self.rest.is_empty() {
            self.rest.extend_from_slice(&read[scan::numbers(read, found)..]);
        } else {
            self.rest.extend_from_slice(read);
            let done = scan::numbers(&self.rest, found);
            self.rest.drain(..done);
        }
    }

    /// Whether the stream has begun with what was just read.
    fn begins(&mut self, read: &[u8], when: Ready) -> bool {
        self.rest.extend_from_slice(&read[read.len().saturating_sub(TAIL)..]);
        let (sign, end): (_, &[u8]) = match when {
            Ready::Head => (HEAD, b""),
            Ready::Greeted => (GREETING, b""),
            Ready::Live => (LIVE, b"\n\n"),
        };
        let found = memchr::memmem::find(&self.rest, sign);
        // What is left of a frame would be counted as one.
        let begins = found.is_some_and(|at| memchr::memmem::find(&self.rest[at..], end).is_some());
        let done = match found {
            _ if begins => self.rest.len(),
            Some(at) => at,
            None => self.rest.len().saturating_sub(sign.len()),
        };
        self.rest.drain(..done);
        begins
    }
}

/// Twelve bytes for each: number and time.
fn write_record(path: &Path, record: &[(u32, i64)]) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for (number, time) in record {
        file.write_all(&number.to_ne_bytes())?;
        file.write_all(&time.to_ne_bytes())?;
    }
    Ok(file.flush()?)
}

/// Reads what [`write_record`] wrote.
pub(super) fn read_record(path: &Path) -> Result<Vec<(u32, i64)>> {
    let bytes = std::fs::read(path).context("the client left no record")?;
    let number =
        |entry: &[u8]| Some((entry.first_chunk::<4>()?, entry.last_chunk::<8>()?)).map(|(n, t)| (*n, *t));
    let entries = bytes.chunks_exact(12).filter_map(number);
    Ok(entries.map(|(number, time)| (u32::from_ne_bytes(number), i64::from_ne_bytes(time))).collect())
}
