//! Texts -> vectors: token ids by role, hidden states, then one vector a text or one a token, of length 1.
//!
//! Knows nothing of how checkpoints lie on disk: `sentence` and `colbert` fill in what it is made of.
use super::backbone::Backbone;
use super::bert::TokenIds;
use super::tokens::BertTokenizer;
use crate::ModelError;
use exsearch_kernels::{MatMut, MatRef, Operand, Panels, add, matmul_serial, scale, sum_of_squares};
use exsearch_schema::{Embedding, EncodeError, Encoder, TextRole, VectorKind};
use std::collections::BTreeSet;

/// A BERT checkpoint with what turns its hidden states into vectors.
pub(super) struct TextEncoder {
    pub(super) backbone: Backbone,
    pub(super) tokenizer: BertTokenizer,
    pub(super) query: TextForm,
    pub(super) passage: TextForm,
    pub(super) head: Head,
    /// Hidden to vectors `[h, dim]`, where there is one.
    pub(super) projection: Option<Panels>,
    pub(super) fingerprint: String,
}

/// How the texts of a role become token ids: `[CLS] marker prefix text [SEP] fill`.
#[derive(Clone, Debug)]
pub(super) struct TextForm {
    /// Put before the text, as text.
    pub(super) prefix: String,
    /// Put behind the opening marker.
    pub(super) marker: Option<u32>,
    /// All ids together; the end of a longer text is cut off.
    pub(super) max_tokens: usize,
    /// Fills up to `max_tokens`.
    pub(super) fill: Option<Fill>,
    /// Ids that get no vector of their own.
    pub(super) skipped: BTreeSet<u32>,
}

/// Query augmentation (arXiv 2004.12832, section 3.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    pub(super) id: u32,
    /// Whether other tokens attend to the fill. It attends to the others in any case, and gets vectors.
    pub(super) is_attended: bool,
}

/// Which vectors a text gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// One, pooled over its tokens.
    Pooled(Pooling),
    /// One a token, without those of [`TextForm::skipped`].
    PerToken,
}

/// How the hidden states of a text become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooling {
    /// Their mean.
    Mean,
    /// The first.
    Cls,
    /// The largest of each column.
    Max,
}

impl TextForm {
    fn ids(&self, text: &str, tokenizer: &BertTokenizer) -> Result<TokenIds, ModelError> {
        let prefixed;
        let text = if self.prefix.is_empty() {
            text
        } else {
            prefixed = format!("{}{text}", self.prefix);
            &prefixed
        };
        let tokens = tokenizer.encode(text)?;
        let n_markers = 2 + usize::from(self.marker.is_some());
        let n_kept = tokens.len().min(self.max_tokens - n_markers);
        let mut ids = Vec::with_capacity(n_kept + n_markers);
        ids.push(tokenizer.open_id);
        ids.extend(self.marker);
        ids.extend(&tokens[..n_kept]);
        ids.push(tokenizer.close_id);
        let mut n_attended = ids.len();
        if let Some(fill) = self.fill {
            ids.resize(self.max_tokens, fill.id);
            if fill.is_attended {
                n_attended = ids.len();
            }
        }
        Ok(TokenIds { n_first_type: ids.len(), ids, n_attended })
    }
}

impl Encoder for TextEncoder {
    fn dim(&self) -> usize {
        self.projection.as_ref().map_or(self.backbone.hidden_size(), Panels::n)
    }

    fn kind(&self) -> VectorKind {
        match self.head {
            Head::Pooled(_) => VectorKind::Single,
            Head::PerToken => VectorKind::PerToken,
        }
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn encode(&self, texts: &[&str], role: TextRole) -> Result<Vec<Embedding>, EncodeError> {
        let form = match role {
            TextRole::Query => &self.query,
            TextRole::Passage => &self.passage,
        };
        let tokenize = |text: &str| form.ids(text, &self.tokenizer);
        let embeddings = self.backbone.run(texts, tokenize, |ids, hidden| self.embedding(hidden, &ids.ids, form));
        embeddings.map_err(|error| EncodeError(error.to_string()))
    }
}

impl TextEncoder {
    /// The embedding of a text by its hidden states `[n, h]`.
    fn embedding(&self, hidden: &[f32], ids: &[u32], form: &TextForm) -> Embedding {
        let h = self.backbone.hidden_size();
        let mut values = match self.head {
            Head::Pooled(pooling) => pooling.apply(hidden, h),
            Head::PerToken => {
                let tokens = ids.iter().zip(hidden.chunks_exact(h));
                tokens.filter(|(id, _)| !form.skipped.contains(id)).flat_map(|(_, row)| row).copied().collect()
            }
        };
        if let Some(projection) = &self.projection {
            let (n, dim) = (values.len() / h, projection.n());
            let mut projected = vec![0.0; n * dim];
            let product = MatMut::new(&mut projected, n, dim);
            matmul_serial(MatRef::new(&values, n, h), Operand::Panels(projection), product, false);
            values = projected;
        }
        let dim = self.dim();
        values.chunks_exact_mut(dim).for_each(normalize);
        Embedding { dim, values }
    }
}

impl Pooling {
    /// The pooled row of `hidden` `[n, h]`.
    fn apply(self, hidden: &[f32], h: usize) -> Vec<f32> {
        let (first, others) = hidden.split_at(h);
        let mut pooled = first.to_vec();
        match self {
            Self::Cls => {}
            Self::Mean => {
                others.chunks_exact(h).for_each(|row| add(&mut pooled, row));
                scale(&mut pooled, h as f32 / hidden.len() as f32);
            }
            Self::Max => others.chunks_exact(h).for_each(|row| {
                for (best, x) in pooled.iter_mut().zip(row) {
                    *best = best.max(*x);
                }
            }),
        }
        pooled
    }
}

/// Gives a vector the Euclidean length 1; one of zeros stays as it is, as torch.nn.functional.normalize has it.
fn normalize(vector: &mut [f32]) {
    let length = sum_of_squares(vector).sqrt();
    scale(vector, (1.0 / length.max(1e-12)) as f32);
}
