//! What is traded on the simulated market.

use std::collections::HashSet;

/// How something trades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whole shares, sale conditions, sessions.
    Stock,
    /// Fractions, `c` null, day and night.
    Crypto,
    /// Price updates only: size 0 and no `c` at all.
    Fx,
}

/// One symbol.
#[derive(Clone, Debug)]
pub(super) struct Ticker {
    pub(super) symbol: String,
    pub(super) kind: Kind,
    /// Stocks of one sector move together.
    pub(super) sector: usize,
    /// Where its price begins.
    pub(super) price: f64,
    /// Digits behind the point of a price and of a size.
    pub(super) digits: (u32, u32),
}

/// Sectors, crypto and currencies among them.
pub(super) const SECTORS: usize = 9;
const CRYPTO: usize = 7;
const FX: usize = 8;

/// Symbols by sector, with a price from which they start. The busiest come first in each.
const STOCKS: [&str; 7] = [
    // Technology and communication
    "NVDA 178.2 AAPL 268.5 MSFT 472.1 GOOGL 299.6 META 594.3 AMD 203.8 AVGO 340.2 PLTR 154.9 INTC 34.5 MU 207.4 ORCL 198.8 \
     CSCO 76.1 QCOM 163.3 CRM 227.1 ADBE 324.9 NFLX 104.3 TXN 159.2 AMAT 223.9 IBM 297.4 NOW 812.3 SHOP 147.6 SNOW 237.1 \
     PANW 182.9 CRWD 490.2 LRCX 142.7 KLAC 1115.3 ADI 231.6 MRVL 77.4 DELL 122.5 HPQ 24.4 UBER 83.6 SNAP 7.8 T 25.9 VZ 41.1 \
     CMCSA 26.8 DIS 104.3 TMUS 209.5 NET 187.2 DDOG 160.4 ARM 131.5",
    // Funds
    "SPY 659.0 QQQ 590.1 IWM 235.6 TQQQ 48.1 SOXL 34.2 XLF 52.1 TLT 89.6 GLD 374.3 SLV 45.3 HYG 80.2 EEM 52.9 XLE 89.4 \
     VOO 605.9 DIA 462.4 ARKK 70.1",
    // Consumer
    "AMZN 220.7 TSLA 391.1 WMT 105.3 NKE 62.7 KO 72.9 PEP 146.2 MCD 309.6 SBUX 83.9 COST 898.9 HD 343.3 LOW 229.8 TGT 88.1 \
     PG 150.6 PM 155.2 MO 58.1 F 12.9 GM 70.6 RIVN 15.2 NIO 5.6 CCL 25.7 AAL 12.6 DAL 58.2 UAL 95.1 MAR 292.3 ABNB 114.2 \
     BABA 152.9 JD 28.6 PDD 113.2 CMG 31.2 LULU 169.3",
    // Finance
    "BAC 51.6 JPM 298.0 WFC 84.1 C 98.7 GS 774.5 MS 160.9 SCHW 93.2 V 328.0 MA 528.7 AXP 341.1 SOFI 24.9 HOOD 107.2 COIN 240.4 \
     PYPL 60.2 BLK 1006.3 AIG 76.5 USB 47.4 PNC 184.3 MSTR 170.5 KEY 17.6 BRK.B 504.0 AFRM 63.7",
    // Health
    "PFE 25.0 UNH 320.2 JNJ 203.9 LLY 1059.7 MRK 97.8 ABBV 236.3 BMY 47.6 AMGN 337.2 GILD 126.7 CVS 78.1 MRNA 23.9 TMO 587.9 \
     ABT 128.3 MDT 100.8 ISRG 559.3 DHR 226.9 VRTX 424.7 REGN 752.2 HUM 229.4 CI 272.9",
    // Industry
    "BA 179.1 GE 289.8 CAT 552.3 LMT 466.8 RTX 172.3 HON 191.6 UPS 94.6 FDX 272.1 DE 477.9 MMM 167.9 EMR 126.7 UNP 224.8 CSX 34.5 \
     NOC 564.9 GD 339.5 LUV 32.7",
    // Energy and materials
    "XOM 117.1 CVX 149.9 OXY 41.1 SLB 36.1 COP 87.5 FCX 39.6 NEM 84.3 HAL 26.2 DVN 35.4 KMI 27.0 VALE 12.2 CLF 11.3 NEE 84.2 \
     DUK 123.9 SO 90.4 EOG 107.3",
];

/// Place in the list, kind, symbol, price, digits.
type Other = (usize, Kind, &'static str, f64, (u32, u32));

/// Others than stocks.
const OTHERS: [Other; 7] = [
    (5, Kind::Crypto, "BINANCE:BTCUSDT", 86_412.37, (2, 5)),
    (9, Kind::Crypto, "BINANCE:ETHUSDT", 2_817.44, (2, 4)),
    (17, Kind::Crypto, "BINANCE:SOLUSDT", 130.12, (2, 3)),
    (23, Kind::Fx, "OANDA:EUR_USD", 1.15214, (5, 0)),
    (29, Kind::Crypto, "BINANCE:XRPUSDT", 2.0573, (4, 1)),
    (41, Kind::Crypto, "BINANCE:DOGEUSDT", 0.14632, (5, 0)),
    (59, Kind::Fx, "OANDA:GBP_USD", 1.30871, (5, 0)),
];

/// The first `count` symbols, the busiest first. Past the real names come made-up ones.
pub(super) fn tickers(count: usize) -> Vec<Ticker> {
    let mut stocks = stocks();
    let mut tickers = Vec::with_capacity(count);
    while tickers.len() < count {
        let other = OTHERS.iter().find(|(place, ..)| *place == tickers.len());
        tickers.extend(match other {
            Some((_, kind, symbol, price, digits)) => {
                let sector = if *kind == Kind::Fx { FX } else { CRYPTO };
                Some(Ticker { symbol: (*symbol).to_owned(), kind: *kind, sector, price: *price, digits: *digits })
            }
            None => stocks.next(),
        });
    }
    tickers
}

/// The real ones, a sector in turn, then made-up ones without end.
fn stocks() -> impl Iterator<Item = Ticker> {
    let mut sectors = STOCKS.map(|sector| {
        let mut words = sector.split_ascii_whitespace();
        std::iter::from_fn(move || Some((words.next()?, words.next()?.parse::<f64>().ok()?)))
    });
    let mut real: Vec<Ticker> = Vec::new();
    loop {
        let before = real.len();
        for (sector, stocks) in sectors.iter_mut().enumerate() {
            real.extend(stocks.next().map(|(symbol, price)| stock(symbol.to_owned(), sector, price)));
        }
        if real.len() == before {
            break;
        }
    }
    let known: HashSet<String> = real.iter().map(|ticker| ticker.symbol.clone()).collect();
    let made_up = (0_usize..).map(|number| {
        let letter = |power: u32| char::from(b'A' + (number / 26_usize.pow(power) % 26) as u8);
        let tail = (number / 26_usize.pow(3) > 0).then(|| letter(3));
        let symbol: String = ['Q', letter(2), letter(1), letter(0)].into_iter().chain(tail).collect();
        stock(symbol, number % STOCKS.len(), 5.0 + (number * 37 % 300) as f64)
    });
    real.into_iter().chain(made_up.filter(move |ticker| !known.contains(&ticker.symbol)))
}

fn stock(symbol: String, sector: usize, price: f64) -> Ticker {
    Ticker { symbol, kind: Kind::Stock, sector, price, digits: (4, 0) }
}

/// The symbols that `--simulate N` trades, the busiest first.
pub fn simulated_symbols(count: usize) -> Vec<String> {
    tickers(count).into_iter().map(|ticker| ticker.symbol).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_distinct_and_more_of_them_begin_with_the_same() {
        let many = simulated_symbols(5000);
        assert_eq!(many.iter().collect::<HashSet<_>>().len(), 5000);
        assert_eq!(many[..50], simulated_symbols(50));
        assert_eq!(many[..3], ["NVDA", "SPY", "AMZN"]);
        assert!(many[..50].iter().filter(|symbol| symbol.starts_with("BINANCE:")).count() >= 4);
        assert!(tickers(300).iter().all(|ticker| ticker.price > 0.0 && ticker.sector < SECTORS));
    }
}
