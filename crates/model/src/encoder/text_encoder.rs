//! Texts -> vectors: token ids by role, BERT over packs of texts, then one vector a text or one a token, of length 1.
//!
//! Knows nothing of how checkpoints lie on disk: `sentence` and `colbert` fill in what it is made of.
use super::bert::{Bert, TokenIds, Workspace};
use super::tokens::BertTokenizer;
use crate::ModelError;
use exsearch_kernels::{MatMut, MatRef, Operand, Panels, add, matmul_serial, scale, sum_of_squares};
use exsearch_schema::{Embedding, EncodeError, Encoder, TextRole, VectorKind};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// A BERT checkpoint with what turns its hidden states into vectors.
pub(super) struct TextEncoder {
    pub(super) bert: Bert,
    pub(super) tokenizer: BertTokenizer,
    pub(super) query: TextForm,
    pub(super) passage: TextForm,
    pub(super) head: Head,
    /// Hidden to vectors `[h, dim]`, where there is one.
    pub(super) projection: Option<Panels>,
    pub(super) fingerprint: String,
    /// Threads of its own, unless those of the caller are used.
    pub(super) pool: Option<rayon::ThreadPool>,
    /// Buffers of the packs that were encoded at the same time, at most one a thread.
    pub(super) workspaces: Mutex<Vec<Workspace>>,
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

/// Tokens of a pack where there are many texts. Enough rows for the products to be at full speed, few enough for the widest
/// activations to stay in the second-level cache: 256 tokens x 1,536 x 4 B = 1.6 MB for MiniLM.
const PACK_TOKENS: usize = 256;

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
        Ok(TokenIds { ids, n_attended })
    }
}

impl Encoder for TextEncoder {
    fn dim(&self) -> usize {
        self.projection.as_ref().map_or(self.bert.config().hidden_size, Panels::n)
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
        // From inside a pool many short parallel loops cost a fraction of what they cost from outside.
        let embeddings = match &self.pool {
            Some(pool) => pool.install(|| self.encode_in_pool(texts, role)),
            None => rayon::scope(|_| self.encode_in_pool(texts, role)),
        };
        embeddings.map_err(|error| EncodeError(error.to_string()))
    }
}

impl TextEncoder {
    fn encode_in_pool(&self, texts: &[&str], role: TextRole) -> Result<Vec<Embedding>, ModelError> {
        let form = match role {
            TextRole::Query => &self.query,
            TextRole::Passage => &self.passage,
        };
        let ids: Vec<TokenIds> =
            texts.par_iter().map(|text| form.ids(text, &self.tokenizer)).collect::<Result<_, _>>()?;
        let n_threads = rayon::current_num_threads();
        let packs = packs(&ids, n_threads);
        // With a pack or more for every thread none has to wait for another.
        let is_parallel = packs.len() < n_threads;
        let encode = |pack: &Vec<usize>| self.encode_pack(pack, &ids, form, is_parallel);
        let by_pack: Vec<Vec<Embedding>> = if is_parallel {
            packs.iter().map(encode).collect()
        } else {
            packs.par_iter().with_max_len(1).map(encode).collect()
        };
        let mut embeddings = vec![Embedding::default(); texts.len()];
        for (text_idx, embedding) in packs.into_iter().flatten().zip(by_pack.into_iter().flatten()) {
            embeddings[text_idx] = embedding;
        }
        Ok(embeddings)
    }

    /// The embeddings of the texts of a pack, in its order.
    fn encode_pack(&self, pack: &[usize], ids: &[TokenIds], form: &TextForm, is_parallel: bool) -> Vec<Embedding> {
        let kept = || self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workspace = kept().pop().unwrap_or_default();
        let texts: Vec<&TokenIds> = pack.iter().map(|&text_idx| &ids[text_idx]).collect();
        let mut hidden = self.bert.forward(&texts, is_parallel, &mut workspace);
        let h = self.bert.config().hidden_size;
        let embeddings = texts
            .iter()
            .map(|text| {
                let (rows, rest) = hidden.split_at(text.ids.len() * h);
                hidden = rest;
                self.embedding(rows, &text.ids, form)
            })
            .collect();
        kept().push(workspace);
        embeddings
    }

    /// The embedding of a text by its hidden states `[n, h]`.
    fn embedding(&self, hidden: &[f32], ids: &[u32], form: &TextForm) -> Embedding {
        let h = self.bert.config().hidden_size;
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

/// The texts in packs, the longest first, so that no thread is left with a long one at the end.
fn packs(texts: &[TokenIds], n_threads: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&text_idx| std::cmp::Reverse(texts[text_idx].ids.len()));
    let n_tokens: usize = texts.iter().map(|text| text.ids.len()).sum();
    let pack_tokens = n_tokens.div_ceil(n_threads).min(PACK_TOKENS);
    let (mut packs, mut room) = (Vec::<Vec<usize>>::new(), 0);
    for text_idx in order {
        let n = texts[text_idx].ids.len();
        match packs.last_mut() {
            Some(pack) if n <= room => {
                pack.push(text_idx);
                room -= n;
            }
            _ => {
                packs.push(vec![text_idx]);
                room = pack_tokens.saturating_sub(n);
            }
        }
    }
    packs
}
