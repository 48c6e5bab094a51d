//! A market that was never there: seeded, lively at any hour, and odd where the real one is odd.
//!
//! It is made in steps of 50 ms of its own clock. Each step draws *clusters*: one order that meets
//! several others gives many trades of one symbol within a millisecond or few. Prices are random
//! walks that share the market's and their sector's moves. What is imitated, with its measure, is in
//! the constants; the measures come from real tapes and from frames that Finnhub really sent.
//!
//! The same seed, symbols, rate and start give the same texts, however fast they are played.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use rand::prelude::*;
use rand::rngs::StdRng;

use super::frame::Frame;
use super::prints::{self, Print};
use super::tickers::{Kind, SECTORS, Ticker, tickers};

/// A step of the market's clock, milliseconds: trades of a frame lie this close together.
const STEP: i64 = 50;

/// No frame of Finnhub's has more trades.
const FRAME_TRADES: usize = 10;

/// Trades a second of one symbol if no `rate` is given: 50 symbols of a free key gave 57.
const RATE_PER_SYMBOL: f64 = 1.2;

/// Of the trades of a cluster but the first, how many are the one before in every field. With the
/// sizes of clusters below this makes about one trade in five, as counted on real tapes.
const EQUAL: f64 = 0.26;

/// Cluster sizes and how often: mean [`MEAN_CLUSTER`].
const CLUSTERS: [(f64, std::ops::RangeInclusive<usize>); 5] =
    [(0.55, 1..=1), (0.35, 2..=6), (0.092, 5..=25), (0.0075, 30..=120), (0.0005, 200..=700)];
const MEAN_CLUSTER: f64 = 0.55 + 0.35 * 4.0 + 0.092 * 15.0 + 0.0075 * 75.0 + 0.0005 * 450.0;

/// Now and then news come and for a second or two everything trades 20 to 45 times as much: the
/// busiest second of a real day has 24 to 47 times the mean.
const NEWS_A_SECOND: f64 = 1.0 / 300.0;
const CALM: f64 = 0.865; // so that the mean over calm and news is 1

/// Volatility of a square root of a second, for the market, a sector and a symbol alone. A day's are
/// 1.5 %, 1 % and 2 %; livelier than on most days, so that a short demo shows something.
const MARKET: f64 = 1.0e-4;
const SECTOR: f64 = 0.65e-4;
const OWN: f64 = 1.3e-4;

/// What the simulated market is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulation {
    /// How many symbols trade; see [`simulated_symbols`](super::simulated_symbols).
    pub symbols: usize,
    /// Trades a second in the mean, over all symbols; 1.2 a symbol if not given.
    pub rate: Option<f64>,
    /// Whether stocks keep New York's hours: silent at night and on weekends, busiest at open and
    /// close. Holidays are not known. Without, the market is open always.
    pub market_hours: bool,
    /// When the market's clock starts, milliseconds since 1970; now if not given.
    pub start: Option<i64>,
    /// It ends after so many trades; never if not given.
    pub trades: Option<u64>,
}

impl Simulation {
    /// An open market of so many symbols, for ever.
    pub fn of(symbols: usize) -> Simulation {
        Simulation { symbols, rate: None, market_hours: false, start: None, trades: None }
    }
}

/// The part of New York's day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Pre,
    /// With the minutes since 09:30.
    Regular(i64),
    Post,
    Closed,
}

impl Phase {
    /// At this many milliseconds since 1970. Weekends are closed; holidays are not known.
    fn at(millis: i64, new_york: &TimeZone) -> Phase {
        let Ok(time) = Timestamp::from_millisecond(millis) else { return Phase::Closed };
        let time = time.to_zoned(new_york.clone());
        let minute = i64::from(time.hour()) * 60 + i64::from(time.minute());
        match minute {
            _ if matches!(time.weekday(), Weekday::Saturday | Weekday::Sunday) => Phase::Closed,
            240..570 => Phase::Pre,
            570..960 => Phase::Regular(minute - 570),
            960..1200 => Phase::Post,
            _ => Phase::Closed,
        }
    }

    /// How much of the mean rate stocks trade: a U over the day whose mean is 1.
    fn activity(self) -> f64 {
        match self {
            Phase::Pre => 0.05,
            Phase::Regular(minute) => 0.66 + 3.0 * (-minute as f64 / 20.0).exp() + 6.0 * ((minute - 390) as f64 / 12.0).exp(),
            Phase::Post => 0.08,
            Phase::Closed => 0.0,
        }
    }
}

/// A symbol's walk.
struct Walk {
    ticker: Ticker,
    price: f64,
    beta: f64,
    /// Where the common walks and the clock stood when it last moved.
    seen: (f64, f64, i64),
}

/// The market, at some moment of its clock.
pub(super) struct Market {
    rng: StdRng,
    walks: Vec<Walk>,
    /// Sums of the symbols' shares of the trading, for drawing one.
    shares: Vec<f64>,
    rate: f64,
    market_hours: bool,
    left: u64,
    clock: i64,
    new_york: TimeZone,
    phase: Phase,
    market: f64,
    sectors: [f64; SECTORS],
    /// Until when there is news, and how much it multiplies the trading.
    news: (i64, f64),
}

impl Market {
    pub(super) fn new(simulation: &Simulation, seed: u64, start: i64) -> Market {
        let mut rng = StdRng::seed_from_u64(seed);
        let walk = |ticker: Ticker| {
            let beta = if ticker.kind == Kind::Fx { 0.1 } else { rng.random_range(0.5..1.6) };
            Walk { price: ticker.price, beta, seen: (0.0, 0.0, start), ticker }
        };
        let walks: Vec<Walk> = tickers(simulation.symbols).into_iter().map(walk).collect();
        let share = |(rank, total): (usize, &mut f64)| {
            *total += 1.0 / (rank as f64 + 4.0).powf(0.7);
            *total
        };
        let mut total = 0.0;
        let shares = (0..walks.len()).map(|rank| share((rank, &mut total))).collect();
        let new_york = TimeZone::get("America/New_York").expect("the time zones are compiled in");
        Market {
            rng,
            shares,
            rate: simulation.rate.unwrap_or(RATE_PER_SYMBOL * walks.len() as f64),
            walks,
            market_hours: simulation.market_hours,
            left: simulation.trades.unwrap_or(u64::MAX),
            clock: start,
            phase: Phase::at(start, &new_york),
            new_york,
            market: 0.0,
            sectors: [0.0; SECTORS],
            news: (start, 1.0),
        }
    }

    /// Makes the next step; its frames go to `frames`. `false` when the market has ended.
    pub(super) fn step(&mut self, frames: &mut Vec<Frame>) -> bool {
        if self.left == 0 || self.clock > Timestamp::MAX.as_millisecond() - 1000 {
            return false;
        }
        let mut prints = Vec::new();
        if self.clock.rem_euclid(60_000) < STEP {
            self.turn_minute(&mut prints);
        }
        self.walk();
        let mut clusters = self.rate * self.activity() / MEAN_CLUSTER * (STEP as f64 / 1000.0);
        // As many as a Poisson process has: count exponential waiting times.
        loop {
            clusters -= -(1.0 - self.rng.random::<f64>()).ln();
            if clusters < 0.0 {
                break;
            }
            self.cluster(&mut prints);
        }
        self.clock += STEP;
        prints.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= prints.len() as u64;
        prints.sort_by_key(|print| print.shown_at);
        self.cut(&prints, frames);
        true
    }

    /// The phase, and at a turn of it the auctions with their official markers.
    fn turn_minute(&mut self, prints: &mut Vec<Print>) {
        let phase = Phase::at(self.clock, &self.new_york);
        let before = std::mem::replace(&mut self.phase, phase);
        let auction = match (before, phase) {
            (Phase::Pre, Phase::Regular(_)) => ["1,19", "20"],
            (Phase::Regular(_), Phase::Post) => ["1,36", "16"],
            _ => return,
        };
        for index in 0..self.walks.len() {
            if self.market_hours && self.walks[index].ticker.kind == Kind::Stock {
                self.move_price(index);
                let walk = &self.walks[index];
                prints.extend(prints::auction(&walk.ticker.symbol, walk.price, self.clock, auction, &mut self.rng));
            }
        }
    }

    /// The market's and the sectors' walks over one step, and the coming and going of news.
    fn walk(&mut self) {
        let root = (STEP as f64 / 1000.0).sqrt();
        self.market += MARKET * root * prints::normal(&mut self.rng);
        for sector in &mut self.sectors {
            *sector += SECTOR * root * prints::normal(&mut self.rng);
        }
        if self.clock >= self.news.0 && self.rng.random_bool(NEWS_A_SECOND * STEP as f64 / 1000.0) {
            self.news = (self.clock + self.rng.random_range(500..2000), self.rng.random_range(20.0..45.0));
        }
    }

    /// How much more than in the mean is traded now. Crypto is drawn with the stocks and trades on
    /// when they are silent; see `cluster`.
    fn activity(&self) -> f64 {
        let news = if self.clock < self.news.0 { self.news.1 } else { CALM };
        // In the closing minutes of a day the U is above 6 already.
        let hours = if self.market_hours { self.phase.activity().max(1.0) } else { 1.0 };
        news * hours
    }

    /// One order and all that it meets.
    fn cluster(&mut self, prints: &mut Vec<Print>) {
        let total = self.shares.last().copied().unwrap_or(0.0);
        let drawn = self.rng.random::<f64>() * total;
        let index = self.shares.partition_point(|&share| share <= drawn).min(self.walks.len() - 1);
        let stock = self.walks[index].ticker.kind == Kind::Stock;
        let hours = self.phase.activity();
        // `activity` gave everything at least the mean; stocks get less, the others no more.
        let accepted = match (self.market_hours, stock) {
            (false, _) => 1.0,
            (true, true) => hours.min(1.0),
            (true, false) => 1.0 / hours.max(1.0),
        };
        if !self.rng.random_bool(accepted) {
            return;
        }
        self.move_price(index);
        let size = self.cluster_size();
        let phase = match self.phase {
            // An open market at night has regular trades: Form T ones would make no candles.
            Phase::Closed => Phase::Regular(0),
            phase => phase,
        };
        let walk = &mut self.walks[index];
        let begin = self.clock + self.rng.random_range(0..STEP - 3);
        let first = prints.len();
        for place in 0..size {
            if place > 0 && self.rng.random_bool(EQUAL) {
                prints.extend_from_within(prints.len() - 1..);
                continue;
            }
            // A large one happens within a millisecond, others within three.
            let shown_at = prints.last().filter(|_| place > 0).map_or(begin, |before| before.shown_at);
            let later = i64::from(size < 30 && place > 0 && self.rng.random_bool(0.3));
            let shown_at = (shown_at + later).min(begin + 2);
            prints.push(prints::print(&walk.ticker, &mut walk.price, shown_at, phase, &mut self.rng));
        }
        debug_assert_eq!(prints.len() - first, size);
    }

    fn cluster_size(&mut self) -> usize {
        let mut drawn = self.rng.random::<f64>();
        for (share, sizes) in &CLUSTERS {
            if drawn < *share {
                return self.rng.random_range(sizes.clone());
            }
            drawn -= share;
        }
        1
    }

    /// Brings a symbol's price to the present.
    fn move_price(&mut self, index: usize) {
        let walk = &mut self.walks[index];
        let (market, sector) = (self.market, self.sectors[walk.ticker.sector]);
        let (market_before, sector_before, at) = std::mem::replace(&mut walk.seen, (market, sector, self.clock));
        let seconds = ((self.clock - at).max(0) as f64 / 1000.0).min(3600.0);
        let own = OWN * seconds.sqrt() * prints::normal(&mut self.rng);
        walk.price *= (walk.beta * (market - market_before) + (sector - sector_before) + walk.beta * own).exp();
        walk.price = walk.price.clamp(walk.ticker.price / 50.0, walk.ticker.price * 50.0);
    }

    /// Cuts the prints of a step into frames of at most ten, some of them shorter than they could be.
    fn cut(&mut self, mut prints: &[Print], frames: &mut Vec<Frame>) {
        while !prints.is_empty() {
            let longest = prints.len().min(FRAME_TRADES);
            let length = if self.rng.random_bool(0.7) { longest } else { self.rng.random_range(1..=longest) };
            let (now, rest) = prints.split_at(length);
            let mut text = String::with_capacity(30 + 80 * length);
            text.push_str(r#"{"data":["#);
            for (place, print) in now.iter().enumerate() {
                write!(text, "{}{}", if place == 0 { "" } else { "," }, print.text).expect("a string takes all");
            }
            text.push_str(r#"],"type":"trade"}"#);
            let frame = Frame::parse(text).expect("a frame of our own is one");
            let mut frame = frame.expect("and has trades");
            frame.at = self.clock;
            frames.push(frame);
            prints = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use serde_json::Value;

    use super::*;

    /// 2026-03-02 (a Monday) at this hour and minute in New York.
    fn monday(hour: i64, minute: i64) -> i64 {
        1_772_427_600_000 + (hour * 60 + minute) * 60_000
    }

    fn texts(simulation: &Simulation, seed: u64, start: i64) -> Vec<String> {
        let mut market = Market::new(simulation, seed, start);
        let mut frames = Vec::new();
        while market.step(&mut frames) {}
        frames.into_iter().map(|frame| frame.text.to_string()).collect()
    }

    fn trades(texts: &[String]) -> Vec<Value> {
        let data = |text: &String| serde_json::from_str::<Value>(text).unwrap()["data"].as_array().unwrap().clone();
        texts.iter().flat_map(data).collect()
    }

    fn simulation(trades: u64) -> Simulation {
        Simulation { trades: Some(trades), ..Simulation::of(60) }
    }

    #[test]
    fn equal_seeds_make_equal_markets() {
        let some = texts(&simulation(3000), 1, monday(10, 0));
        assert_eq!(some, texts(&simulation(3000), 1, monday(10, 0)));
        assert_ne!(some, texts(&simulation(3000), 2, monday(10, 0)));
        assert_eq!(trades(&some).len(), 3000);
    }

    #[test]
    fn the_market_is_odd_as_the_real_one() {
        let texts = texts(&simulation(60_000), 3, monday(11, 0));
        assert!(texts.iter().all(|text| (1..=10).contains(&trades(std::slice::from_ref(text)).len())));
        let trades = trades(&texts);
        let is_stock = |trade: &&Value| !trade["s"].as_str().unwrap().contains(':');
        let stocks: Vec<&Value> = trades.iter().filter(is_stock).collect();
        let share = |count: usize, of: usize| count as f64 / of as f64;

        let odd = stocks.iter().filter(|trade| trade["v"].as_f64().unwrap() < 100.0).count();
        assert!((0.4..0.65).contains(&share(odd, stocks.len())), "{odd} of {}", stocks.len());
        for trade in &stocks {
            let codes: Vec<&str> = trade["c"].as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
            assert_eq!(codes.contains(&"12"), trade["v"].as_f64().unwrap() < 100.0, "{trade}");
            assert!(!codes.contains(&"24"), "no Form T in the regular session: {trade}");
        }
        let equal = trades.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!((0.12..0.28).contains(&share(equal, trades.len())), "{equal} of {}", trades.len());
        let mut seconds: HashMap<i64, usize> = HashMap::new();
        trades.iter().for_each(|trade| *seconds.entry(trade["t"].as_i64().unwrap() / 1000).or_default() += 1);
        let (first, last) = (seconds.keys().min().unwrap(), seconds.keys().max().unwrap());
        let mean = trades.len() as f64 / (last - first + 1) as f64;
        assert!((45.0..100.0).contains(&mean), "72 a second were ordered: {mean}");
        assert!(*seconds.values().max().unwrap() as f64 > 8.0 * mean, "bursts: {:?} at {mean}", seconds.values().max());

        let back = trades.windows(2).filter(|pair| pair[1]["t"].as_i64() < pair[0]["t"].as_i64()).count();
        assert!(back > 100, "time goes back: {back}");

        let mut moments: HashMap<(&str, i64), usize> = HashMap::new();
        trades
            .iter()
            .for_each(|trade| *moments.entry((trade["s"].as_str().unwrap(), trade["t"].as_i64().unwrap())).or_default() += 1);
        assert!(moments.values().max().is_some_and(|&most| most > 150), "{:?}", moments.values().max());
    }

    #[test]
    fn conditions_come_in_all_their_shapes() {
        let texts = texts(&simulation(60_000), 4, monday(11, 0));
        let has = |part: &str| texts.iter().any(|text| text.contains(part));
        for part in
            [r#""c":["1"],"#, r#""c":["1","12"]"#, r#""c":["1","8"]"#, r#""c":["1","8","12"]"#, r#""c":[],"#, r#""c":null"#]
        {
            assert!(has(part), "{part}");
        }
        assert!(has(r#"{"p":1."#), "absent");
        assert!(has(r#""v":0}"#), "a price update");
        assert!(texts.iter().any(|text| text.contains("e-05")), "a number with an exponent");
    }

    #[test]
    fn form_t_is_outside_of_hours_only() {
        let trades = trades(&texts(&simulation(2000), 5, monday(17, 0)));
        let stocks = trades.iter().filter(|trade| !trade["s"].as_str().unwrap().contains(':'));
        let coded = stocks.filter(|trade| !trade["c"].as_array().unwrap().is_empty());
        assert!(coded.clone().all(|trade| trade["c"].as_array().unwrap().contains(&"24".into())));
        assert!(coded.count() > 500);
    }

    #[test]
    fn a_market_with_hours_is_silent_at_night_and_has_auctions() {
        let hours = Simulation { market_hours: true, ..simulation(3000) };
        let symbols: HashSet<String> =
            trades(&texts(&hours, 6, monday(1, 0))).iter().map(|t| t["s"].as_str().unwrap().into()).collect();
        assert!(symbols.iter().all(|symbol| symbol.contains(':')), "{symbols:?}");

        let day = Simulation { rate: Some(0.5), trades: Some(12_000), ..hours };
        let texts = texts(&day, 6, monday(9, 0));
        for part in [r#""c":["1","19"],"#, r#""c":["20"],"#, r#""c":["1","36"],"#, r#""c":["16"],"#] {
            assert!(texts.iter().any(|text| text.contains(part)), "{part}");
        }
    }

    #[test]
    fn phases_follow_new_york() {
        let new_york = TimeZone::get("America/New_York").unwrap();
        let at = |hour, minute| Phase::at(monday(hour, minute), &new_york);
        assert_eq!(
            [at(3, 59), at(4, 0), at(9, 29), at(16, 0), at(20, 0)],
            [Phase::Closed, Phase::Pre, Phase::Pre, Phase::Post, Phase::Closed]
        );
        assert_eq!((at(9, 30), at(15, 59)), (Phase::Regular(0), Phase::Regular(389)));
        assert_eq!(Phase::at(monday(-14, 0), &new_york), Phase::Closed, "Sunday");
        let mean = (0..390).map(|minute| Phase::Regular(minute).activity()).sum::<f64>() / 390.0;
        assert!((0.95..1.05).contains(&mean), "{mean}");
    }
}
