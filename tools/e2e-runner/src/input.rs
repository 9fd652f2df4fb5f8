//! Input that may be long in coming, from a pipe: who waits for it can be ended by a signal.

use std::{
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use kit::{Cause, Context, Result, signal};

/// Bytes that are read at once.
const PIECE: usize = 1 << 17;
/// Pieces that wait.
const QUEUE: usize = 4;

/// The file, or standard input without one.
///
/// # Errors
/// [`Cause::Usage`] if it cannot be opened.
pub(crate) fn open(path: Option<&Path>) -> Result<Box<dyn BufRead>> {
    let Some(path) = path else { return Ok(Box::new(BufReader::with_capacity(PIECE, Slow::new(io::stdin())))) };
    let file = std::fs::File::open(path).cause(Cause::Usage, || format!("cannot read {}", path.display()))?;
    if file.metadata().is_ok_and(|data| data.is_file()) {
        return Ok(Box::new(BufReader::with_capacity(PIECE, file)));
    }
    Ok(Box::new(BufReader::with_capacity(PIECE, Slow::new(file))))
}

enum Event {
    Bytes(io::Result<Vec<u8>>),
    Signal,
}

/// Reads elsewhere, so that a signal is heard meanwhile.
struct Slow {
    events: Receiver<Event>,
    rest: Vec<u8>,
    at: usize,
    ended: bool,
    _signals: signal::Subscription,
}

impl Slow {
    fn new(reader: impl Read + Send + 'static) -> Self {
        let (sender, events) = sync_channel(QUEUE);
        let waker = sender.clone();
        // Where the queue is full nobody waits.
        let signals = signal::subscribe(move |_| waker.try_send(Event::Signal).is_ok());
        std::thread::spawn(move || pump(reader, &sender));
        Self { events, rest: Vec::new(), at: 0, ended: false, _signals: signals }
    }
}

/// Passes on what there is, until there is no more or nobody listens.
fn pump(mut reader: impl Read, to: &SyncSender<Event>) {
    loop {
        let mut piece = vec![0; PIECE];
        let read = match reader.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read,
        };
        let more = matches!(read, Ok(1..));
        let piece = read.map(|bytes| {
            piece.truncate(bytes);
            piece
        });
        if to.send(Event::Bytes(piece)).is_err() || !more {
            return;
        }
    }
}

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.rest.len() && !self.ended {
            match self.events.recv() {
                Ok(Event::Bytes(bytes)) => (self.rest, self.at) = (bytes?, 0),
                Ok(Event::Signal) => return Err(io::Error::other("a signal came")),
                Err(_) => self.ended = true,
            }
            self.ended |= self.rest.is_empty();
        }
        let read = (&self.rest[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_pieces_is_whole_in_the_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        let text: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
        let sent = text.clone();
        let writing = std::thread::spawn(move || io::Write::write_all(&mut writer, &sent));
        let mut found = Vec::new();
        let mut slow = Slow::new(reader);
        slow.read_to_end(&mut found).unwrap();
        assert_eq!(slow.read(&mut [0; 8]).unwrap(), 0, "and stays so");
        writing.join().unwrap().unwrap();
        assert!(found == text);
    }
}
