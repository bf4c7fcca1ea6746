//! Routes: who may ask, what is read of a request and for how long, and what is sent back.
use crate::batch::Batcher;
use crate::current::Current;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::{ServerConfig, Token, protocol};
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use exsearch_schema::{Hit, RetrieveError};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) current: Current,
    pub(crate) is_stopping: AtomicBool,
    token: Option<Token>,
    batcher: Batcher,
    /// A permit for each byte of a body that is being read.
    bodies: Arc<Semaphore>,
    /// A permit for each hit that is being searched for or not sent yet.
    unsent: Arc<Semaphore>,
}

/// Answers of more hits than this, about 1 MB, are written as JSON on a thread that may block.
const MOST_HITS_INLINE: usize = 1_000;
/// What is read and thrown away of a body that is refused, so that its client gets to read why.
const DRAIN_BYTES: usize = 32 << 20;
/// Answers are handed to the connection in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// All routes.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let only_get = || async { Refusal::Method { allowed: "GET, HEAD" } };
    let only_post = || async { Refusal::Method { allowed: "POST" } };
    Router::new()
        .route("/api/search", get(colbert).fallback(only_get))
        .route("/retrieve", post(search_r1).fallback(only_post))
        .route("/health", get(health).fallback(only_get))
        .route("/ready", get(ready).fallback(only_get))
        .route("/metrics", get(metrics).fallback(only_get))
        .fallback(|| async { Refusal::UnknownRoute })
        .layer(middleware::from_fn_with_state(shared.clone(), observe))
        .with_state(shared)
}

async fn colbert(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Refusal> {
    let deadline = Instant::now() + shared.config.deadline();
    let asked = protocol::colbert_request(&uri, &shared.config)?;
    let query = asked.queries[0].clone();
    let (found, unsent) = shared.search(asked.queries, asked.top_k, deadline).await?;
    answer(found, unsent, move |found| protocol::colbert_answer(&query, &found[0])).await
}

async fn search_r1(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Refusal> {
    let deadline = Instant::now() + shared.config.deadline();
    let asked = {
        let (body, _room) = shared.read_body(request).await?;
        protocol::search_r1_request(&body, &shared.config)?
    };
    let (found, unsent) = shared.search(asked.queries, asked.top_k, deadline).await?;
    answer(found, unsent, move |found| protocol::search_r1_answer(found, asked.with_scores)).await
}

async fn health() -> Response {
    ([(header::CONTENT_TYPE, JSON)], r#"{"status":"alive"}"#).into_response()
}

async fn ready(State(shared): State<Arc<Shared>>) -> Result<Response, Refusal> {
    let loaded = shared.current.get().filter(|_| !shared.is_stopping.load(Relaxed)).ok_or(Refusal::NotReady)?;
    let json = format!(r#"{{"status":"ready","index_generation":{}}}"#, loaded.generation);
    Ok(([(header::CONTENT_TYPE, JSON)], json).into_response())
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, TEXT)], shared.metrics.text()).into_response()
}

impl Shared {
    pub(crate) fn new(
        config: Arc<ServerConfig>,
        token: Option<Token>,
        current: Current,
        metrics: Arc<Metrics>,
        batcher: Batcher,
    ) -> Self {
        let bodies = Arc::new(Semaphore::new(config.max_bodies_bytes));
        let unsent = Arc::new(Semaphore::new(config.max_unsent_hits));
        Self { config, metrics, current, is_stopping: AtomicBool::new(false), token, batcher, bodies, unsent }
    }

    /// The hits of each query, and the permit to keep until they are sent.
    async fn search(
        &self,
        queries: Vec<String>,
        top_k: usize,
        deadline: Instant,
    ) -> Result<(Vec<Vec<Hit>>, OwnedSemaphorePermit), Refusal> {
        let loaded = self.current.get().ok_or(Refusal::NotReady)?;
        let n_hits = (queries.len() * top_k) as u32;
        let Ok(unsent) = self.unsent.clone().try_acquire_many_owned(n_hits) else {
            return Err(Refusal::Busy { what: "hits", limit: self.config.max_unsent_hits });
        };
        let mut found = Vec::with_capacity(queries.len());
        for hits in self.batcher.search(loaded, queries, top_k, deadline).await? {
            found.push(match hits {
                Ok(hits) => hits,
                Err(RetrieveError::EmptyQuery) => {
                    self.metrics.empty_queries.fetch_add(1, Relaxed);
                    Vec::new()
                }
                Err(RetrieveError::Failed(reason)) => {
                    tracing::warn!(reason, "a search failed");
                    return Err(Refusal::Failed);
                }
            });
        }
        Ok((found, unsent))
    }

    /// A request's body, whole and within the limits, and the permit to keep as long as it is.
    async fn read_body(&self, request: Request) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Refusal> {
        let limit = self.config.max_body_bytes;
        let (head, mut body) = request.into_parts();
        let n_bytes = head.headers.get(header::CONTENT_LENGTH);
        let n_bytes = n_bytes.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let waits_to_send = head.headers.contains_key(header::EXPECT);
        let read = match n_bytes {
            Some(n_bytes) if n_bytes > limit as u64 => Err(Refusal::BodyTooLarge { limit }),
            _ => match timeout(self.config.body_timeout(), self.collect(&mut body)).await {
                Ok(read) => read,
                Err(_) => return Err(Refusal::BodyTimeout { limit_ms: self.config.body_timeout_ms }),
            },
        };
        if matches!(read, Err(Refusal::BodyTooLarge { .. } | Refusal::Busy { .. })) && !waits_to_send {
            let _ = timeout(self.config.body_timeout(), drain(&mut body)).await;
        }
        read
    }

    async fn collect(&self, body: &mut Body) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Refusal> {
        let limit = self.config.max_body_bytes;
        let (mut bytes, mut room) = (Vec::new(), None::<OwnedSemaphorePermit>);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Refusal::Malformed { reason: format!("the body: {error}") })?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(Refusal::BodyTooLarge { limit });
            }
            let Ok(more) = self.bodies.clone().try_acquire_many_owned(data.len() as u32) else {
                return Err(Refusal::Busy { what: "bytes of bodies", limit: self.config.max_bodies_bytes });
            };
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
            bytes.extend_from_slice(&data);
        }
        Ok((bytes, room))
    }
}

async fn drain(body: &mut Body) {
    let mut n_bytes = 0;
    while n_bytes < DRAIN_BYTES {
        let Some(Ok(frame)) = body.frame().await else { return };
        n_bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// Hits to a response. `unsent` is given back when the client has taken it all.
async fn answer(
    found: Vec<Vec<Hit>>,
    unsent: OwnedSemaphorePermit,
    to_json: impl FnOnce(&[Vec<Hit>]) -> Vec<u8> + Send + 'static,
) -> Result<Response, Refusal> {
    let n_hits: usize = found.iter().map(Vec::len).sum();
    let json = if n_hits <= MOST_HITS_INLINE {
        to_json(&found)
    } else {
        tokio::task::spawn_blocking(move || to_json(&found)).await.map_err(|_| Refusal::Failed)?
    };
    let body = Pieces { rest: json.into(), _unsent: unsent };
    Ok(([(header::CONTENT_TYPE, JSON)], Body::new(body)).into_response())
}

/// A body in pieces, so that it is gone only when nearly all of it is written.
struct Pieces {
    rest: Bytes,
    _unsent: OwnedSemaphorePermit,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let n_bytes = self.rest.len().min(PIECE_BYTES);
        Poll::Ready((n_bytes > 0).then(|| Ok(Frame::data(self.rest.split_to(n_bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// Checks the token, counts the request and logs it in one line. Neither the token nor a query is ever logged.
async fn observe(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let route = route_name(request.uri().path());
    let _in_flight = shared.metrics.in_flight.hold(1);
    let mut seen = Seen {
        metrics: &shared.metrics,
        route,
        method: request.method().clone(),
        started: Instant::now(),
        status: 499,
    };
    let is_open = matches!(route, "/health" | "/ready");
    let authorization = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let is_admitted = is_open || shared.token.as_ref().is_none_or(|token| token.is_in(authorization));
    let response = if is_admitted { next.run(request).await } else { Refusal::Unauthorized.into_response() };
    seen.status = response.status().as_u16();
    response
}

/// Counted and logged when it is dropped: with its status, or as given up by its client.
struct Seen<'a> {
    metrics: &'a Metrics,
    route: &'static str,
    method: Method,
    started: Instant,
    status: u16,
}

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        let time = self.started.elapsed();
        self.metrics.answered(self.route, self.status, time);
        let ms = time.as_secs_f64() * 1e3;
        tracing::debug!(method = %self.method, route = self.route, status = self.status, ms, "request");
    }
}

/// The route of a path as it is counted: one of a few, whatever clients ask for.
fn route_name(path: &str) -> &'static str {
    const ROUTES: [&str; 5] = ["/api/search", "/retrieve", "/health", "/ready", "/metrics"];
    ROUTES.into_iter().find(|route| *route == path).unwrap_or("unknown")
}
