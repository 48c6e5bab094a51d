//! Recorded frames: a file, plain or gzip, with the text of one frame on each line.
//!
//! It is read as it is played, a line at a time: a tape may be larger than the memory.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::ExchangeError;
use super::frame::Frame;

/// No frame is longer; a file that is no tape must not fill the memory.
const MAX_LINE: u64 = 16 << 20;

/// A tape, open at some line.
pub(super) struct Tape {
    path: PathBuf,
    lines: Box<dyn BufRead + Send>,
    line: usize,
    retime: Retime,
    /// The market's clock never goes back, even where a late trade stands alone in its frame.
    clock: i64,
}

/// How the trades' times are moved.
enum Retime {
    No,
    /// So that the first trade is at this time.
    To(i64),
    By(i64),
}

impl Tape {
    /// Opens it; what is in it shows when it is read.
    pub(super) fn open(path: &Path) -> Result<Tape, ExchangeError> {
        let failed = |error| ExchangeError::Tape { path: path.to_owned(), error };
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = Vec::new();
        file.by_ref().take(2).read_to_end(&mut magic).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let lines: Box<dyn BufRead + Send> = match &magic[..] {
            [0x1f, 0x8b] => Box::new(BufReader::with_capacity(256 << 10, MultiGzDecoder::new(BufReader::new(file)))),
            _ => Box::new(BufReader::with_capacity(256 << 10, file)),
        };
        Ok(Tape { path: path.to_owned(), lines, line: 0, retime: Retime::No, clock: i64::MIN })
    }

    /// Moves all its times so that the first trade is at `start`.
    pub(super) fn retime(&mut self, start: i64) {
        self.retime = Retime::To(start);
    }

    /// The next frame of trades; `None` at the end. Lines without trades are passed over.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, ExchangeError> {
        loop {
            let Some(text) = self.line().map_err(|error| ExchangeError::Tape { path: self.path.clone(), error })? else {
                return Ok(None);
            };
            let wrong = |fault: String| ExchangeError::Line { path: self.path.clone(), line: self.line, fault };
            let Some(mut frame) = Frame::parse(text).map_err(|fault| wrong(fault.to_string()))? else { continue };
            let shift = match self.retime {
                Retime::No => None,
                Retime::To(start) => Some(start.saturating_sub(frame.trades[0].time)),
                Retime::By(shift) => Some(shift),
            };
            if let Some(shift) = shift {
                frame = frame.retimed(shift).ok_or_else(|| wrong(format!("a time cannot be moved by {shift} ms")))?;
                self.retime = Retime::By(shift);
            }
            self.clock = self.clock.max(frame.at);
            frame.at = self.clock;
            return Ok(Some(frame));
        }
    }

    /// The next line that is not blank.
    fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            let mut text = String::with_capacity(512);
            if self.lines.by_ref().take(MAX_LINE).read_line(&mut text)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if text.len() as u64 == MAX_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("line {} is too long for a frame", self.line)));
            }
            text.truncate(text.trim_end_matches(['\n', '\r']).len());
            if !text.is_empty() {
                return Ok(Some(text));
            }
        }
    }
}

/// The symbols that a tape has trades of, sorted. Reads all of it.
pub fn symbols_of_tape(path: impl AsRef<Path>) -> Result<Vec<String>, ExchangeError> {
    let mut tape = Tape::open(path.as_ref())?;
    let mut symbols = BTreeSet::new();
    while let Some(frame) = tape.next()? {
        for trade in frame.trades {
            if !symbols.contains(&*trade.symbol) {
                symbols.insert(String::from(trade.symbol));
            }
        }
    }
    Ok(symbols.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const LINES: &str = concat!(
        r#"{"data":[{"c":["1"],"p":1.5,"s":"BAC","t":1000,"v":100},{"c":["1"],"p":2,"s":"AIG","t":900,"v":1}],"type":"trade"}"#,
        "\n",
        r#"{"type":"ping"}"#,
        "\r\n\n",
        r#"{"data":[{"c":null,"p":9e-05,"s":"AIG","t":500,"v":1}],"type":"trade"}"#,
    );

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn all(mut tape: Tape) -> Vec<Frame> {
        std::iter::from_fn(|| tape.next().unwrap()).collect()
    }

    #[test]
    fn plain_and_gzip_tapes_read_the_same() {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(LINES.as_bytes()).unwrap();
        let (plain, packed) = (file(LINES.as_bytes()), file(&packed.finish().unwrap()));
        let frames = all(Tape::open(plain.path()).unwrap());
        assert_eq!(frames, all(Tape::open(packed.path()).unwrap()));
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0].text.as_str(), LINES.lines().next().unwrap());
        assert_eq!((frames[0].at, frames[1].at), (1000, 1000), "the clock does not go back");
        assert_eq!(symbols_of_tape(packed.path()).unwrap(), ["AIG", "BAC"]);
    }

    #[test]
    fn a_retimed_tape_starts_now_and_keeps_its_distances() {
        let file = file(LINES.as_bytes());
        let mut tape = Tape::open(file.path()).unwrap();
        tape.retime(5000);
        let frames = all(tape);
        let times: Vec<i64> = frames.iter().flat_map(|frame| frame.trades.iter().map(|trade| trade.time)).collect();
        assert_eq!(times, [5000, 4900, 4500]);
        assert!(frames[1].text.contains(r#""p":9e-05,"s":"AIG","t":4500,"#));
    }

    #[test]
    fn a_fault_names_file_and_line() {
        let file = file(b"{\"type\":\"ping\"}\n\n{\"data\":[{\"s\":\"A\",\"t\":\"x\"}],\"type\":\"trade\"}\n");
        let fault = Tape::open(file.path()).unwrap().next().unwrap_err().to_string();
        assert!(fault.contains("line 3") && fault.contains("not milliseconds"), "{fault}");
        assert!(Tape::open(Path::new("/nowhere")).err().unwrap().to_string().contains("/nowhere"));
    }
}
