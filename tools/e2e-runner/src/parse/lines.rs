//! Lines of a stream, each of at most so many bytes: what is longer is cut, and the rest is passed over.

use std::io::{self, BufRead, Read};

/// A longer line is cut. `go test` splits its own output at 4 KiB; what is this long comes from elsewhere.
pub const LIMIT: usize = 8 << 20;

/// Reads lines without keeping more than one.
pub struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    limit: usize,
    /// Bytes passed over because their line was too long.
    pub cut: u64,
}

impl<R: BufRead> Lines<R> {
    /// Lines of at most `limit` bytes.
    pub fn new(reader: R, limit: usize) -> Self {
        Self { reader, buffer: Vec::new(), limit, cut: 0 }
    }

    /// The next line without its end, or nothing at the end of the stream.
    ///
    /// # Errors
    /// What the reader returns.
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        self.buffer.clear();
        // One byte more than the limit: the end of the line, or the sign that it is too long.
        let whole = self.reader.by_ref().take(self.limit as u64 + 1).read_until(b'\n', &mut self.buffer)?;
        match self.buffer.last() {
            None => return Ok(None),
            Some(b'\n') => {
                self.buffer.pop();
                if self.buffer.last() == Some(&b'\r') {
                    self.buffer.pop();
                }
            }
            Some(_) if whole > self.limit => {
                self.buffer.truncate(self.limit);
                self.cut += 1 + self.pass_over()?;
            }
            Some(_) => {}
        }
        Ok(Some(&self.buffer))
    }

    /// Goes to the next line; says how many bytes of this one there were.
    fn pass_over(&mut self) -> io::Result<u64> {
        let mut passed = 0;
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = available.iter().position(|byte| *byte == b'\n');
            let used = end.unwrap_or(available.len());
            let more = end.is_none() && !available.is_empty();
            self.reader.consume(used + usize::from(end.is_some()));
            passed += used as u64;
            if !more {
                return Ok(passed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], limit: usize, chunk: usize) -> (Vec<String>, u64) {
        let mut lines = Lines::new(io::BufReader::with_capacity(chunk, text), limit);
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            found.push(String::from_utf8_lossy(line).into_owned());
        }
        (found, lines.cut)
    }

    #[test]
    fn lines_end_where_they_end() {
        for chunk in [1, 2, 3, 64] {
            let (found, cut) = all(b"one\r\n\ntwo\nthree", 100, chunk);
            assert_eq!((found, cut), (vec!["one".into(), String::new(), "two".into(), "three".into()], 0));
        }
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        for chunk in [1, 4, 64] {
            assert_eq!(all(b"0123456789\nab\n", 4, chunk), (vec!["0123".into(), "ab".into()], 6));
            assert_eq!(all(b"0123\n01234", 4, chunk), (vec!["0123".into(), "0123".into()], 1));
        }
    }
}
