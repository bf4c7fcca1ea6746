//! Web search as a retriever: a page is a passage, its address the id, its snippet the text.
//!
//! A SearXNG-compatible server, or the APIs of Serper, Brave and Tavily. A query whose first answer has fewer pages than are
//! wanted is asked for the next ones, up to five times, where the provider has next ones. Answers are kept on disk when a folder
//! is given, and the number of requests of one run is bounded, since most of these are paid for.
mod disk_cache;
mod provider;

use crate::Error;
use disk_cache::{DiskCache, Key};
use exsearch_http::{Client, HttpConfig, HttpError, Secret, check_url, in_parallel};
use exsearch_schema::{Hit, RetrieveError, Retriever};
use provider::Found;
pub use provider::Provider;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Searches the web.
pub struct WebSearch {
    provider: Provider,
    url: String,
    key: Option<Secret>,
    client: Client,
    cache: Option<DiskCache>,
    max_requests: u64,
    n_requests: AtomicU64,
    max_concurrent: usize,
}

/// What a web search keeps to.
#[derive(Clone, Copy, Debug)]
pub struct WebLimits<'a> {
    /// Where answers are kept; without it every query is asked.
    pub cache_dir: Option<&'a Path>,
    /// How many requests may be sent, attempts and further pages of results counted one by one; answers from the cache are
    /// none. Where it ends between the pages of one query, the hits of the first are its answer, and are not kept.
    pub max_requests: u64,
}

impl WebSearch {
    /// A client of `provider`; `url` in place of its public address. Errors without a key where the provider needs one.
    pub fn new(
        provider: Provider,
        url: Option<&str>,
        key: Option<Secret>,
        limits: WebLimits<'_>,
        config: &HttpConfig,
    ) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::InvalidConfig {
            what: format!("web search by {provider}"),
            reason: reason.to_owned(),
        };
        let url = url.or(provider.public_url()).ok_or_else(|| refuse("give the url of a server"))?;
        check_url(url)?;
        if provider.needs_key() && key.as_ref().is_none_or(|key| key.expose().is_empty()) {
            return Err(refuse("it needs a key; name its variable in key_env or its file in key_file"));
        }
        let cache = limits.cache_dir.map(DiskCache::open).transpose()?;
        Ok(Self {
            provider,
            url: url.to_owned(),
            key,
            client: Client::new(config)?,
            cache,
            max_requests: limits.max_requests,
            n_requests: AtomicU64::new(0),
            max_concurrent: config.max_concurrent,
        })
    }

    /// How many requests were sent so far.
    pub fn n_requests(&self) -> u64 {
        self.n_requests.load(Ordering::Relaxed).min(self.max_requests)
    }

    fn search_one(&self, query: &str, top_k: usize) -> Result<Vec<Hit>, RetrieveError> {
        if query.trim().is_empty() {
            return Err(RetrieveError::EmptyQuery);
        }
        if top_k == 0 {
            return Ok(Vec::new());
        }
        let key = Key { provider: self.provider, url: &self.url, query, top_k };
        if let Some(hits) = self.cache.as_ref().and_then(|cache| cache.get(&key)) {
            return Ok(hits);
        }
        let failed = |error: String| RetrieveError::Failed(format!("{}: {error}", self.provider));
        let Found { hits, is_whole } = self
            .provider
            .ask(&self.client, &self.url, self.key.as_ref(), (query, top_k), || self.take_request())
            .map_err(|error| failed(error.to_string()))?;
        if let Some(cache) = self.cache.as_ref().filter(|_| is_whole) {
            cache.put(&key, &hits).map_err(|error| failed(format!("its answer could not be kept: {error}")))?;
        }
        Ok(hits)
    }

    fn take_request(&self) -> Result<(), HttpError> {
        // Adding past the limit is harmless: u64 does not overflow in any run.
        match self.n_requests.fetch_add(1, Ordering::Relaxed) {
            n_before if n_before < self.max_requests => Ok(()),
            _ => Err(HttpError::Budget { max_requests: self.max_requests }),
        }
    }
}

impl Retriever for WebSearch {
    /// Scores are 1 / rank: the providers' own, where they give any, cannot be compared between queries. Equal queries of a
    /// batch are asked once.
    fn search_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
        let mut positions = HashMap::new();
        let mut distinct: Vec<&str> = Vec::new();
        for query in queries {
            positions.entry(*query).or_insert_with(|| {
                distinct.push(query);
                distinct.len() - 1
            });
        }
        let answers = in_parallel(distinct.len(), self.max_concurrent, |at| self.search_one(distinct[at], top_k));
        queries.iter().map(|query| answers[positions[query]].clone()).collect()
    }
}
