//! A retriever on another machine, by either of the two published protocols.
//!
//! ```text
//! ColBERT     GET  {url}/api/search?query=..&k=..
//!             -> {"query", "topk": [{"text": "title | text", "pid", "rank", "score", "prob"}]}
//! Search-R1   POST {url}/retrieve {"queries": [..], "topk": k, "return_scores": true}
//!             -> {"result": [[{"document": {"id", "contents": "\"title\"\ntext"}, "score"}]]}
//! ```
use crate::Error;
use exsearch_http::{Client, HttpConfig, HttpError, Request, Secret, check_url, in_parallel};
use exsearch_schema::{Hit, PassageId, RetrieveError, Retriever};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Which of the published protocols a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The ColBERT repository's search server, a query a request.
    Colbert,
    /// Search-R1's retrieval server, many queries a request; FlashRAG's users have it too.
    SearchR1,
}

/// A client of a search server.
pub struct Remote {
    protocol: Protocol,
    url: String,
    token: Option<Secret>,
    client: Client,
    max_concurrent: usize,
}

/// Queries in one request of Search-R1's protocol: enough to keep a server's batches full, and few enough to be answered
/// within a timeout.
const QUERIES_A_REQUEST: usize = 32;

impl Remote {
    /// A client of the server at `url`, with the path of the protocol or without it. `token` is sent as bearer token.
    pub fn new(protocol: Protocol, url: &str, token: Option<Secret>, config: &HttpConfig) -> Result<Self, Error> {
        check_url(url)?;
        let path = match protocol {
            Protocol::Colbert => "/api/search",
            Protocol::SearchR1 => "/retrieve",
        };
        let base = url.trim_end_matches('/');
        let url = if base.ends_with(path) { base.to_owned() } else { format!("{base}{path}") };
        Ok(Self { protocol, url, token, client: Client::new(config)?, max_concurrent: config.max_concurrent })
    }

    fn key(&self) -> Option<(&str, &str, &Secret)> {
        self.token.as_ref().map(|token| ("authorization", "Bearer ", token))
    }

    fn colbert(&self, query: &str, top_k: usize) -> Result<Vec<Hit>, HttpError> {
        let k = top_k.to_string();
        let parameters = [("query", query), ("k", k.as_str())];
        let request = Request { url: &self.url, parameters: &parameters, body: None, key: self.key() };
        let answer: ColbertAnswer = self.client.json(&request, || Ok(()))?;
        let hits = answer.topk.into_iter().map(|ColbertHit { text, pid, score }| {
            let (title, text) = text.split_once(" | ").unwrap_or(("", &text));
            Hit { id: pid, title: title.to_owned(), text: text.to_owned(), score }
        });
        best_first(hits.collect(), top_k)
    }

    fn search_r1(&self, queries: &[&str], top_k: usize) -> Result<Vec<Vec<Hit>>, HttpError> {
        let body = json!({ "queries": queries, "topk": top_k, "return_scores": true });
        let request = Request { url: &self.url, parameters: &[], body: Some(body), key: self.key() };
        let answer: SearchR1Answer = self.client.json(&request, || Ok(()))?;
        if answer.result.len() != queries.len() {
            let reason = format!("it has {} results for {} queries", answer.result.len(), queries.len());
            return Err(HttpError::Answer { reason });
        }
        let hit = |SearchR1Hit { document: Document { id, contents }, score }: SearchR1Hit| {
            let (title, text) = contents.split_once('\n').unwrap_or(("", &contents));
            let title = title.strip_prefix('"').and_then(|title| title.strip_suffix('"')).unwrap_or(title);
            Hit { id, title: title.to_owned(), text: text.to_owned(), score }
        };
        answer.result.into_iter().map(|hits| best_first(hits.into_iter().map(hit).collect(), top_k)).collect()
    }

    /// The answers of one request. Where the server finds fault with it, each query is asked alone, so that one that the
    /// server does not take fails alone.
    fn search_r1_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, HttpError>> {
        match self.search_r1(queries, top_k) {
            Ok(found) => found.into_iter().map(Ok).collect(),
            Err(HttpError::Status { status: 400 | 413 | 422, .. }) if queries.len() > 1 => {
                queries.iter().flat_map(|query| self.search_r1_batch(&[*query], top_k)).collect()
            }
            Err(error) => queries.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

impl Retriever for Remote {
    /// Scores are the server's. Requests run at the same time, up to the config's `max_concurrent`.
    fn search_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
        let asked: Vec<&str> = queries.iter().copied().filter(|query| !query.trim().is_empty()).collect();
        let answers: Vec<Result<Vec<Hit>, HttpError>> = match self.protocol {
            _ if top_k == 0 => asked.iter().map(|_| Ok(Vec::new())).collect(),
            Protocol::Colbert => in_parallel(asked.len(), self.max_concurrent, |at| self.colbert(asked[at], top_k)),
            Protocol::SearchR1 => {
                let batches: Vec<&[&str]> = asked.chunks(QUERIES_A_REQUEST).collect();
                let ask = |at: usize| self.search_r1_batch(batches[at], top_k);
                in_parallel(batches.len(), self.max_concurrent, ask).into_iter().flatten().collect()
            }
        };
        let mut answers = answers.into_iter();
        let next = |query: &&str| match query.trim().is_empty() {
            true => Err(RetrieveError::EmptyQuery),
            false => {
                let answer = answers.next().expect("an answer for each query");
                answer.map_err(|error| RetrieveError::Failed(format!("{}: {error}", self.url)))
            }
        };
        queries.iter().map(next).collect()
    }
}

#[derive(Deserialize)]
struct ColbertAnswer {
    topk: Vec<ColbertHit>,
}

#[derive(Deserialize)]
struct ColbertHit {
    text: String,
    pid: PassageId,
    score: f32,
}

#[derive(Deserialize)]
struct SearchR1Answer {
    result: Vec<Vec<SearchR1Hit>>,
}

#[derive(Deserialize)]
struct SearchR1Hit {
    document: Document,
    score: f32,
}

#[derive(Deserialize)]
struct Document {
    id: PassageId,
    contents: String,
}

/// What this trait promises, of servers that may give more hits than asked for, or unsorted.
fn best_first(mut hits: Vec<Hit>, top_k: usize) -> Result<Vec<Hit>, HttpError> {
    if let Some(hit) = hits.iter().find(|hit| !hit.score.is_finite()) {
        return Err(HttpError::Answer { reason: format!("the score of {:?} is {}", hit.id.0, hit.score) });
    }
    hits.sort_by(|left, right| right.score.total_cmp(&left.score));
    hits.truncate(top_k);
    Ok(hits)
}
