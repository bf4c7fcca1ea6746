//! Why a server did not start, or a new version was not taken.
use crate::BoxError;
use std::io;
use std::net::SocketAddr;

/// Why a server did not start or reload. What goes wrong with a single request is answered, never returned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is out of its range.
    #[error("{name} is {value}, it must be from {least} to {most}")]
    Config {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The least it may be, given the others.
        least: u64,
        /// The most it may be.
        most: u64,
    },
    /// Other machines could reach the server, and nothing would keep them from using it.
    #[error(
        "{address} can be reached from other machines; give a bearer token (--bearer-token-file or EXSEARCH_SERVE_TOKEN), or say --insecure if that is wanted"
    )]
    Unprotected {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The address could not be listened on.
    #[error("cannot listen on {address}; it may be in use, choose another port")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The system gave no threads or no signals.
    #[error("cannot start the server")]
    System(#[from] io::Error),
    /// The source gave no retriever. A server that has one goes on with it.
    #[error("cannot open the index to serve")]
    Open(#[source] BoxError),
    /// A bearer token cannot be sent in a header.
    #[error("a bearer token is 1 to 4096 visible ASCII characters without spaces; this one is not")]
    Token,
}
