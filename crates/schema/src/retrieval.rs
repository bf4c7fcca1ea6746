//! The seam between the agent and whatever finds passages.
use crate::{Passage, PassageId};
use serde::{Deserialize, Serialize};

/// A retrieved passage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// Its id in the corpus.
    pub id: PassageId,
    /// Its title.
    pub title: String,
    /// Its words.
    pub text: String,
    /// Higher is better; the scale is the retriever's own.
    pub score: f32,
}

/// Why a query got no hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetrieveError {
    /// The query holds nothing that can be searched for.
    EmptyQuery,
    /// The retriever failed; the text says how.
    Failed(String),
}

/// Finds passages for queries. Ties break by the order of the corpus.
pub trait Retriever: Send + Sync {
    /// At most `top_k` hits a query, best first, in the order of `queries`. One failed query fails alone.
    fn search_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, RetrieveError>>;

    /// The passage of an id, to show a gold passage that a search did not find. `None` when the corpus has none of that id, or
    /// when it is not at hand, as behind a remote server.
    fn passage(&self, _id: &PassageId) -> Result<Option<Passage>, RetrieveError> {
        Ok(None)
    }

    /// Seconds spent in encoders so far, all threads together; 0 where nobody measures them.
    fn encode_secs(&self) -> f64 {
        0.0
    }

    /// [`Retriever::search_batch`] for one query.
    fn search(&self, query: &str, top_k: usize) -> Result<Vec<Hit>, RetrieveError> {
        self.search_batch(&[query], top_k).pop().expect("one result a query")
    }
}

impl std::fmt::Display for RetrieveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EmptyQuery => f.write_str("the query holds no word to search for"),
            Self::Failed(reason) => write!(f, "the retriever failed: {reason}"),
        }
    }
}

impl std::error::Error for RetrieveError {}
