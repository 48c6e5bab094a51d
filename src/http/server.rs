//! The server itself: one worker on a thread of its own.

use std::io;
use std::net::{SocketAddr, TcpListener};

use actix_web::body::MessageBody;
use actix_web::dev::{ServerHandle, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::error::QueryPayloadError;
use actix_web::http::StatusCode;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, QueryConfig};
use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer};

use super::guard::{error, guard};
use super::{State, api, health, page};
use crate::config::HttpConfig;

/// How long requests that are under way may take when it stops.
const STOP_SECONDS: u64 = 2;

/// Open connections, at most: it serves people and probes, not crowds.
const CONNECTIONS: usize = 256;

/// Why it cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Somebody else does.
    #[error(
        "`http.listen` is `{0}`, where another program listens already (another tickmint?): \
         stop it, or choose another port, such as `{free}`",
        free = SocketAddr::new(.0.ip(), .0.port().checked_add(1).unwrap_or(8080))
    )]
    InUse(SocketAddr),
    /// The system forbids it.
    #[error("`http.listen` is `{0}`, which this user may not listen on: choose a port above 1023, such as `{ip}:8080`", ip = .0.ip())]
    Forbidden(SocketAddr),
    /// The machine has no such address, or something else.
    #[error(
        "`http.listen` is `{listen}`, where nothing can listen ({source}): use an address of this machine, such as `127.0.0.1:8080`"
    )]
    Other {
        /// Where.
        listen: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// Takes the port. Done before anything is started, so that a port in use is told at once.
pub fn bind(config: &HttpConfig) -> Result<TcpListener, HttpError> {
    let listen = config.listen;
    TcpListener::bind(listen).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => HttpError::InUse(listen),
        io::ErrorKind::PermissionDenied => HttpError::Forbidden(listen),
        _ => HttpError::Other { listen, source },
    })
}

/// A running server.
pub struct Server {
    /// Where it listens: with port 0 in the config, this tells which one it got.
    pub address: SocketAddr,
    handle: ServerHandle,
    running: tokio::task::JoinHandle<io::Result<()>>,
}

/// Binds and serves. Needs an actix system.
pub fn start(config: &HttpConfig, state: State) -> Result<Server, HttpError> {
    let listen = config.listen;
    serve(bind(config)?, state).map_err(|source| HttpError::Other { listen, source })
}

/// Serves on a port that was taken.
pub(super) fn serve(listener: TcpListener, state: State) -> io::Result<Server> {
    let address = listener.local_addr()?;
    let server = HttpServer::new(move || app(state.clone()))
        .workers(1)
        .max_connections(CONNECTIONS)
        .disable_signals()
        .shutdown_timeout(STOP_SECONDS)
        .listen(listener)?
        .run();
    let handle = server.handle();
    Ok(Server { address, handle, running: tokio::spawn(server) })
}

impl Server {
    /// Can stop it from elsewhere.
    pub(super) fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Resolves when it has ended, with the reason.
    pub async fn ended(self) -> String {
        match self.running.await {
            Ok(Ok(())) => "the web server has ended".into(),
            Ok(Err(error)) => format!("the web server has ended: {error}"),
            Err(error) => format!("the web server has died: {error}"),
        }
    }

    /// Lets the requests that are under way finish, and ends.
    pub async fn stop(self) {
        self.handle.stop(true).await;
    }
}

/// All routes, behind the guard.
pub(super) fn app(
    state: State,
) -> App<
    impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<impl MessageBody>, Error = Error, InitError = ()>,
> {
    App::new()
        .app_data(Data::new(state))
        .app_data(QueryConfig::default().error_handler(bad_query))
        .wrap(from_fn(guard))
        .service(page::page)
        .service(health::livez)
        .service(health::readyz)
        .service(health::health)
        .service(health::metrics)
        .service(api::pipeline)
        .service(api::newest_bars)
        .default_service(web::to(not_found))
}

async fn not_found(request: HttpRequest) -> HttpResponse {
    let text = format!(
        "there is no `{}`: see `/`, `/health`, `/readyz`, `/livez`, `/metrics`, `/api/pipeline`, `/api/bars`",
        request.path()
    );
    error(StatusCode::NOT_FOUND, &text)
}

fn bad_query(why: QueryPayloadError, _: &HttpRequest) -> Error {
    let text = format!("{why}: known are `symbol`, `limit` and `per_symbol`, the last two as numbers");
    let answer = error(StatusCode::BAD_REQUEST, &text);
    actix_web::error::InternalError::from_response(why, answer).into()
}
