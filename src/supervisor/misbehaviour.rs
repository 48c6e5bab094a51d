//! What a test makes an actor do wrong, through the fail point `actor:{path}`: `return(panic)`,
//! `return(hang)`, or `return(5000)` to block its thread for so many milliseconds.

use std::future::pending;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::prelude::*;

use super::child::Child;

/// Does what is asked of the actor at `path` now, inside of its own context.
///
/// # Panics
/// If what is asked is none of the three.
pub(super) fn ask<A: Child>(ctx: &mut Context<A>, path: &str) {
    let point = format!("actor:{path}");
    let asked = || {
        fail::fail_point!(point.as_str(), |what| what);
        None
    };
    match asked().as_deref() {
        None => {}
        Some("panic") => drop(ctx.spawn(wrap_future(async { panic!("as a test asked") }))),
        Some("hang") => ctx.wait(wrap_future(pending())),
        Some(time) => {
            let time = Duration::from_millis(time.parse().expect("panic, hang or milliseconds"));
            #[expect(clippy::disallowed_methods, reason = "to block the thread is what is asked")]
            ctx.spawn(wrap_future(async move { std::thread::sleep(time) }));
        }
    }
}
