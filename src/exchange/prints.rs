//! Single trades of the simulated market and their text, as Finnhub writes it.

use rand::prelude::*;
use rand::rngs::StdRng;

use super::market::Phase;
use super::tickers::{Kind, Ticker};

/// A trade as text.
#[derive(Clone, Debug)]
pub(super) struct Print {
    /// Its place in the order of the market. Its own `t` may lie before.
    pub(super) shown_at: i64,
    pub(super) text: String,
}

/// Prices better than a cent: they come from dealers and show in real frames.
const SUB_PENNY: f64 = 0.08;
/// A trade whose time is some milliseconds before the one ahead of it in the frame.
const BACK_IN_TIME: f64 = 0.03;
/// A print reported seconds late, with its condition.
const LATE: f64 = 0.0015;
/// Rare conditions: bunched, average price, price variation, markers, prior price, seller, derivative, contingent.
const RARE: f64 = 0.004;
const RARE_CODES: [&str; 10] = ["4", "3", "9", "10", "16", "20", "21", "22", "32", "37"];
/// Large prints without any condition.
const NO_CODES: f64 = 0.0008;
/// Price updates (size 0) of crypto.
const CRYPTO_UPDATES: f64 = 0.003;

/// Trades a symbol at about `price`, which it moves.
pub(super) fn print(ticker: &Ticker, price: &mut f64, shown_at: i64, phase: Phase, rng: &mut StdRng) -> Print {
    let (price_digits, size_digits) = ticker.digits;
    let mut time = shown_at;
    if rng.random_bool(BACK_IN_TIME) {
        time -= rng.random_range(1..40);
    }
    let (size, conditions) = match ticker.kind {
        Kind::Stock => {
            let late = rng.random_bool(LATE);
            if late {
                time -= rng.random_range(5_000..90_000);
            }
            stock(late, matches!(phase, Phase::Pre | Phase::Post), rng)
        }
        Kind::Crypto if rng.random_bool(CRYPTO_UPDATES) => (0, r#""c":null,"#.to_owned()),
        Kind::Crypto => {
            let dollars = (4.5 + 1.9 * normal(rng)).exp();
            let units = dollars / *price * 10_f64.powi(size_digits as i32);
            ((units as u64).max(1), r#""c":null,"#.to_owned())
        }
        Kind::Fx => (0, String::new()),
    };
    let units = match ticker.kind {
        Kind::Stock => stock_price(price, rng),
        Kind::Crypto | Kind::Fx => {
            let unit = 10_f64.powi(price_digits as i32);
            (*price * unit + f64::from(rng.random_range(-2_i8..=2))).round().max(1.0) as u64
        }
    };
    let (p, v) = (decimal(units, price_digits), decimal(size, size_digits));
    Print { shown_at, text: format!(r#"{{{conditions}"p":{p},"s":"{}","t":{time},"v":{v}}}"#, ticker.symbol) }
}

/// The two prints of an auction: the trade, and the marker that makes its price official.
pub(super) fn auction(symbol: &str, price: f64, at: i64, codes: [&str; 2], rng: &mut StdRng) -> [Print; 2] {
    let p = decimal((price * 100.0).round().max(1.0) as u64, 2);
    let v = rng.random_range(50..5000) * 100;
    codes.map(|codes| {
        let text = format!(r#"{{{}"p":{p},"s":"{symbol}","t":{at},"v":{v}}}"#, conditions(codes));
        Print { shown_at: at, text }
    })
}

/// In units of 10^-4. Most trades are at a full cent to either side; one in ten moves the price.
fn stock_price(price: &mut f64, rng: &mut StdRng) -> u64 {
    let side = if rng.random() { 0.5 } else { -0.5 };
    let units = if *price < 1.0 || rng.random_bool(SUB_PENNY) {
        *price * 10_000.0 + side * 40.0
    } else {
        (*price * 100.0 + side).round() * 100.0
    };
    if rng.random_bool(0.1) {
        *price += side * 0.01_f64.min(*price / 1000.0);
    }
    units.round().max(1.0) as u64
}

/// Size and conditions of a stock's trade. 12 stands if and only if the lot is odd.
fn stock(late: bool, form_t: bool, rng: &mut StdRng) -> (u64, String) {
    let mut size = match rng.random_range(0..100) {
        0..18 => rng.random_range(1..10),
        18..52 => rng.random_range(10..100),
        52..80 => 100,
        80..90 => 100 * rng.random_range(2..10),
        90..97 => rng.random_range(101..1000),
        _ => 100 * rng.random_range(10..200),
    };
    if rng.random_bool(NO_CODES) {
        return (100 * rng.random_range(50..500), r#""c":[],"#.to_owned());
    }
    let mut codes = String::new();
    if late {
        codes.push_str(if rng.random() { "30" } else { "15" });
    } else if rng.random_bool(RARE) {
        let code = RARE_CODES.choose(rng).copied().unwrap_or("4");
        if matches!(code, "16" | "20") {
            size = size.max(100) * 100;
        }
        codes.push_str(code);
    } else {
        codes.push('1');
        if rng.random_bool(0.3) {
            codes.push_str(",8");
        }
    }
    if form_t {
        codes.push_str(",24");
    }
    if size < 100 {
        codes.push_str(",12");
    }
    if codes.starts_with("1,8") && rng.random_bool(0.05) {
        codes.push_str(",41");
    }
    (size, conditions(&codes))
}

fn conditions(codes: &str) -> String {
    format!(r#""c":["{}"],"#, codes.replace(',', r#"",""#))
}

/// A number of `digits` behind the point, written as Finnhub's tapes show it: no needless zeros, and
/// an exponent below 0.0001 (`9e-05`).
pub(super) fn decimal(units: u64, digits: u32) -> String {
    if units == 0 {
        return "0".to_owned();
    }
    let power = 10_u64.pow(digits);
    if digits > 4 && units < power / 10_000 {
        let text = units.to_string();
        let exponent = digits as usize + 1 - text.len();
        let fraction = text[1..].trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        return format!("{}{point}{fraction}e-{exponent:02}", &text[..1]);
    }
    let fraction = format!("{:0width$}", units % power, width = digits as usize);
    match fraction.trim_end_matches('0') {
        "" => (units / power).to_string(),
        fraction => format!("{}.{fraction}", units / power),
    }
}

/// A draw from the standard normal distribution (Box and Muller).
pub(super) fn normal(rng: &mut StdRng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_on_the_tapes() {
        let known = [
            (1_640_601, 4, "164.0601"),
            (1_680_200, 4, "168.02"),
            (1_680_000, 4, "168"),
            (9, 5, "9e-05"),
            (10, 5, "0.0001"),
            (12, 8, "1.2e-07"),
            (5_000, 0, "5000"),
            (0, 5, "0"),
        ];
        for (units, digits, text) in known {
            assert_eq!(decimal(units, digits), text);
            let value: f64 = text.parse().unwrap();
            assert!((value - units as f64 / 10_f64.powi(digits as i32)).abs() < 1e-12);
        }
    }
}
