//! The whole lines of a file, one after the other, in bounded memory.
//!
//! A process that was killed, or whose disk was full, leaves a last line without its end. Such a
//! torn line is not returned, and the caller learns where the whole ones end. The file is only open
//! while the buffer is filled: a campaign of some thousand shards has more files than a process
//! may hold open.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// The longest line. A row has one or two thousand bytes; what is longer was not written by us, and
/// must not fill the memory.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// Opens the file again.
pub type Open = Box<dyn Fn() -> io::Result<File>>;

/// A file that is read line by line.
pub struct Lines {
    open: Open,
    /// What was read and not returned yet begins at `at`.
    buffer: Vec<u8>,
    at: usize,
    /// Where in the file the buffer ends.
    read_up_to: u64,
    /// How many lines were returned.
    number: u64,
}

impl Lines {
    /// Reads what `open` opens, from its beginning.
    pub fn new(open: Open) -> Lines {
        Lines { open, buffer: Vec::new(), at: 0, read_up_to: 0, number: 0 }
    }

    /// The number of the last line that was returned, from 1; 0 before the first.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where the lines end that were returned.
    pub fn end(&self) -> u64 {
        self.read_up_to - (self.buffer.len() - self.at) as u64
    }

    /// The next whole line, without its end; `None` behind the last.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is longer than any that was ever written.
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let mut searched = 0;
        let length = loop {
            let rest = &self.buffer[self.at..];
            if let Some(found) = rest[searched..].iter().position(|byte| *byte == b'\n') {
                break searched + found;
            }
            searched = rest.len();
            if searched > MAX_LINE {
                let text = format!("the line has more than {MAX_LINE} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            if !self.fill()? {
                return Ok(None);
            }
        };
        let line = self.at..self.at + length;
        self.at = line.end + 1;
        self.number += 1;
        Ok(Some(&self.buffer[line]))
    }

    /// Reads on; false at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let mut file = (self.open)()?;
        file.seek(SeekFrom::Start(self.read_up_to))?;
        let read = file.take(CHUNK as u64).read_to_end(&mut self.buffer)?;
        self.read_up_to += read as u64;
        Ok(read > 0)
    }
}
