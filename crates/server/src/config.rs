//! What a server allows and how long it waits.
use crate::Error;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Limits, times and batching of a server.
///
/// The defaults take what Search-R1 sends: all queries of a training step in one request, 512 questions x 5 samples = 2,560.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Characters of a query.
    pub max_query_chars: usize,
    /// Queries of a request, at most [`ServerConfig::MOST_QUERIES`].
    pub max_queries: usize,
    /// Hits a query.
    pub max_top_k: usize,
    /// Hits of a request, its queries times its `top_k`. 50,000 x ~800 bytes = 40 MB of answer.
    pub max_hits: usize,
    /// Hits a query where a request to `/retrieve` does not say: 3, as Search-R1's server is started with.
    pub default_top_k: usize,
    /// Bytes of a request's body.
    pub max_body_bytes: usize,
    /// Bytes of all bodies that are being read at a time.
    pub max_bodies_bytes: usize,
    /// Queries that wait or are being searched.
    pub max_queued_queries: usize,
    /// Hits of all answers that are not sent yet. 200,000 x ~800 bytes = 160 MB.
    pub max_unsent_hits: usize,
    /// Open connections.
    pub max_connections: usize,
    /// Queries that are searched in one call, where that many wait.
    pub max_batch: usize,
    /// How long the first query of a batch waits for others while the retriever is idle.
    pub batch_wait_us: u64,
    /// Batches that are searched at a time.
    pub n_searchers: usize,
    /// From a request's head to its answer.
    pub deadline_ms: u64,
    /// From the opening of a connection, or the last answer on it, to the end of the next request's head.
    pub header_timeout_ms: u64,
    /// From a request's head to the end of its body.
    pub body_timeout_ms: u64,
    /// How long a client may take nothing of its answer.
    pub write_timeout_ms: u64,
    /// How long requests in flight may take to finish once the server is told to stop.
    pub drain_ms: u64,
    /// How often the source is asked for a new version; 0 means never.
    pub poll_ms: u64,
    /// Serve on an address that other machines reach, without a token.
    pub insecure: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl ServerConfig {
    /// What is used where nothing is said.
    pub const DEFAULT: Self = Self {
        max_query_chars: 4_096,
        max_queries: 4_096,
        max_top_k: 1_000,
        max_hits: 50_000,
        default_top_k: 3,
        max_body_bytes: 8 << 20,
        max_bodies_bytes: 64 << 20,
        max_queued_queries: 16_384,
        max_unsent_hits: 200_000,
        max_connections: 512,
        max_batch: 128,
        batch_wait_us: 1_000,
        n_searchers: 2,
        deadline_ms: 30_000,
        header_timeout_ms: 30_000,
        body_timeout_ms: 10_000,
        write_timeout_ms: 10_000,
        drain_ms: 20_000,
        poll_ms: 2_000,
        insecure: false,
    };

    /// No server takes more queries in a request than this: so many are kept while a body is read.
    pub const MOST_QUERIES: usize = 65_536;

    /// Errors when a setting makes no sense, or no request could ever be served with it.
    pub fn check(&self) -> Result<(), Error> {
        // A semaphore of tokio counts to usize::MAX >> 3; everything here is far below.
        const MOST: u64 = u32::MAX as u64;
        let between = |name, value: u64, least: u64, most: u64| match value {
            value if (least..=most).contains(&value) => Ok(()),
            value => Err(Error::Config { name, value, least, most }),
        };
        let count = |name, value: usize, least: usize| between(name, value as u64, least as u64, MOST);
        count("max_query_chars", self.max_query_chars, 1)?;
        between("max_queries", self.max_queries as u64, 1, Self::MOST_QUERIES as u64)?;
        count("max_top_k", self.max_top_k, 1)?;
        between("default_top_k", self.default_top_k as u64, 1, self.max_top_k as u64)?;
        count("max_hits", self.max_hits, self.max_top_k)?;
        count("max_body_bytes", self.max_body_bytes, 1)?;
        count("max_bodies_bytes", self.max_bodies_bytes, self.max_body_bytes)?;
        count("max_queued_queries", self.max_queued_queries, self.max_queries)?;
        count("max_unsent_hits", self.max_unsent_hits, self.max_hits)?;
        count("max_connections", self.max_connections, 1)?;
        count("max_batch", self.max_batch, 1)?;
        count("n_searchers", self.n_searchers, 1)?;
        between("batch_wait_us", self.batch_wait_us, 0, 1_000_000)?;
        for (name, value) in [
            ("deadline_ms", self.deadline_ms),
            ("header_timeout_ms", self.header_timeout_ms),
            ("body_timeout_ms", self.body_timeout_ms),
            ("write_timeout_ms", self.write_timeout_ms),
        ] {
            between(name, value, 1, MOST)?;
        }
        between("drain_ms", self.drain_ms, 0, MOST)?;
        between("poll_ms", self.poll_ms, 0, MOST)
    }

    pub(crate) fn batch_wait(&self) -> Duration {
        Duration::from_micros(self.batch_wait_us)
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }

    pub(crate) fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms)
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }

    pub(crate) fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }

    /// The most bytes of a request's head: a query of the most characters, each 4 bytes as `%XX`, and as much again for the
    /// rest; hyper takes no less than 8 KiB.
    pub(crate) fn max_head_bytes(&self) -> usize {
        self.max_query_chars.saturating_mul(12).saturating_add(16 << 10).min(1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_serve_nothing_are_refused() {
        let check = |change: fn(&mut ServerConfig), expect: &str| {
            let mut config = ServerConfig::default();
            change(&mut config);
            assert_eq!(config.check().expect_err("refused").to_string(), expect);
        };
        ServerConfig::default().check().expect("the defaults serve");
        check(|config| config.max_batch = 0, "max_batch is 0, it must be from 1 to 4294967295");
        check(|config| config.max_queries = 100_000, "max_queries is 100000, it must be from 1 to 65536");
        check(|config| config.default_top_k = 2_000, "default_top_k is 2000, it must be from 1 to 1000");
        check(|config| config.max_queued_queries = 10, "max_queued_queries is 10, it must be from 4096 to 4294967295");
        check(|config| config.deadline_ms = 0, "deadline_ms is 0, it must be from 1 to 4294967295");
    }
}
