//! The seam between retrieval and whatever turns text into vectors, or a query and a passage into a score.

/// What a text is to an encoder: many treat the two differently (markers, padding, length limits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextRole {
    /// A question or search query.
    Query,
    /// A passage; its title, if it has one, comes first.
    Passage,
}

/// How many vectors a text gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VectorKind {
    /// One for the whole text, for dense retrieval.
    Single,
    /// One for each token that counts, for late interaction (ColBERT, arXiv 2004.12832).
    PerToken,
}

/// The vectors of one text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embedding {
    /// The length of a vector.
    pub dim: usize,
    /// The vectors one after the other, `n_vectors x dim`, each of length 1 in the Euclidean norm.
    pub values: Vec<f32>,
}

/// Why texts got no vectors or scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodeError(pub String);

/// Turns text into vectors. The vectors of a text do not depend on the other texts of a call.
pub trait Encoder: Send + Sync {
    /// The length of a vector.
    fn dim(&self) -> usize;

    /// How many vectors a text gets.
    fn kind(&self) -> VectorKind;

    /// Names the checkpoint by its content, so that an index can refuse queries of another encoder.
    fn fingerprint(&self) -> &str;

    /// One embedding for each text, in their order.
    fn encode(&self, texts: &[&str], role: TextRole) -> Result<Vec<Embedding>, EncodeError>;
}

/// Scores a query and a passage together. Higher is better. A passage's score does not depend on the others of a call.
pub trait CrossEncoder: Send + Sync {
    /// A score for each passage, in their order; a passage is its title and its text, in one string.
    fn score(&self, query: &str, passages: &[&str]) -> Result<Vec<f32>, EncodeError>;
}

impl Embedding {
    /// How many vectors.
    pub fn n_vectors(&self) -> usize {
        self.values.len() / self.dim.max(1)
    }
}

impl std::fmt::Display for EncodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the encoder failed: {}", self.0)
    }
}

impl std::error::Error for EncodeError {}
