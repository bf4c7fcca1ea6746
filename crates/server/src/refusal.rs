//! Why a request got no hits, as the JSON that the client reads.
//!
//! ```text
//! {"error": {"code": "query_too_long", "message": "a query has 5000 characters, the limit is 4096", "limit": 4096}}
//! ```
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// One reason for each way to refuse. `limit` is there where a limit was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed { reason: String },
    QueryTooLong { n_chars: usize, limit: usize },
    TooManyQueries { n_queries: usize, limit: usize },
    TopK { given: String, limit: usize },
    TooManyHits { n_hits: usize, limit: usize },
    Unauthorized,
    UnknownRoute,
    Method { allowed: &'static str },
    BodyTimeout { limit_ms: u64 },
    BodyTooLarge { limit: usize },
    Failed,
    Busy { what: &'static str, limit: usize },
    NotReady,
    Deadline { limit_ms: u64 },
}

#[derive(Serialize)]
struct Answer<'a> {
    error: Reason<'a>,
}

#[derive(Serialize)]
struct Reason<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

/// Seconds after which a client that was refused for load may ask again.
const RETRY_AFTER: &str = "1";

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed { .. }
            | Self::QueryTooLong { .. }
            | Self::TooManyQueries { .. }
            | Self::TopK { .. }
            | Self::TooManyHits { .. } => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::UnknownRoute => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy { .. } | Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            Self::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Code, sentence and limit.
    fn words(&self) -> (&'static str, String, Option<u64>) {
        let count = |limit: &usize| Some(*limit as u64);
        match self {
            Self::Malformed { reason } => ("malformed_request", reason.clone(), None),
            Self::QueryTooLong { n_chars, limit } => {
                ("query_too_long", format!("a query has {n_chars} characters, the limit is {limit}"), count(limit))
            }
            Self::TooManyQueries { n_queries, limit } => (
                "too_many_queries",
                format!("the request has {n_queries} queries, the limit is {limit}; send them in parts"),
                count(limit),
            ),
            Self::TopK { given, limit } => {
                ("bad_top_k", format!("{given} hits were asked for, it must be 1 to {limit}"), count(limit))
            }
            Self::TooManyHits { n_hits, limit } => (
                "too_many_hits",
                format!("the queries times their hits are {n_hits}, the limit is {limit}; send them in parts"),
                count(limit),
            ),
            Self::Unauthorized => (
                "unauthorized",
                "this server takes requests with its bearer token only: Authorization: Bearer TOKEN".to_owned(),
                None,
            ),
            Self::UnknownRoute => (
                "unknown_route",
                "there are GET /api/search?query=..&k=.., POST /retrieve, GET /health, GET /ready and GET /metrics"
                    .to_owned(),
                None,
            ),
            Self::Method { allowed } => ("method_not_allowed", format!("this route takes {allowed} only"), None),
            Self::BodyTimeout { limit_ms } => (
                "body_timeout",
                format!("the body did not arrive within {limit_ms} ms, which is the limit"),
                Some(*limit_ms),
            ),
            Self::BodyTooLarge { limit } => {
                ("body_too_large", format!("the body is larger than {limit} bytes, which is the limit"), count(limit))
            }
            Self::Failed => ("retriever_failed", "the search failed; the server's log says how".to_owned(), None),
            Self::Busy { what, limit } => {
                ("busy", format!("{limit} {what} are under way, which is the limit; ask again later"), count(limit))
            }
            Self::NotReady => ("not_ready", "the index is not open yet; ask again later".to_owned(), None),
            Self::Deadline { limit_ms } => {
                ("deadline", format!("there was no answer within {limit_ms} ms, which is the limit"), Some(*limit_ms))
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (code, message, limit) = self.words();
        let answer = Answer { error: Reason { code, message: &message, limit } };
        let json = serde_json::to_vec(&answer).expect("plain structs serialize");
        let mut response = Response::new(Body::from(json));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            Self::Busy { .. } | Self::NotReady => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
            }
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Method { allowed } => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            // What is left of the body would be read as the next request.
            Self::BodyTimeout { .. } | Self::BodyTooLarge { .. } => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}
