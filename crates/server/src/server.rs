//! A listening server: connections in, graceful end.
use crate::batch::Batcher;
use crate::current::{Current, Source};
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::routes::{Shared, router};
use crate::stream::PatientStream;
use crate::{Error, ServerConfig, Token};
use axum::Router;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, timeout};

/// A server that listens. It is alive at once and ready when its first [`Server::reload`] is done.
pub struct Server {
    address: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    polling: JoinHandle<()>,
}

/// Connections past the limit that are told so at a time; those past that are closed without a word.
const MAX_TURNED_AWAY: usize = 32;
/// How long a connection past the limit may take to ask.
const TURN_AWAY_TIME: Duration = Duration::from_secs(1);
/// The pause after the system had no file for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const MAX_HEADERS: usize = 64;

impl Server {
    /// Listens on `address`; port 0 takes a free one. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When a setting makes no sense, the address is taken, or other machines reach it and there is no token (unless
    /// [`ServerConfig::insecure`]).
    pub async fn start(
        address: SocketAddr,
        config: ServerConfig,
        token: Option<Token>,
        source: Arc<dyn Source>,
    ) -> Result<Self, Error> {
        config.check()?;
        if !address.ip().is_loopback() && token.is_none() && !config.insecure {
            return Err(Error::Unprotected { address });
        }
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })?;
        let address = listener.local_addr().map_err(|source| Error::Bind { address, source })?;
        let config = Arc::new(config);
        let metrics = Arc::new(Metrics::default());
        let batcher = Batcher::start(config.clone(), metrics.clone());
        let current = Current::new(source, metrics.clone());
        let shared = Arc::new(Shared::new(config, token, current, metrics, batcher));
        let (stop, stopped) = watch::channel(false);
        let accepting = tokio::spawn(accept_all(listener, shared.clone(), stopped.clone()));
        let polling = tokio::spawn(poll(shared.clone(), stopped));
        Ok(Self { address, shared, stop, accepting, polling })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens the newest version of the index; requests that come afterwards get it. Returns its generation: 1 for the
    /// first, one more for each after it.
    ///
    /// # Errors
    /// When the source fails. A version that is open goes on to serve.
    pub async fn reload(&self) -> Result<u64, Error> {
        self.shared.current.reload().await
    }

    /// Takes no more connections, lets requests in flight finish for [`ServerConfig::drain_ms`] and cuts off the rest.
    pub async fn stop(self) {
        self.shared.is_stopping.store(true, Relaxed);
        let _ = self.stop.send(true);
        let _ = self.accepting.await;
        self.polling.abort();
    }
}

/// Looks for new versions of the index.
async fn poll(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    if shared.config.poll_ms == 0 {
        return;
    }
    let mut ticks = interval(Duration::from_millis(shared.config.poll_ms));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            _ = ticks.tick() => {}
        }
        // The first version is opened by whoever started the server, who wants to know if it fails.
        if shared.current.get().is_some() {
            shared.current.reload_if_changed().await;
        }
    }
}

async fn accept_all(listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let router = router(shared.clone());
    let room = Arc::new(Semaphore::new(shared.config.max_connections));
    let doorway = Arc::new(Semaphore::new(MAX_TURNED_AWAY));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stopped.changed() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // A client that left before it was let in is none of our business; too many open files passes.
                tracing::debug!(%error, "a connection was not accepted");
                let _ = timeout(ACCEPT_PAUSE, stopped.changed()).await;
                if *stopped.borrow() {
                    break;
                }
                continue;
            }
        };
        // Answers are written whole: waiting for more to send only delays them.
        let _ = stream.set_nodelay(true);
        if let Ok(permit) = room.clone().try_acquire_owned() {
            serve_connection(stream, permit, &shared, &router, &graceful, &mut connections);
        } else {
            shared.metrics.connections_refused.fetch_add(1, Relaxed);
            if let Ok(permit) = doorway.clone().try_acquire_owned() {
                connections.spawn(turn_away(stream, permit, shared.config.clone()));
            }
        }
    }
    drop(listener);
    if timeout(shared.config.drain(), graceful.shutdown()).await.is_err() {
        tracing::warn!(n_connections = connections.len(), "cut off what had not finished in time");
    }
    connections.shutdown().await;
}

fn serve_connection(
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    shared: &Arc<Shared>,
    router: &Router,
    graceful: &GracefulShutdown,
    connections: &mut JoinSet<()>,
) {
    let service = TowerToHyperService::new(router.clone());
    let stream = TokioIo::new(PatientStream::new(stream, shared.config.write_timeout()));
    let connection = http(&shared.config, shared.config.header_timeout()).serve_connection(stream, service);
    let connection = graceful.watch(connection);
    let shared = shared.clone();
    connections.spawn(async move {
        let _open = shared.metrics.connections.hold(1);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended");
        }
        drop(permit);
    });
}

/// Answers one request with 503.
async fn turn_away(stream: TcpStream, permit: OwnedSemaphorePermit, config: Arc<ServerConfig>) {
    let limit = config.max_connections;
    let refuse = service_fn(move |_| async move {
        Ok::<Response, Infallible>(Refusal::Busy { what: "connections", limit }.into_response())
    });
    let connection = http(&config, TURN_AWAY_TIME).keep_alive(false).serve_connection(TokioIo::new(stream), refuse);
    let _ = timeout(2 * TURN_AWAY_TIME, connection).await;
    drop(permit);
}

fn http(config: &ServerConfig, header_timeout: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(header_timeout);
    http.max_buf_size(config.max_head_bytes()).max_headers(MAX_HEADERS);
    http
}
