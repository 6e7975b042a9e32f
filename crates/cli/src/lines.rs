//! Lines of arbitrary bytes, in blocks: what a file or a pipe had to give, cut at the last newline.
//!
//! A line ends at `\n` and nothing else; the `\n` is not part of it, a `\r` is. A last line without `\n` counts;
//! an empty line is a line.

use std::io::{self, Read};

use memchr::{memchr_iter, memrchr};

/// How much one read asks for, in bytes.
const READ_LEN: usize = 256 * 1024;

/// Whole lines that arrived together, in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    bytes: Vec<u8>,
    /// False only for the last block of an input that does not end with a newline.
    ends_with_newline: bool,
}

impl Block {
    /// The lines, without their newlines.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let body = if self.ends_with_newline {
            &self.bytes[..self.bytes.len() - 1]
        } else {
            &self.bytes[..]
        };
        let ends = memchr_iter(b'\n', body).chain([body.len()]);
        ends.scan(0, |start, end| Some(&body[std::mem::replace(start, end + 1)..end]))
    }

    /// Bytes of input that the block stands for, newlines included.
    pub fn input_len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Why there is no next block.
#[derive(Debug)]
pub enum LinesError {
    /// The input could not be read.
    Io(io::Error),
    /// The line after those handed out is longer than `max` bytes.
    TooLong {
        /// The limit.
        max: usize,
    },
}

/// Reads an input in blocks of whole lines, each handed out as soon as it is there.
#[derive(Debug)]
pub struct LineBlocks<R> {
    input: R,
    /// The beginning of a line whose end has not arrived.
    rest: Vec<u8>,
    line_bytes_max: usize,
    finished: bool,
}

impl<R: Read> LineBlocks<R> {
    /// Reads `input`. A line that passes `line_bytes_max` before its end has come is refused, so that memory stays
    /// bounded; one that is only a little longer may be handed out.
    pub fn new(input: R, line_bytes_max: usize) -> LineBlocks<R> {
        LineBlocks { input, rest: Vec::new(), line_bytes_max, finished: false }
    }

    /// The next block, or `None` at the end of the input. Blocks until at least one whole line has arrived,
    /// and waits for no more than that.
    pub fn next_block(&mut self) -> Result<Option<Block>, LinesError> {
        while !self.finished {
            let searched = self.rest.len();
            if searched > self.line_bytes_max {
                return Err(LinesError::TooLong { max: self.line_bytes_max });
            }
            self.rest.resize(searched + READ_LEN, 0);
            let read = self.read(searched).map_err(LinesError::Io);
            self.rest.truncate(searched + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                self.finished = true;
                let bytes = std::mem::take(&mut self.rest);
                return Ok((!bytes.is_empty()).then_some(Block { bytes, ends_with_newline: false }));
            }
            if let Some(newline) = memrchr(b'\n', &self.rest[searched..]) {
                let end = searched + newline + 1;
                let rest = self.rest[end..].to_vec();
                self.rest.truncate(end);
                let bytes = std::mem::replace(&mut self.rest, rest);
                return Ok(Some(Block { bytes, ends_with_newline: true }));
            }
        }
        Ok(None)
    }

    fn read(&mut self, from: usize) -> io::Result<usize> {
        loop {
            match self.input.read(&mut self.rest[from..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// The `number`-th field of a line, counted from 1, between runs of ASCII white space.
pub fn field(line: &[u8], number: usize) -> Option<&[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty())
        .nth(number.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its parts one read at a time, as a pipe does.
    struct Parts(Vec<&'static [u8]>);

    impl Read for Parts {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let part = self.0.remove(0);
            buffer[..part.len()].copy_from_slice(part);
            Ok(part.len())
        }
    }

    fn blocks(parts: &[&'static [u8]]) -> Vec<Vec<Vec<u8>>> {
        let mut blocks = LineBlocks::new(Parts(parts.to_vec()), 1 << 20);
        let mut all = Vec::new();
        while let Some(block) = blocks.next_block().unwrap() {
            all.push(block.lines().map(<[u8]>::to_vec).collect());
        }
        all
    }

    fn lines(parts: &[&'static [u8]]) -> Vec<Vec<u8>> {
        blocks(parts).concat()
    }

    #[test]
    fn lines_end_at_newlines_and_nowhere_else() {
        assert_eq!(
            lines(&[b"one\ntwo\r\n\0\xff\x0b\x0c\n"]),
            [&b"one"[..], b"two\r", b"\0\xff\x0b\x0c"]
        );
    }

    #[test]
    fn a_last_line_without_a_newline_counts() {
        assert_eq!(lines(&[b"one\ntwo"]), [b"one", b"two"]);
    }

    #[test]
    fn empty_lines_are_lines_and_an_empty_input_has_none() {
        assert_eq!(lines(&[b"\n\na\n\n"]), [&b""[..], b"", b"a", b""]);
        assert_eq!(lines(&[]), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_whole_line_is_handed_out_before_the_next_read() {
        assert_eq!(
            blocks(&[b"a\n", b"b", b"c\nd", b"\n"]),
            [[b"a".to_vec()], [b"bc".to_vec()], [b"d".to_vec()]]
        );
    }

    #[test]
    fn any_way_of_cutting_the_input_gives_the_same_lines() {
        let text: &'static [u8] = b"alpha\n\nbeta\r\n\xff\n gamma";
        let whole = lines(&[text]);
        for first in 1..text.len() {
            for second in first..text.len() {
                let parts: Vec<_> = [&text[..first], &text[first..second], &text[second..]].into();
                let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                assert_eq!(lines(&parts), whole, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn a_line_without_end_is_refused_in_bounded_memory() {
        let mut blocks = LineBlocks::new(io::Cursor::new(b"ok\n").chain(io::repeat(b'x')), 1 << 20);
        assert_eq!(blocks.next_block().unwrap().unwrap().lines().collect::<Vec<_>>(), [b"ok"]);
        assert!(matches!(blocks.next_block(), Err(LinesError::TooLong { max: 1_048_576 })));
        assert!(blocks.rest.len() <= (1 << 20) + READ_LEN);
    }

    #[test]
    fn an_input_that_fails_says_so() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::PermissionDenied.into())
            }
        }
        let mut blocks = LineBlocks::new(Broken, 1 << 20);
        assert!(
            matches!(blocks.next_block(), Err(LinesError::Io(e)) if e.kind() == io::ErrorKind::PermissionDenied)
        );
    }

    #[test]
    fn fields_are_counted_from_one_between_runs_of_white_space() {
        let line = b"  alpha \t beta\r";
        assert_eq!(field(line, 1), Some(&b"alpha"[..]));
        assert_eq!(field(line, 2), Some(&b"beta"[..]));
        assert_eq!(field(line, 3), None);
        assert_eq!(field(line, 0), None);
        assert_eq!(field(b"", 1), None);
    }
}
