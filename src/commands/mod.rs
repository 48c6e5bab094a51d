//! The commands: each a file with its arguments and what it does. They hold no logic of their own
//! beyond wiring and words.

use std::process::ExitCode;

pub mod chain;
pub mod check;
pub mod client;
pub mod demo;
pub mod exchange;
pub mod run;
pub mod signals;
pub mod status;
pub mod verify;

/// The documented exit codes, as `--help` shows them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0   done; for verify and demo: nothing lost, nothing doubled; for status: all is well
  1   an error; for verify and demo: something lost or doubled; for check and status: something is wrong
  2   wrong arguments
  69  the daemon gave up: an actor failed more often than a restart can cure
  70  the daemon gave up: a thread is blocked, which only a new process cures
  75  the daemon stopped, and not everything was archived in time (with [kafka]: sent), or a second
      signal ended it at once: the next start goes on with the rest
  78  the config is wrong";

/// Something lost or doubled, or an error.
pub const FAILED: u8 = 1;
/// An actor failed more often than a restart can cure.
pub const GAVE_UP: u8 = 69;
/// A thread is blocked.
pub const BLOCKED: u8 = 70;
/// Stopped before everything was archived.
pub const NOT_DRAINED: u8 = 75;
/// The config is wrong.
pub const CONFIG: u8 = 78;

/// An error and its causes in one line. A cause that the text before it has told already is left out.
pub fn words(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

/// The exit code that an error stands for.
pub fn exit_code_of(error: &anyhow::Error) -> ExitCode {
    let config = error.downcast_ref::<crate::config::ConfigError>().is_some();
    ExitCode::from(if config { CONFIG } else { FAILED })
}

/// Writes to standard output; whether somebody reads it still. A reader that has enough, as `head`, is no error.
pub fn print(text: &str) -> std::io::Result<bool> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

/// Runs a future on a runtime of its own: for the commands that are no daemon.
pub fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("no route").context("it failed: no route").context("cannot start");
        assert_eq!(words(&error), "cannot start: it failed: no route");
    }
}
