//! The fast way into a frame: reads the form that the feed really writes, in one pass.
//!
//! It knows the compact form only: the five known keys in any order, none twice, ASCII strings
//! without escapes, plain non-negative decimals. Of anything else it says nothing (`None`), and the
//! JSON parser decides; so it can never disagree with it, only leave work to it (a property test in
//! `trade` and in `frame` holds it to that).

use std::ops::Range;

use super::trade::{LAST_TIME, SCALE};

/// An element in the form that the feed writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    /// Never empty.
    pub(super) symbol: &'a str,
    /// In units of 10^-8.
    pub(super) price: i64,
    /// In units of 10^-8.
    pub(super) size: i64,
    /// Milliseconds.
    pub(super) time: i64,
    /// The sale conditions.
    pub(super) codes: Codes<'a>,
}

/// Sale conditions as they stand in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codes<'a> {
    /// `null` or absent.
    Unknown,
    /// What stands between the brackets: strings in quotes without escapes, perhaps with spaces between.
    List(&'a str),
}

/// The element that `text` is, from its first byte to its last.
pub(super) fn element(text: &[u8]) -> Option<Element<'_>> {
    let mut scanner = Scanner { text, at: 0 };
    let element = scanner.element()?;
    (scanner.at == text.len()).then_some(element)
}

/// The symbol of an element that can be read, without reading its numbers. Of a text that is none, it may be
/// anything.
pub(super) fn symbol(text: &[u8]) -> Option<&str> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.token(b'{')?;
    loop {
        let key = scanner.quoted()?;
        scanner.token(b':')?;
        match key {
            b"s" => return scanner.string(),
            b"c" => drop(scanner.codes()?),
            b"p" | b"t" | b"v" => scanner.pass_number(),
            _ => return None,
        }
        if !scanner.comma_or(b'}')? {
            return None;
        }
    }
}

/// Hands each element of a frame of trades to `take`, with its place in the frame. `None`, perhaps
/// after some elements: this is no frame in the known form.
pub(super) fn elements<'a>(frame: &'a [u8], mut take: impl FnMut(Range<usize>, Element<'a>)) -> Option<()> {
    let mut scanner = Scanner { text: frame, at: 0 };
    let (mut data, mut kind) = (false, false);
    scanner.token(b'{')?;
    loop {
        let key = scanner.quoted()?;
        scanner.token(b':')?;
        match key {
            b"data" if !data => {
                data = true;
                scanner.list(&mut take)?;
            }
            b"type" if !kind => {
                kind = true;
                (scanner.quoted()? == b"trade").then_some(())?;
            }
            _ => return None,
        }
        if !scanner.comma_or(b'}')? {
            break;
        }
    }
    scanner.skip_space();
    (data && kind && scanner.at == frame.len()).then_some(())
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn next(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Goes past `byte` and the space before it.
    fn token(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        (self.next()? == byte).then(|| self.at += 1)
    }

    /// Goes past a comma (`true`) or the closing bracket (`false`).
    fn comma_or(&mut self, close: u8) -> Option<bool> {
        self.skip_space();
        let next = self.next()?;
        (next == b',' || next == close).then(|| {
            self.at += 1;
            next == b','
        })
    }

    /// A string of printable ASCII without escapes.
    fn string(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.quoted()?).ok()
    }

    /// Its bytes.
    fn quoted(&mut self) -> Option<&'a [u8]> {
        self.token(b'"')?;
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|byte| !matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~'))?;
        (rest[length] == b'"').then_some(())?;
        self.at += length + 1;
        Some(&rest[..length])
    }

    fn list(&mut self, take: &mut impl FnMut(Range<usize>, Element<'a>)) -> Option<()> {
        self.token(b'[')?;
        self.skip_space();
        if self.next()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.skip_space();
            let start = self.at;
            let element = self.element()?;
            take(start..self.at, element);
            if !self.comma_or(b']')? {
                return Some(());
            }
        }
    }

    fn element(&mut self) -> Option<Element<'a>> {
        let (mut symbol, mut price, mut size, mut time, mut codes) = (None, None, None, None, None);
        self.token(b'{')?;
        loop {
            let key = self.quoted()?;
            self.token(b':')?;
            match key {
                b"c" => once(&mut codes, self.codes()?)?,
                b"p" => once(&mut price, self.decimal()?)?,
                b"s" => once(&mut symbol, self.string().filter(|symbol| !symbol.is_empty())?)?,
                b"t" => once(&mut time, self.time()?)?,
                b"v" => once(&mut size, self.decimal()?)?,
                _ => return None,
            }
            if !self.comma_or(b'}')? {
                break;
            }
        }
        let codes = codes.unwrap_or(Codes::Unknown);
        Some(Element { symbol: symbol?, price: price?, size: size?, time: time?, codes })
    }

    fn codes(&mut self) -> Option<Codes<'a>> {
        self.skip_space();
        if self.text[self.at..].starts_with(b"null") {
            self.at += 4;
            return Some(Codes::Unknown);
        }
        self.token(b'[')?;
        let start = self.at;
        self.skip_space();
        if self.next()? != b']' {
            loop {
                self.quoted()?;
                self.skip_space();
                match self.next()? {
                    b',' => self.at += 1,
                    b']' => break,
                    _ => return None,
                }
            }
        }
        self.at += 1;
        std::str::from_utf8(&self.text[start..self.at - 1]).ok().map(Codes::List)
    }

    /// Goes to the end of a number, or of what stands in its place.
    fn pass_number(&mut self) {
        self.skip_space();
        while !matches!(self.next(), None | Some(b',' | b'}' | b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Digits without a needless zero before them; at most 18, so that they fit.
    fn whole(&mut self, most: usize) -> Option<i64> {
        let start = self.at;
        let value = self.digits(0, most)?;
        let needless = self.at - start > 1 && self.text[start] == b'0';
        (!needless).then_some(value)
    }

    /// Appends one digit or more, at most `most`, to a number.
    fn digits(&mut self, mut value: i64, most: usize) -> Option<i64> {
        let start = self.at;
        while let Some(digit @ b'0'..=b'9') = self.next() {
            if self.at - start == most {
                return None;
            }
            value = value * 10 + i64::from(digit - b'0');
            self.at += 1;
        }
        (self.at > start).then_some(value)
    }

    /// A decimal with at most ten digits before and eight behind the point, in units of 10^-8.
    fn decimal(&mut self) -> Option<i64> {
        const SCALED: [i64; SCALE as usize + 1] = [100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];
        self.skip_space();
        let whole = self.whole(10)?;
        if self.next()? != b'.' {
            return self.ends_here(whole * SCALED[0]);
        }
        self.at += 1;
        let point = self.at;
        let digits = self.digits(whole, SCALE as usize)?;
        self.ends_here(digits * SCALED[self.at - point])
    }

    fn time(&mut self) -> Option<i64> {
        self.skip_space();
        let time = self.whole(15)?;
        self.ends_here(time).filter(|time| *time <= LAST_TIME)
    }

    /// Whether the number that was read ends here: no exponent, no point.
    fn ends_here(&self, value: i64) -> Option<i64> {
        matches!(self.next()?, b',' | b'}' | b' ' | b'\t' | b'\n' | b'\r').then_some(value)
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}
