//! What a step recorded to the passages that say it.
use exsearch_evaluation::metrics::{contains_tokens, normalize};
use exsearch_schema::{PassageId, Step};

/// The passages shown at a step in which its record stands, token for token after normalization; none where nothing was recorded.
pub(crate) fn said_by(step: &Step) -> Vec<PassageId> {
    let record = normalize(step.record.as_deref().unwrap_or_default());
    let says = |text: &str| contains_tokens(&normalize(text), &record);
    let saying = step.hits.iter().filter(|hit| says(&format!("{} {}", hit.title, hit.text)));
    saying.map(|hit| hit.id.clone()).collect()
}
