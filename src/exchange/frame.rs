//! The text of a trade frame, with the places of its trades in it.
//!
//! Nothing here writes a number anew except a time that is to be moved: what is left out, put in
//! another order or moved in time keeps the server's text in every other byte. This is not the
//! daemon's parser and must not become it: two readings of one text are what makes a test.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// A frame of trades as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Verbatim.
    pub(super) text: Utf8Bytes,
    /// When the market shows it, in milliseconds of the market's clock: never before a trade of it.
    pub(super) at: i64,
    /// In the order of the text; never empty.
    pub(super) trades: Vec<Trade>,
}

/// Where one trade stands in the text of its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trade {
    /// As subscribed to.
    pub(super) symbol: Box<str>,
    /// Its object, braces included.
    pub(super) element: Range<usize>,
    /// The number behind `"t":`.
    time_text: Range<usize>,
    /// That number.
    pub(super) time: i64,
}

/// A line is not a frame that Finnhub could have sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotAFrame(String);

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Element<'a> {
    #[serde(borrow)]
    s: Cow<'a, str>,
    #[serde(borrow)]
    t: &'a RawValue,
}

impl Frame {
    /// Reads a frame; `None` for what carries no trade, such as a recorded ping.
    pub(super) fn parse(text: impl Into<Utf8Bytes>) -> Result<Option<Frame>, NotAFrame> {
        let text: Utf8Bytes = text.into();
        let wrong = |error: serde_json::Error| NotAFrame(error.to_string());
        let envelope: Envelope = serde_json::from_str(&text).map_err(wrong)?;
        let Some(data) = envelope.data.filter(|_| envelope.kind == "trade") else { return Ok(None) };
        let elements: Vec<&RawValue> = serde_json::from_str(data.get()).map_err(wrong)?;
        let mut trades = Vec::with_capacity(elements.len());
        for element in elements {
            let element = element.get();
            let Element { s, t } = serde_json::from_str(element).map_err(wrong)?;
            let time = t.get().parse().map_err(|_| NotAFrame(format!("`t` is {}, not milliseconds", t.get())))?;
            trades.push(Trade { symbol: s.into(), element: place(&text, element), time_text: place(&text, t.get()), time });
        }
        let Some(at) = trades.iter().map(|trade| trade.time).max() else { return Ok(None) };
        Ok(Some(Frame { text, at, trades }))
    }

    /// The text of one trade.
    pub(super) fn element(&self, index: usize) -> &str {
        &self.text[self.trades[index].element.clone()]
    }

    /// What a connection with these symbols is shown: the frame itself if all its trades are wanted,
    /// one of the wanted ones otherwise, nothing if there is none.
    pub(super) fn wanted(self: &Arc<Frame>, wants: impl Fn(&str) -> bool) -> Option<Arc<Frame>> {
        let mut kept = Vec::with_capacity(self.trades.len());
        kept.extend((0..self.trades.len()).filter(|&index| wants(&self.trades[index].symbol)));
        match kept.len() {
            0 => None,
            all if all == self.trades.len() => Some(self.clone()),
            _ => Some(Arc::new(self.pick(&kept))),
        }
    }

    /// A frame of these trades of this one, in this order. At least one.
    pub(super) fn pick(&self, indices: &[usize]) -> Frame {
        let first = self.trades.first().map_or(0, |trade| trade.element.start);
        let last = self.trades.last().map_or(first, |trade| trade.element.end);
        let mut text = String::with_capacity(self.text.len());
        text.push_str(&self.text[..first]);
        let mut trades = Vec::with_capacity(indices.len());
        for (place, &index) in indices.iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            let trade = &self.trades[index];
            let moved = |at: usize| at - trade.element.start + text.len();
            let (element, time_text) = (&trade.element, &trade.time_text);
            let places = (moved(element.start)..moved(element.end), moved(time_text.start)..moved(time_text.end));
            text.push_str(self.element(index));
            trades.push(Trade { element: places.0, time_text: places.1, ..trade.clone() });
        }
        text.push_str(&self.text[last..]);
        Frame { text: text.into(), at: self.at, trades }
    }

    /// The same frame with all its trades this much later; `None` past the end of time.
    pub(super) fn retimed(&self, shift: i64) -> Option<Frame> {
        let mut text = String::with_capacity(self.text.len() + 8);
        let mut trades = Vec::with_capacity(self.trades.len());
        let mut copied = 0;
        for trade in &self.trades {
            let time = trade.time.checked_add(shift)?;
            text.push_str(&self.text[copied..trade.element.start]);
            let element = text.len();
            text.push_str(&self.text[trade.element.start..trade.time_text.start]);
            let time_text = text.len();
            text.push_str(&time.to_string());
            let time_text = time_text..text.len();
            text.push_str(&self.text[trade.time_text.end..trade.element.end]);
            copied = trade.element.end;
            trades.push(Trade { symbol: trade.symbol.clone(), element: element..text.len(), time_text, time });
        }
        text.push_str(&self.text[copied..]);
        Some(Frame { text: text.into(), at: self.at.checked_add(shift)?, trades })
    }
}

/// Where `part`, a piece of `whole`, stands in it.
fn place(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn frame(text: &str) -> Arc<Frame> {
        Arc::new(Frame::parse(text).unwrap().unwrap())
    }

    const TWO: &str = r#"{"data":[{"c":null,"p":61836.0,"s":"BINANCE:BTCUSDT","t":1723161255617,"v":9e-05},{"c":["1","12"],"p":164.0601,"s":"AAPL","t":1723161255616,"v":5}],"type":"trade"}"#;

    #[test]
    fn a_frame_that_is_wanted_whole_is_the_same_text() {
        let two = frame(TWO);
        assert_eq!(two.at, 1723161255617);
        assert_eq!(two.wanted(|_| true).unwrap().text, TWO);
        assert!(two.wanted(|_| false).is_none());
        assert_eq!(
            two.wanted(|symbol| symbol.starts_with("BINANCE")).unwrap().text,
            r#"{"data":[{"c":null,"p":61836.0,"s":"BINANCE:BTCUSDT","t":1723161255617,"v":9e-05}],"type":"trade"}"#
        );
    }

    #[test]
    fn only_the_times_move() {
        assert_eq!(frame(TWO).retimed(1000).unwrap().text, TWO.replace("25561", "25661"));
        assert!(frame(TWO).retimed(i64::MAX).is_none());
    }

    #[test]
    fn what_is_no_trade_carries_none() {
        for text in [r#"{"type":"ping"}"#, r#"{"msg":"x","type":"error"}"#, r#"{"data":[],"type":"trade"}"#] {
            assert!(Frame::parse(text).unwrap().is_none(), "{text}");
        }
        for text in ["", "[]", r#"{"data":[1],"type":"trade"}"#, r#"{"data":[{"s":"A"}],"type":"trade"}"#] {
            assert!(Frame::parse(text).is_err(), "{text}");
        }
    }

    /// An element as a server may write it: any order of fields, blanks, strings with escapes.
    fn element() -> impl Strategy<Value = String> {
        let symbol = prop::sample::select(vec!["AAPL", "BINANCE:BTCUSDT", r#"A\u00e9\"B"#, "}],[{", "t"]);
        let number = prop::sample::select(vec!["0", "9e-05", "164.0601", "61836.0", "1E+2", "123456789.12345678"]);
        let c = prop::sample::select(vec![r#""c":["1","12"],"#, r#""c":[],"#, r#""c":null,"#, ""]);
        let blank = prop::sample::select(vec!["", " ", "\n\t"]);
        (symbol, number.clone(), number, c, blank, 0..=2_000_000_000_000_i64, any::<bool>()).prop_map(
            |(s, p, v, c, blank, t, time_first)| match time_first {
                true => format!(r#"{{{blank}"t":{blank}{t}{blank},{c}"p":{p},"s":"{s}","v":{v}}}"#),
                false => format!(r#"{{{c}"p":{p},{blank}"s":"{s}","x":{{"t":1}},"t":{t},"v":{v}{blank}}}"#),
            },
        )
    }

    fn text() -> impl Strategy<Value = String> {
        let frame = (prop::collection::vec(element(), 1..12), prop::sample::select(vec![",", " , "]), any::<bool>());
        frame.prop_map(|(elements, comma, type_last)| match type_last {
            true => format!(r#"{{"data":[{}],"type":"trade"}}"#, elements.join(comma)),
            false => format!(r#"{{ "type" : "trade" , "data" : [ {} ] }}"#, elements.join(comma)),
        })
    }

    fn values(text: &str) -> Vec<Value> {
        let value: Value = serde_json::from_str(text).unwrap();
        value["data"].as_array().unwrap().clone()
    }

    proptest! {
        #[test]
        fn what_is_kept_of_a_frame_parses_to_the_same_trades(text in text()) {
            let whole = frame(&text);
            let wants = |symbol: &str| symbol.starts_with('A');
            let expected: Vec<Value> = values(&text).into_iter().filter(|trade| wants(trade["s"].as_str().unwrap())).collect();
            let kept = whole.wanted(wants);
            prop_assert_eq!(kept.as_ref().map_or(vec![], |kept| values(&kept.text)), expected);
            if let Some(kept) = kept {
                // The places are right as well: they are found again in the new text.
                let again = Frame::parse(kept.text.clone()).unwrap().unwrap();
                prop_assert_eq!(again.trades, kept.trades.clone());
                for (index, trade) in kept.trades.iter().enumerate() {
                    prop_assert!(text.contains(kept.element(index)));
                    prop_assert!(wants(&trade.symbol));
                }
            }
        }

        #[test]
        fn a_moved_frame_differs_in_its_times_only(text in text(), shift in -1_000_000_000_000_i64..1_000_000_000_000) {
            let whole = frame(&text);
            let moved = whole.retimed(shift).unwrap();
            let mut expected = values(&text);
            for trade in &mut expected {
                let time = trade["t"].as_i64().unwrap() + shift;
                trade["t"] = time.into();
            }
            prop_assert_eq!(values(&moved.text), expected);
            prop_assert_eq!(&Frame::parse(moved.text.clone()).unwrap().unwrap(), &moved);
            // Moved back, it is the very same text.
            prop_assert_eq!(moved.retimed(-shift).unwrap().text, whole.text.clone());
        }

        #[test]
        fn an_order_of_trades_is_an_order_of_texts(text in text(), seed in any::<u64>()) {
            let whole = frame(&text);
            let mut order: Vec<_> = (0..whole.trades.len()).collect();
            let places = seed as usize % order.len();
            order.rotate_left(places);
            let turned = whole.pick(&order);
            let texts: Vec<_> = (0..order.len()).map(|index| turned.element(index)).collect();
            let expected: Vec<_> = order.iter().map(|&index| whole.element(index)).collect();
            prop_assert_eq!(texts, expected);
        }
    }
}
