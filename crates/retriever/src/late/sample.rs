//! The vectors of passages drawn from the whole corpus, among which the centroids are found.
use super::Step;
use super::manifest::LateConfig;
use crate::Error;
use crate::encode::encode_passages;
use crate::stream::encode_error;
use exsearch_kernels::SplitMix64;
use exsearch_schema::{Embedding, Encoder, Passage};
use std::collections::HashMap;

/// More are never needed: 2^18 centroids, the most there are, are found among 8.4M vectors, of 84 passages a thousand.
const MAX_PASSAGES: usize = 100_000;

/// A sample's vectors.
pub(super) struct Sample {
    /// One after the other.
    pub(super) vectors: Vec<f32>,
    /// About how many vectors the corpus has.
    pub(super) n_tokens: u64,
    /// Passages that need not be encoded again, by their position in the corpus.
    pub(super) kept: HashMap<u64, Embedding>,
}

/// Draws a sample as large as the codec asks for, as far as half of the memory allows; the other half keeps its vectors for
/// when their passages come. Reads the corpus once.
pub(super) fn sample<E>(
    corpus: impl IntoIterator<Item = Result<Passage, E>>,
    encoder: &dyn Encoder,
    config: &LateConfig,
    progress: &mut dyn FnMut(Step),
) -> Result<Sample, Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (drawn, n_passages) = draw(corpus, config.seed)?;
    let max_tokens = ((config.memory_mb as u64) << 20) / 2 / (4 * encoder.dim() as u64);
    let mut sample = Sample { vectors: Vec::new(), n_tokens: 0, kept: HashMap::new() };
    let (mut n_encoded, n_drawn) = (0, drawn.len());
    let mut drawn = drawn.into_iter();
    loop {
        let (positions, batch): (Vec<u64>, Vec<Passage>) = drawn.by_ref().take(config.batch).unzip();
        let embeddings = encode_passages(encoder, &batch);
        let embeddings =
            embeddings.map_err(|source| encode_error(positions.first().copied().unwrap_or(0), 1, source))?;
        n_encoded += batch.len() as u64;
        for (position, embedding) in positions.into_iter().zip(embeddings) {
            sample.vectors.extend_from_slice(&embedding.values);
            sample.kept.insert(position, embedding);
        }
        let n_tokens = (sample.vectors.len() / encoder.dim()) as u64;
        sample.n_tokens = (n_tokens as f64 / n_encoded.max(1) as f64 * n_passages as f64).ceil() as u64;
        let n_wanted_tokens = config.codec().n_sample_tokens(sample.n_tokens).min(max_tokens);
        let per_passage = n_tokens as f64 / n_encoded.max(1) as f64;
        let n_wanted = ((n_wanted_tokens as f64 / per_passage.max(1.0)).ceil() as u64).min(n_drawn as u64);
        progress(Step::Sampling { n_encoded, n_wanted: n_wanted.max(n_encoded) });
        if n_tokens >= n_wanted_tokens || n_encoded == n_drawn as u64 {
            return Ok(sample);
        }
    }
}

/// Up to [`MAX_PASSAGES`] passages with their positions, each passage of the corpus as likely as any other, in random order;
/// and how many the corpus has. (Vitter's algorithm R, ACM TOMS 1985, in place: each drawn one takes the place of another.)
fn draw<E>(corpus: impl IntoIterator<Item = Result<Passage, E>>, seed: u64) -> Result<(Vec<(u64, Passage)>, u64), Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut random = SplitMix64(seed);
    let mut drawn: Vec<(u64, Passage)> = Vec::new();
    let mut n_passages = 0;
    for passage in corpus {
        let passage = passage.map_err(|error| Error::Source { number: n_passages + 1, source: error.into() })?;
        n_passages += 1;
        let place = random.below(n_passages) as usize;
        if drawn.len() < MAX_PASSAGES {
            // A shuffle as it grows (Fisher and Yates, inside out).
            drawn.push((n_passages - 1, passage));
            let last = drawn.len() - 1;
            drawn.swap(place, last);
        } else if let Some(slot) = drawn.get_mut(place) {
            *slot = (n_passages - 1, passage);
        }
    }
    Ok((drawn, n_passages))
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsearch_schema::PassageId;

    #[test]
    fn every_passage_is_as_likely_as_any_other() {
        let n_passages = MAX_PASSAGES as u64 + 50_000;
        let passage = |i: u64| Passage { id: PassageId(i.to_string()), title: String::new(), text: String::new() };
        let corpus = (0..n_passages).map(|i| Ok::<_, std::convert::Infallible>(passage(i)));
        let (drawn, n_read) = draw(corpus, 7).expect("reads");
        assert_eq!((drawn.len(), n_read), (MAX_PASSAGES, n_passages));
        assert!(drawn.iter().all(|(position, passage)| passage.id.0 == position.to_string()));
        // Thirds of the corpus each have a third of the sample, within five standard deviations of about 105.
        for third in 0..3 {
            let range = third * 50_000..(third + 1) * 50_000;
            let n_drawn = drawn.iter().filter(|(position, _)| range.contains(position)).count();
            assert!(n_drawn.abs_diff(MAX_PASSAGES / 3) < 600, "{n_drawn}");
        }
        // So does the first third of the sample, whose order is random too.
        let early = drawn[..MAX_PASSAGES / 3].iter().filter(|(position, _)| *position < 50_000).count();
        assert!(early.abs_diff(MAX_PASSAGES / 9) < 600, "{early}");
    }
}
