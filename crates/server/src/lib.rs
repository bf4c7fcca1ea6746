//! A retriever over HTTP, by the two protocols that published systems speak, so that they can point at it unchanged.
//!
//! ```text
//! GET  /api/search?query=..&k=..    the ColBERT server's, which the reference code asks
//! POST /retrieve                    Search-R1's, which verl, SkyRL and others ask too
//! GET  /health  /ready  /metrics    alive, index open, Prometheus text
//!
//! connection (server, stream) -> route (routes) -> request (protocol) -> batch (batch) -> Retriever -> answer (protocol)
//!                                                                             ^ the version open now (current)
//! ```
//! Whatever a client does, memory is bounded: by the number of connections, the bytes of bodies, the queries that wait and
//! the hits that are not yet sent ([`ServerConfig`]). An answer never depends on what else is asked at the time: queries
//! share a call of [`exsearch_schema::Retriever::search_batch`] only with those of the same `top_k` and index version.
//!
//! Knows nothing of files or models: where a retriever comes from is a [`Source`].
mod batch;
mod config;
mod current;
mod error;
mod metrics;
mod protocol;
mod refusal;
mod routes;
mod server;
mod signals;
mod stream;
mod token;

pub use config::ServerConfig;
pub use current::{BoxError, Source};
pub use error::Error;
pub use server::Server;
pub use signals::serve;
pub use token::Token;
