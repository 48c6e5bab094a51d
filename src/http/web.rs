//! The web server as an actor of the tree.
//!
//! In: nothing. Out: nothing; requests come over the socket, which is taken before the tree is
//! planted and kept over restarts. After a restart a new server listens on the same socket.

use std::net::TcpListener;
use std::sync::Arc;

use actix::fut::{LocalBoxActorFuture, wrap_future};
use actix::prelude::*;
use actix_web::dev::ServerHandle;

use super::State;
use super::server::serve;
use crate::supervisor::{Child, Vitals};

/// See the module.
pub struct Web {
    vitals: Arc<Vitals>,
    listener: TcpListener,
    state: State,
    server: Option<ServerHandle>,
}

impl Web {
    /// Serves on a socket of [`super::server::bind`].
    pub fn new(vitals: Arc<Vitals>, listener: TcpListener, state: State) -> Web {
        Web { vitals, listener, state, server: None }
    }
}

impl Actor for Web {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let server = match self.listener.try_clone().and_then(|listener| serve(listener, self.state.clone())) {
            Ok(server) => server,
            Err(error) => {
                self.vitals.fail(format!("the web server does not start: {error}"));
                return ctx.stop();
            }
        };
        self.vitals.note("listens", format!("http://{}", server.address));
        self.server = Some(server.handle());
        ctx.spawn(wrap_future::<_, Self>(server.ended()).map(|reason, web, ctx| {
            // While it drains, it is meant to end.
            if web.server.is_some() {
                web.vitals.fail(reason);
                ctx.stop();
            }
        }));
    }
}

impl Supervised for Web {
    fn restarting(&mut self, _: &mut Self::Context) {
        if let Some(server) = self.server.take() {
            // Told at once; that it has ended need not be waited for.
            drop(server.stop(false));
        }
    }
}

impl Child for Web {
    fn drain(&mut self, _: &mut Context<Self>) -> LocalBoxActorFuture<Self, ()> {
        let server = self.server.take();
        Box::pin(wrap_future(async move {
            if let Some(server) = server {
                server.stop(true).await;
            }
        }))
    }
}

/// Has a test see what comes after a panic.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Crash;

#[cfg(test)]
impl Handler<Crash> for Web {
    type Result = ();

    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("a test's panic");
    }
}
