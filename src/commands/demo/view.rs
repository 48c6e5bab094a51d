//! What the demo shows in the terminal: a line that moves, and the summary at the end.

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::Instant;

use super::parts::Use;
use crate::audit::report::Report;
use crate::commands::verify;
use crate::warehouse::gold::Bar;

/// Without a terminal, how things stand is a line so often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// One line that moves, on a terminal; plain lines elsewhere.
pub(super) struct View {
    bar: ProgressBar,
    began: Instant,
    next_line: Instant,
}

impl View {
    pub(super) fn new() -> View {
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::with_template("{spinner} {elapsed_precise} {wide_msg}").expect("the template is fixed"));
        bar.enable_steady_tick(Duration::from_millis(120));
        View { bar, began: Instant::now(), next_line: Instant::now() + LINE_EVERY }
    }

    /// A line that stays.
    pub(super) fn say(&self, text: &str) {
        let line = format!("{:>6.1} s  {text}", self.began.elapsed().as_secs_f64());
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// How far everything is.
    pub(super) fn show(&mut self, exchange: &Value, pipeline: &Value) {
        let text = counts(exchange, pipeline);
        if self.bar.is_hidden() && Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE_EVERY;
            self.say(&text);
        }
        self.bar.set_message(text);
    }

    /// Takes the moving line away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn counts(exchange: &Value, pipeline: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let rows = &pipeline["silver"]["latest"]["rows"];
    format!(
        "sent {} | durable {} | Bronze {} | Silver {} | bars {}",
        number(&exchange["trades_sent"]),
        number(&pipeline["spool"]["records"]["trades"]),
        number(&pipeline["bronze"]["trades"]["records"]),
        number(&rows["silver.trades"]),
        number(&rows["gold.ohlc_1m"]),
    )
}

/// What came of it all.
#[expect(clippy::print_stdout, reason = "the summary is the output")]
pub(super) fn summary(dir: &Path, report: &Report, bars: &[Bar], view: &View, use_of: &Use) {
    if !bars.is_empty() {
        println!("{}", table(bars));
    }
    println!("{}", verify::text(report));
    println!("{:>13}  {:>9.1} s  in all, the audit included", "took", view.began.elapsed().as_secs_f64());
    println!(
        "{:>13}  {:>9.2} s  of the daemon: {:.0} trades a CPU second",
        "CPU",
        use_of.cpu,
        report.durable as f64 / use_of.cpu.max(0.01)
    );
    println!("{:>13}  {:>7.0} MiB  of the daemon at its peak", "memory", use_of.memory as f64 / f64::from(1 << 20));
    println!("\nEverything is kept in {}; the next demo goes on with it.", dir.display());
}

/// The newest bars.
fn table(bars: &[Bar]) -> String {
    let mut text = format!(
        "{:>16}  {:<16} {:>12} {:>12} {:>12} {:>12} {:>12} {:>7}",
        "newest bars", "minute, UTC", "open", "high", "low", "close", "volume", "trades"
    );
    for bar in bars {
        let decimal = |value: &Option<Box<str>>| value.as_deref().map_or("-", short).to_string();
        let minute = jiff::Timestamp::from_microsecond(bar.bucket_start)
            .map_or_else(|_| "?".into(), |time| time.strftime("%F %H:%M").to_string());
        text.push_str(&format!(
            "\n{:>16}  {minute:<16} {:>12} {:>12} {:>12} {:>12} {:>12} {:>7}",
            bar.symbol,
            decimal(&bar.open),
            decimal(&bar.high),
            decimal(&bar.low),
            decimal(&bar.close),
            decimal(&bar.volume),
            bar.trades,
        ));
    }
    text + "\n"
}

/// A decimal without the zeros at its end.
fn short(decimal: &str) -> &str {
    if decimal.contains('.') { decimal.trim_end_matches('0').trim_end_matches('.') } else { decimal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_lose_only_what_says_nothing() {
        assert_eq!(
            [short("100.50000000"), short("100.00000000"), short("100"), short("0.00000001")],
            ["100.5", "100", "100", "0.00000001"]
        );
    }
}
