//! A server as a process: runs until it is told to stop, and reloads when it is told to.
use crate::{Error, Server, ServerConfig, Source, Token};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Serves until SIGTERM or SIGINT (Ctrl-C elsewhere), then lets requests in flight finish; a second one ends it at once.
/// SIGHUP opens the newest version of the index. `ready` is called with the address once the index is open.
///
/// # Errors
/// When the server does not start or the index cannot be opened at first.
pub fn serve(
    address: SocketAddr,
    config: ServerConfig,
    token: Option<Token>,
    source: Arc<dyn Source>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("serve").build()?;
    let served = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let server = Server::start(address, config, token, source).await?;
        tokio::select! {
            opened = server.reload() => { opened?; }
            () = signals.stop() => return Ok(()),
        }
        ready(server.address());
        while signals.next().await == Signal::Reload {
            let shared = server.shared.clone();
            // What goes wrong is logged, and the old version serves on.
            tokio::spawn(async move { shared.current.reload().await.is_ok() });
        }
        tracing::info!("stopping");
        tokio::select! {
            () = server.stop() => {}
            () = signals.stop() => {}
        }
        Ok(())
    });
    // A search that outlived the drain cannot be interrupted, and nobody waits for it.
    runtime.shutdown_timeout(Duration::ZERO);
    served
}

#[derive(PartialEq, Eq)]
enum Signal {
    Stop,
    Reload,
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::Stop,
            // No signals to be had: only killing the process ends it.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Signals {
    /// Waits for a signal to stop; one to reload is passed over.
    async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }
}
