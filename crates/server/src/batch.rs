//! Queries of many requests to few calls of the retriever.
//!
//! Requests put their queries into one line. Whenever a searcher is free, it takes what waits there, up to
//! [`ServerConfig::max_batch`] queries: under load batches form by themselves, and only an idle server waits
//! [`ServerConfig::batch_wait_us`] for more. Those that nobody waits for any more are thrown out before they are searched.
//! A call holds queries of one index version and one `top_k` only, since what a retriever finds first may depend on how
//! much it is asked for: fusion and reranking look as deep as that asks, and a search of lists takes as many candidates. Where it
//! does not, as with words, one call with the largest `top_k` would still read the text of a thousand passages for each query
//! that wants three, and hold hits that [`ServerConfig::max_unsent_hits`] has not counted.
use crate::ServerConfig;
use crate::current::Loaded;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use exsearch_schema::{Hit, RetrieveError};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

type Found = Vec<Result<Vec<Hit>, RetrieveError>>;

/// The line of queries. Searching ends when it is dropped.
pub(crate) struct Batcher {
    line: mpsc::UnboundedSender<Job>,
    /// A permit for each query that waits or is being searched.
    room: Arc<Semaphore>,
    config: Arc<ServerConfig>,
    metrics: Arc<Metrics>,
}

/// Queries of one request, at most a batch of them.
struct Job {
    loaded: Arc<Loaded>,
    queries: Vec<String>,
    top_k: usize,
    deadline: Instant,
    since: Instant,
    reply: oneshot::Sender<Found>,
    _place: Place,
}

/// Given back when the queries are searched or thrown out.
struct Place {
    _room: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
    n_queries: usize,
}

impl Batcher {
    /// Starts searching on the runtime's blocking threads.
    pub(crate) fn start(config: Arc<ServerConfig>, metrics: Arc<Metrics>) -> Self {
        let (line, waiting) = mpsc::unbounded_channel();
        tokio::spawn(search_all(waiting, config.clone(), metrics.clone()));
        let room = Arc::new(Semaphore::new(config.max_queued_queries));
        Self { line, room, config, metrics }
    }

    /// What is found for each query, in their order. Dropping the future withdraws what is not being searched yet.
    pub(crate) async fn search(
        &self,
        loaded: Arc<Loaded>,
        mut queries: Vec<String>,
        top_k: usize,
        deadline: Instant,
    ) -> Result<Found, Refusal> {
        let n_queries = queries.len();
        let Ok(mut room) = self.room.clone().try_acquire_many_owned(n_queries as u32) else {
            return Err(Refusal::Busy { what: "queries", limit: self.config.max_queued_queries });
        };
        let since = Instant::now();
        let mut replies = Vec::with_capacity(n_queries.div_ceil(self.config.max_batch));
        while !queries.is_empty() {
            let rest = queries.split_off(self.config.max_batch.min(queries.len()));
            let part = std::mem::replace(&mut queries, rest);
            let permit = room.split(part.len()).expect("a permit for each query");
            let (reply, found) = oneshot::channel();
            replies.push(found);
            let _place = Place::new(permit, &self.metrics, part.len());
            let job = Job { loaded: loaded.clone(), queries: part, top_k, deadline, since, reply, _place };
            self.line.send(job).map_err(|_| Refusal::Failed)?;
        }
        let mut found = Vec::with_capacity(n_queries);
        for reply in replies {
            match timeout_at(deadline, reply).await {
                Ok(Ok(part)) => found.extend(part),
                // The retriever panicked.
                Ok(Err(_)) => return Err(Refusal::Failed),
                Err(_) => return Err(Refusal::Deadline { limit_ms: self.config.deadline_ms }),
            }
        }
        Ok(found)
    }
}

/// Takes batches off the line until all [`Batcher`]s are gone.
async fn search_all(mut line: mpsc::UnboundedReceiver<Job>, config: Arc<ServerConfig>, metrics: Arc<Metrics>) {
    let searchers = Arc::new(Semaphore::new(config.n_searchers));
    let mut left_over = None;
    loop {
        let searcher = searchers.clone().acquire_owned().await.expect("the semaphore is never closed");
        let first = match left_over.take() {
            Some(job) => job,
            None => match line.recv().await {
                Some(job) => job,
                None => return,
            },
        };
        let closes_at = first.since + config.batch_wait();
        let mut n_queries = first.queries.len();
        let mut batch = vec![first];
        while n_queries < config.max_batch {
            // What is in the line already is taken even when the time is over.
            let Ok(Some(job)) = timeout_at(closes_at, line.recv()).await else { break };
            if n_queries + job.queries.len() > config.max_batch {
                left_over = Some(job);
                break;
            }
            n_queries += job.queries.len();
            batch.push(job);
        }
        let metrics = metrics.clone();
        tokio::task::spawn_blocking(move || {
            search_batch(batch, &metrics);
            drop(searcher);
        });
    }
}

/// Searches the jobs that are still waited for, those of one version and one `top_k` together.
fn search_batch(mut batch: Vec<Job>, metrics: &Metrics) {
    while !batch.is_empty() {
        batch.retain(|job| is_waited_for(job, metrics));
        let Some(first) = batch.first() else { return };
        let (generation, top_k) = (first.loaded.generation, first.top_k);
        let is_alike = |job: &mut Job| job.loaded.generation == generation && job.top_k == top_k;
        let group: Vec<Job> = batch.extract_if(.., is_alike).collect();
        let queries: Vec<&str> = group.iter().flat_map(|job| job.queries.iter().map(String::as_str)).collect();
        let started = Instant::now();
        let found = group[0].loaded.retriever.search_batch(&queries, top_k);
        assert_eq!(found.len(), queries.len(), "a retriever has one result a query");
        metrics.searched(queries.len(), started.elapsed());
        let mut found = found.into_iter();
        for job in group {
            let part = found.by_ref().take(job.queries.len()).collect();
            // Whoever has left in the meantime needs no answer.
            let _ = job.reply.send(part);
        }
    }
}

fn is_waited_for(job: &Job, metrics: &Metrics) -> bool {
    let counter = if job.reply.is_closed() {
        // A request that passed its deadline has closed it, too.
        if job.deadline <= Instant::now() { &metrics.dropped_late } else { &metrics.dropped_gone }
    } else if job.deadline <= Instant::now() {
        &metrics.dropped_late
    } else {
        return true;
    };
    counter.fetch_add(job.queries.len() as u64, Relaxed);
    false
}

impl Place {
    fn new(room: OwnedSemaphorePermit, metrics: &Arc<Metrics>, n_queries: usize) -> Self {
        metrics.queued_queries.add(n_queries as i64);
        Self { _room: room, metrics: metrics.clone(), n_queries }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.queued_queries.add(-(self.n_queries as i64));
    }
}
