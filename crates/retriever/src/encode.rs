//! What every retriever over vectors asks of an encoder, and how its answers are checked.
use crate::Error;
use exsearch_schema::{Embedding, EncodeError, Encoder, Passage, RetrieveError, TextRole, VectorKind};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Which encoder made the vectors of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderId {
    /// Where it was opened, to find it again; the fingerprint tells whether it is the same.
    pub path: String,
    /// [`Encoder::fingerprint`].
    pub fingerprint: String,
    /// The length of its vectors.
    pub dim: usize,
}

impl EncoderId {
    pub(crate) fn new(path: &str, encoder: &dyn Encoder) -> Self {
        Self { path: path.to_owned(), fingerprint: encoder.fingerprint().to_owned(), dim: encoder.dim() }
    }

    /// Errors when `encoder` is not the one that the index in `dir` was built with.
    pub(crate) fn check(&self, dir: &Path, encoder: &dyn Encoder) -> Result<(), Error> {
        if self.fingerprint == encoder.fingerprint() && self.dim == encoder.dim() {
            return Ok(());
        }
        Err(Error::OtherEncoder {
            dir: dir.to_owned(),
            path: self.path.clone(),
            expected: self.fingerprint.clone(),
            found: encoder.fingerprint().to_owned(),
        })
    }

    /// `None` when both give the same vectors.
    pub(crate) fn difference(&self, other: &EncoderId) -> Option<String> {
        let is_same = self.fingerprint == other.fingerprint && self.dim == other.dim;
        (!is_same).then(|| format!("its vectors are of the encoder {} ({})", self.path, self.fingerprint))
    }
}

/// The text that stands for a passage before an encoder: `title | text`, as ColBERT's corpora have it.
pub(crate) fn passage_text(title: &str, text: &str) -> String {
    if title.is_empty() { text.to_owned() } else { format!("{title} | {text}") }
}

/// Errors when an encoder is not of the kind that an index needs.
pub(crate) fn check_kind(encoder: &dyn Encoder, wanted: VectorKind) -> Result<(), Error> {
    if encoder.kind() == wanted && encoder.dim() > 0 {
        return Ok(());
    }
    let reason = match wanted {
        VectorKind::Single => "it gives a vector a token; dense retrieval needs one vector a text",
        VectorKind::PerToken => "it gives one vector a text; late interaction needs one a token",
    };
    Err(Error::InvalidConfig { what: format!("encoder {}", encoder.fingerprint()), reason: reason.to_owned() })
}

/// The vectors of passages, in their order.
pub(crate) fn encode_passages(encoder: &dyn Encoder, passages: &[Passage]) -> Result<Vec<Embedding>, EncodeError> {
    let texts: Vec<String> = passages.iter().map(|passage| passage_text(&passage.title, &passage.text)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    encode(encoder, &texts, TextRole::Passage)
}

/// The vectors of queries, each with its own error.
pub(crate) fn encode_queries(encoder: &dyn Encoder, queries: &[&str]) -> Vec<Result<Embedding, RetrieveError>> {
    let wanted: Vec<&str> = queries.iter().copied().filter(|query| !query.trim().is_empty()).collect();
    let failed = |error: EncodeError| RetrieveError::Failed(error.to_string());
    let encoded: Vec<Result<Embedding, RetrieveError>> = match encode(encoder, &wanted, TextRole::Query) {
        Ok(embeddings) => embeddings.into_iter().map(Ok).collect(),
        Err(error) if wanted.len() == 1 => vec![Err(failed(error))],
        // One query that cannot be encoded fails alone.
        Err(_) => {
            let alone = |query: &&str| encode(encoder, &[*query], TextRole::Query).map(|mut one| one.remove(0));
            wanted.iter().map(|query| alone(query).map_err(failed)).collect()
        }
    };
    let mut encoded = encoded.into_iter();
    let next = |query: &&str| match query.trim().is_empty() {
        true => Err(RetrieveError::EmptyQuery),
        false => encoded.next().expect("an embedding for each text"),
    };
    queries.iter().map(next).collect()
}

/// What the encoder gives, if it keeps to its word.
pub(crate) fn encode(encoder: &dyn Encoder, texts: &[&str], role: TextRole) -> Result<Vec<Embedding>, EncodeError> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let embeddings = encoder.encode(texts, role)?;
    let dim = encoder.dim();
    if embeddings.len() != texts.len() {
        return Err(EncodeError(format!("it gave {} embeddings for {} texts", embeddings.len(), texts.len())));
    }
    for (embedding, text) in embeddings.iter().zip(texts) {
        let is_whole = embedding.dim == dim && embedding.values.len().is_multiple_of(dim);
        let is_one = encoder.kind() == VectorKind::PerToken || embedding.values.len() == dim;
        let is_finite = embedding.values.iter().all(|value| value.is_finite());
        if !(is_whole && is_one && is_finite) {
            let start: String = text.chars().take(60).collect();
            let numbers = if is_finite { "" } else { ", some of them not finite," };
            return Err(EncodeError(format!(
                "it gave {} numbers{numbers} in dimension {} for {start:?}; its dimension is {dim}",
                embedding.values.len(),
                embedding.dim,
            )));
        }
    }
    Ok(embeddings)
}
