//! The retriever that is open now, and how a newer one takes its place while requests go on.
//!
//! A request keeps the version that it started with: it holds an `Arc` of it, and the old one is closed with the last of
//! them. A version that cannot be opened changes nothing.
use crate::Error;
use crate::metrics::Metrics;
use exsearch_schema::Retriever;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;

/// Any error of a [`Source`].
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where the retriever to serve comes from. Both are called on threads that may block.
pub trait Source: Send + Sync + 'static {
    /// Opens the version that is newest now.
    fn open(&self) -> Result<Arc<dyn Retriever>, BoxError>;

    /// Says which version [`Source::open`] would open: another text for another version. Cheap; asked every few seconds.
    fn fingerprint(&self) -> Result<String, BoxError>;
}

/// One version of the index, open.
pub(crate) struct Loaded {
    pub(crate) retriever: Arc<dyn Retriever>,
    /// 1 for the first, one more for each after it.
    pub(crate) generation: u64,
    /// `None` when the source could not say.
    fingerprint: Option<String>,
}

/// The version that new requests get.
pub(crate) struct Current {
    source: Arc<dyn Source>,
    metrics: Arc<Metrics>,
    slot: RwLock<Option<Arc<Loaded>>>,
    /// Held while a version is opened: one at a time.
    failure: tokio::sync::Mutex<Option<Failure>>,
}

/// A version that could not be opened.
struct Failure {
    fingerprint: Option<String>,
    retry_at: Instant,
    delay: Duration,
}

/// A version that failed is tried again after 2, 4, 8 .. 60 seconds.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(60);

impl Current {
    pub(crate) fn new(source: Arc<dyn Source>, metrics: Arc<Metrics>) -> Self {
        Self { source, metrics, slot: RwLock::default(), failure: tokio::sync::Mutex::default() }
    }

    /// The version that is open, if one is.
    pub(crate) fn get(&self) -> Option<Arc<Loaded>> {
        self.slot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens the newest version and puts it in the place of the one before. Returns its generation.
    pub(crate) async fn reload(&self) -> Result<u64, Error> {
        let mut failure = self.failure.lock().await;
        self.open(&mut failure).await
    }

    /// [`Current::reload`] when the source has another version than the one that is open.
    pub(crate) async fn reload_if_changed(&self) {
        let mut failure = self.failure.lock().await;
        let source = self.source.clone();
        let fingerprint = match tokio::task::spawn_blocking(move || source.fingerprint()).await {
            Ok(Ok(fingerprint)) => fingerprint,
            Ok(Err(error)) => return tracing::debug!(%error, "cannot see whether the index has changed"),
            Err(error) => return tracing::warn!(%error, "cannot see whether the index has changed"),
        };
        if self.get().is_some_and(|loaded| loaded.fingerprint.as_ref() == Some(&fingerprint)) {
            *failure = None;
            return;
        }
        let is_to_wait =
            |failed: &Failure| failed.fingerprint.as_ref() == Some(&fingerprint) && Instant::now() < failed.retry_at;
        if !failure.as_ref().is_some_and(is_to_wait) {
            // The failure is logged and counted where it occurs; the old version serves on.
            let _ = self.open(&mut failure).await;
        }
    }

    async fn open(&self, failure: &mut Option<Failure>) -> Result<u64, Error> {
        let started = Instant::now();
        let source = self.source.clone();
        // The fingerprint comes first: a version that arrives in between is then seen as a change by the next look.
        let opening = tokio::task::spawn_blocking(move || (source.fingerprint().ok(), source.open()));
        let (fingerprint, opened) = match opening.await {
            Ok(opened) => opened,
            Err(panicked) => (None, Err(panicked.into())),
        };
        match opened {
            Ok(retriever) => {
                let generation = self.get().map_or(0, |loaded| loaded.generation) + 1;
                let loaded = Arc::new(Loaded { retriever, generation, fingerprint });
                let old = self.slot.write().unwrap_or_else(PoisonError::into_inner).replace(loaded);
                // Closing a large index takes a moment.
                tokio::task::spawn_blocking(move || drop(old));
                *failure = None;
                self.metrics.reloads.fetch_add(1, Relaxed);
                self.metrics.generation.set(generation);
                tracing::info!(generation, ms = started.elapsed().as_millis() as u64, "the index is open");
                Ok(generation)
            }
            Err(error) => {
                let before = failure.take().filter(|failed| failed.fingerprint == fingerprint);
                let delay = before.map_or(FIRST_RETRY, |failed| (failed.delay * 2).min(LAST_RETRY));
                *failure = Some(Failure { fingerprint, retry_at: Instant::now() + delay, delay });
                self.metrics.failed_reloads.fetch_add(1, Relaxed);
                if let Some(loaded) = self.get() {
                    let (generation, error) = (loaded.generation, chain(&*error));
                    tracing::error!(
                        generation,
                        error,
                        "a new version of the index could not be opened; the old one serves on"
                    );
                }
                Err(Error::Open(error))
            }
        }
    }
}

/// An error with its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
