//! The two published protocols: a request's bytes to queries, hits to an answer's bytes. Does no I/O.
//!
//! ```text
//! GET /api/search?query=..&k=..   {"query", "topk": [{"text": "title | text", "pid", "rank", "score", "prob"}]}
//! POST /retrieve {"queries": [..], "topk": k, "return_scores": true}
//!                                 {"result": [[{"document": {"id", "contents": "\"title\"\ntext"}, "score"}]]}
//!                without scores   {"result": [[{"id", "contents"}]]}
//! ```
//! As the servers of ColBERT (server.py) and Search-R1 (retrieval_server.py) answer, with what their clients rely on: the
//! reference code cuts `text` at its first `|`, Search-R1 cuts `contents` at its first line break. `rank` counts from 1,
//! `prob` is the softmax of the scores shown, `k` is 10 where it is left out, `topk` the server's default where it is left
//! out, null or 0. Two differences: more hits than the limit are refused, not cut; a query without words gets no hits.
use crate::ServerConfig;
use crate::refusal::Refusal;
use axum::extract::Query;
use axum::http::Uri;
use exsearch_schema::{Hit, PassageId};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;

/// What a client asks for, within the limits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) queries: Vec<String>,
    pub(crate) top_k: usize,
    /// Whether Search-R1's answer has scores.
    pub(crate) with_scores: bool,
}

/// `k` of a request to `/api/search` that has none.
const COLBERT_TOP_K: usize = 10;

#[derive(Deserialize)]
struct ColbertParameters {
    query: Option<String>,
    k: Option<String>,
}

#[derive(Serialize)]
struct ColbertAnswer<'a> {
    query: &'a str,
    topk: Vec<ColbertHit<'a>>,
}

#[derive(Serialize)]
struct ColbertHit<'a> {
    text: String,
    #[serde(serialize_with = "number_or_text")]
    pid: &'a PassageId,
    rank: usize,
    score: f32,
    prob: f64,
}

#[derive(Deserialize)]
struct SearchR1Body {
    queries: Queries,
    #[serde(default)]
    topk: Option<u64>,
    #[serde(default)]
    return_scores: Option<bool>,
}

/// The queries of a body; those past [`ServerConfig::MOST_QUERIES`] are counted, not kept.
struct Queries {
    first: Vec<String>,
    n_queries: usize,
}

#[derive(Serialize)]
struct SearchR1Answer<T> {
    result: Vec<Vec<T>>,
}

#[derive(Serialize)]
struct Scored<'a> {
    document: Document<'a>,
    score: f32,
}

#[derive(Serialize)]
struct Document<'a> {
    id: &'a PassageId,
    contents: String,
}

/// Reads `?query=..&k=..`.
pub(crate) fn colbert_request(uri: &Uri, config: &ServerConfig) -> Result<Asked, Refusal> {
    let Query(ColbertParameters { query, k }) =
        Query::try_from_uri(uri).map_err(|error| Refusal::Malformed { reason: error.body_text() })?;
    let query = query.ok_or_else(|| Refusal::Malformed { reason: "`query` is missing".to_owned() })?;
    let top_k = match k.as_deref() {
        None | Some("") => COLBERT_TOP_K.min(config.max_top_k),
        Some(k) => match k.parse() {
            Ok(top_k) if (1..=config.max_top_k).contains(&top_k) => top_k,
            _ => return Err(Refusal::TopK { given: k.chars().take(20).collect(), limit: config.max_top_k }),
        },
    };
    let queries = vec![query];
    check(&queries, top_k, config)?;
    Ok(Asked { queries, top_k, with_scores: true })
}

/// Reads the body of a request to `/retrieve`. Fields that it does not know are passed over, as they are there.
pub(crate) fn search_r1_request(body: &[u8], config: &ServerConfig) -> Result<Asked, Refusal> {
    let SearchR1Body { queries, topk, return_scores } =
        serde_json::from_slice(body).map_err(|error| Refusal::Malformed { reason: format!("the body: {error}") })?;
    if queries.n_queries > config.max_queries {
        return Err(Refusal::TooManyQueries { n_queries: queries.n_queries, limit: config.max_queries });
    }
    let top_k = match topk {
        None | Some(0) => config.default_top_k,
        Some(topk) if topk <= config.max_top_k as u64 => topk as usize,
        Some(topk) => return Err(Refusal::TopK { given: topk.to_string(), limit: config.max_top_k }),
    };
    check(&queries.first, top_k, config)?;
    Ok(Asked { queries: queries.first, top_k, with_scores: return_scores.unwrap_or(false) })
}

/// The answer to one query on `/api/search`.
pub(crate) fn colbert_answer(query: &str, hits: &[Hit]) -> Vec<u8> {
    let best = hits.iter().map(|hit| hit.score).fold(f32::NEG_INFINITY, f32::max);
    let exp = |hit: &Hit| f64::from(hit.score - best).exp();
    let sum: f64 = hits.iter().map(exp).sum();
    let topk = hits.iter().enumerate().map(|(hit_idx, hit)| ColbertHit {
        text: format!("{} | {}", one_line(&hit.title), hit.text),
        pid: &hit.id,
        rank: hit_idx + 1,
        score: hit.score,
        prob: exp(hit) / sum,
    });
    json(&ColbertAnswer { query, topk: topk.collect() })
}

/// The answer on `/retrieve`, the hits of each query in the order of the queries.
pub(crate) fn search_r1_answer(found: &[Vec<Hit>], with_scores: bool) -> Vec<u8> {
    fn document(hit: &Hit) -> Document<'_> {
        Document { id: &hit.id, contents: format!("\"{}\"\n{}", one_line(&hit.title), hit.text) }
    }
    if with_scores {
        let scored = |hit| Scored { document: document(hit), score: hit.score };
        json(&SearchR1Answer { result: found.iter().map(|hits| hits.iter().map(scored).collect()).collect() })
    } else {
        json(&SearchR1Answer { result: found.iter().map(|hits| hits.iter().map(document).collect()).collect() })
    }
}

fn check(queries: &[String], top_k: usize, config: &ServerConfig) -> Result<(), Refusal> {
    for query in queries {
        // Bytes are counted first: characters are at most as many.
        let limit = config.max_query_chars;
        if query.len() > limit && query.chars().count() > limit {
            return Err(Refusal::QueryTooLong { n_chars: query.chars().count(), limit });
        }
    }
    let n_hits = queries.len() * top_k;
    if n_hits > config.max_hits {
        return Err(Refusal::TooManyHits { n_hits, limit: config.max_hits });
    }
    Ok(())
}

/// A title without line breaks, at which clients would cut it.
fn one_line(title: &str) -> Cow<'_, str> {
    if title.contains(['\n', '\r']) { Cow::Owned(title.replace(['\n', '\r'], " ")) } else { Cow::Borrowed(title) }
}

/// ColBERT's ids are numbers; ids that are not stay what they are.
fn number_or_text<S: Serializer>(id: &&PassageId, serializer: S) -> Result<S::Ok, S::Error> {
    match id.0.parse::<u64>() {
        Ok(number) if number.to_string() == id.0 => serializer.serialize_u64(number),
        _ => serializer.serialize_str(&id.0),
    }
}

fn json(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).expect("plain structs serialize")
}

impl<'de> Deserialize<'de> for Queries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Queries;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of strings for `queries`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Queries, A::Error> {
                let mut first = Vec::new();
                while first.len() < ServerConfig::MOST_QUERIES {
                    let Some(query) = list.next_element()? else { break };
                    first.push(query);
                }
                let mut n_queries = first.len();
                while n_queries >= ServerConfig::MOST_QUERIES && list.next_element::<IgnoredAny>()?.is_some() {
                    n_queries += 1;
                }
                Ok(Queries { first, n_queries })
            }
        }
        deserializer.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests;
