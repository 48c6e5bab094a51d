//! The frames that everything is measured with.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Trades of a made tape.
const MADE: u64 = 400_000;

pub(crate) struct Tape {
    pub(crate) path: PathBuf,
    pub(crate) frames: Vec<Bytes>,
    pub(crate) symbols: Vec<String>,
    pub(crate) trades: u64,
    /// Keeps a made tape as long as it is used.
    _made: Option<tempfile::TempDir>,
}

/// The tape, whole in memory.
pub(crate) fn load() -> Tape {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/tapes/us-equity-20131007.jsonl.gz");
    let chosen = std::env::var_os("TICKMINT_BENCH_TAPE").map(PathBuf::from);
    let (path, made) = match chosen.or_else(|| recorded.exists().then_some(recorded)) {
        Some(path) => (path, None),
        None => {
            let dir = tempfile::tempdir().unwrap();
            (make(dir.path()), Some(dir))
        }
    };
    let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines: Box<dyn BufRead> = match path.extension().is_some_and(|ending| ending == "gz") {
        true => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(file))),
        false => Box::new(BufReader::new(file)),
    };
    let frames: Vec<Bytes> = lines.lines().map(|line| Bytes::from(line.unwrap())).filter(|line| !line.is_empty()).collect();
    let trades = frames.iter().map(|frame| frame.windows(5).filter(|window| window == b"\"s\":\"").count() as u64).sum();
    let symbols = tickmint::exchange::symbols_of_tape(&path).unwrap();
    Tape { path, frames, symbols, trades, _made: made }
}

/// Frames of 1 to 20 trades of one symbol each, as a busy day has them.
fn make(dir: &Path) -> PathBuf {
    let (path, mut random) = (dir.join("made.jsonl"), StdRng::seed_from_u64(7));
    let symbols = tickmint::exchange::simulated_symbols(40);
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let (mut made, mut time) = (0, 1_680_286_537_000u64);
    while made < MADE {
        time += random.random_range(0..20);
        let symbol = &symbols[random.random_range(0..symbols.len())];
        let trades: Vec<String> = (0..random.random_range(1..=20))
            .map(|_| {
                let (cents, size) = (random.random_range(1000..90_000), random.random_range(1..500));
                format!(r#"{{"c":["1"],"p":{}.{:02},"s":"{symbol}","t":{time},"v":{size}}}"#, cents / 100, cents % 100)
            })
            .collect();
        made += trades.len() as u64;
        writeln!(file, r#"{{"data":[{}],"type":"trade"}}"#, trades.join(",")).unwrap();
    }
    file.flush().unwrap();
    path
}
