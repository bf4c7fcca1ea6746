//! Gold passages that are known by their words to the ids of a corpus, in one pass over it.
use crate::CorpusError;
use crate::words::{bare_title, position, share, words};
use exsearch_schema::{GoldTrajectory, Passage, PassageId};
use serde::Serialize;
use std::collections::HashMap;

/// A gold passage of a step without an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sought {
    /// Its trajectory, a position in the rows.
    pub row_idx: usize,
    /// Its step, from 0.
    pub step_idx: usize,
    /// Its title, as the data set has it.
    pub title: String,
    /// Its sentences that matter, or all of its text.
    pub text: String,
}

/// How many gold passages were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LocateCounts {
    /// That were sought.
    pub n_sought: usize,
    /// That the corpus holds.
    pub n_found: usize,
}

/// Of the words that are sought, a passage of the same title must have so many. Dumps of other years word a page anew, and a page of
/// several passages has most words of a sentence in one of them.
const LEAST_SHARE: f64 = 0.5;

/// Finds, for each gold passage, the passage of the corpus with the same title (what stands in brackets aside) that holds the step's
/// fact, or else most of the words, and notes its id in the step. The first of equals.
pub fn locate_passages(
    rows: &mut [GoldTrajectory],
    sought: &[Sought],
    passages: impl IntoIterator<Item = Result<Passage, CorpusError>>,
) -> Result<LocateCounts, CorpusError> {
    let key = |title: &str| words(bare_title(title)).join(" ");
    let mut by_title: HashMap<String, Vec<usize>> = HashMap::new();
    for (sought_idx, it) in sought.iter().enumerate() {
        by_title.entry(key(&it.title)).or_default().push(sought_idx);
    }
    let mut best: Vec<Option<((bool, f64), PassageId)>> = vec![None; sought.len()];
    for passage in passages {
        let passage = passage?;
        let Some(wanted) = by_title.get(&key(&passage.title)) else { continue };
        let passage_words = words(&format!("{} {}", passage.title, passage.text));
        for &sought_idx in wanted {
            let it = &sought[sought_idx];
            let fact = words(&rows[it.row_idx].steps[it.step_idx].fact);
            let fit = (position(&passage_words, &fact).is_some(), share(&passage_words, &words(&it.text)));
            if fit.1 >= LEAST_SHARE && best[sought_idx].as_ref().is_none_or(|(before, _)| fit > *before) {
                best[sought_idx] = Some((fit, passage.id.clone()));
            }
        }
    }
    let mut counts = LocateCounts { n_sought: sought.len(), n_found: 0 };
    for (it, found) in sought.iter().zip(best) {
        let Some((_, id)) = found else { continue };
        counts.n_found += 1;
        let docs = &mut rows[it.row_idx].steps[it.step_idx].docs;
        if !docs.contains(&id) {
            docs.push(id);
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsearch_schema::GoldStep;

    #[test]
    fn the_passage_of_the_title_that_holds_the_fact_is_taken() {
        let passage = |id: &str, title: &str, text: &str| Passage {
            id: id.into(),
            title: title.to_owned(),
            text: text.to_owned(),
        };
        let corpus = [
            passage("1", "Up", "A film of 2009 about an old man and a house."),
            passage("2", "Up (film)", "It was made by Pete Docter, an old man says of a house in the film."),
            passage("3", "Down", "A film of 2009 about an old man, made by Pete Docter."),
        ];
        let check = |title: &str, text: &str, expect: &[&str]| {
            let step = GoldStep { query: "q".to_owned(), docs: Vec::new(), fact: "Pete Docter".to_owned() };
            let (id, question, answer) = ("a".to_owned(), "q".to_owned(), "a".to_owned());
            let mut rows = [GoldTrajectory { id, question, steps: vec![step], answer, dataset: None }];
            let sought = [Sought { row_idx: 0, step_idx: 0, title: title.to_owned(), text: text.to_owned() }];
            let counts = locate_passages(&mut rows, &sought, corpus.iter().cloned().map(Ok)).expect("readable");
            assert_eq!(counts, LocateCounts { n_sought: 1, n_found: expect.len() });
            assert_eq!(rows[0].steps[0].docs, expect.iter().map(|&id| PassageId::from(id)).collect::<Vec<_>>());
        };
        check("Up", "a film about an old man, a house", &["2"]);
        check("Up", "balloons lift some furniture", &[]);
        check("Up and down", "a film about an old man", &[]);
    }
}
