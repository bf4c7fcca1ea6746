//! Gold trajectories as rows of `{id, question, steps[{query, docs, fact}], final, dataset}`, one JSON object a line.
//!
//! Published collections mix rows with and without the fact of each step; only complete ones can be learned from.
use crate::lines::Lines;
use crate::{BadLines, CorpusError, Fault, SkippedLines};
use exsearch_schema::{GoldStep, GoldTrajectory, PassageId};
use serde::Deserialize;
use std::path::Path;

/// What a file of gold trajectories held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoldRows {
    /// The complete trajectories in the order of the file.
    pub rows: Vec<GoldTrajectory>,
    /// How many were of other data sets.
    pub n_other_dataset: u64,
    /// How many of the wanted data sets lack a step, or the query or fact of one.
    pub n_incomplete: u64,
    /// The rows that are no trajectories; empty unless reading with [`BadLines::Skip`].
    pub skipped: SkippedLines,
}

/// Reads the complete trajectories of `datasets`, or of all when it is empty. Rows without the fact of every step are no
/// error: they are counted and left out.
pub fn read_gold_trajectories(
    path: impl AsRef<Path>,
    datasets: &[&str],
    bad_lines: BadLines,
) -> Result<GoldRows, CorpusError> {
    let mut lines = Lines::open(path.as_ref(), bad_lines)?;
    let mut gold = GoldRows::default();
    while let Some(row) = lines.next_record(|line, _| parse(line).map(Some)) {
        let row = row?;
        let is_wanted = |dataset: &str| datasets.is_empty() || datasets.contains(&dataset);
        if !is_wanted(row.dataset.as_deref().unwrap_or_default()) {
            gold.n_other_dataset += 1;
            continue;
        }
        match row.complete() {
            Some(trajectory) => gold.rows.push(trajectory),
            None => gold.n_incomplete += 1,
        }
    }
    gold.skipped = lines.into_skipped();
    Ok(gold)
}

#[derive(Deserialize)]
struct RawTrajectory {
    id: PassageId,
    question: String,
    steps: Vec<RawStep>,
    #[serde(rename = "final")]
    answer: String,
    dataset: Option<String>,
}

#[derive(Deserialize)]
struct RawStep {
    query: Option<String>,
    #[serde(default)]
    docs: Vec<PassageId>,
    fact: Option<String>,
}

fn parse(line: &str) -> Result<RawTrajectory, Fault> {
    check(serde_json::from_str(line)?)
}

fn check(row: RawTrajectory) -> Result<RawTrajectory, Fault> {
    if row.question.trim().is_empty() {
        return Err(Fault::Empty { field: "question" });
    }
    if row.answer.trim().is_empty() {
        return Err(Fault::Empty { field: "final" });
    }
    Ok(row)
}

/// A row's id and question, and its trajectory if no step lacks anything.
pub(crate) fn complete(row: serde_json::Value) -> Result<(String, String, Option<GoldTrajectory>), Fault> {
    let row = check(serde_json::from_value(row)?)?;
    Ok((row.id.0.clone(), row.question.clone(), row.complete()))
}

impl RawTrajectory {
    fn complete(self) -> Option<GoldTrajectory> {
        let said = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
        let complete =
            |step: RawStep| Some(GoldStep { query: said(step.query)?, docs: step.docs, fact: said(step.fact)? });
        let steps = self.steps.into_iter().map(complete).collect::<Option<Vec<_>>>()?;
        let (id, question, answer, dataset) = (self.id.0, self.question, self.answer, self.dataset);
        (!steps.is_empty()).then_some(GoldTrajectory { id, question, steps, answer, dataset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows in the layout of a public collection: rule-built ones with facts, Search-R1 rollouts without.
    const ROWS: &str = concat!(
        r#"{"id":"a","question":"q","steps":[{"query":"x","docs":[20],"fact":"y"}],"final":"y","dataset":"musique","origin":"o"}"#,
        "\n",
        r#"{"id":"b","question":"q","steps":[{"query":"x","docs":[20],"fact":null}],"final":"y","gold":["y"],"em":1.0,"dataset":"nq"}"#,
        "\n",
        r#"{"id":"c","question":"q","steps":[{"query":"x","docs_text":["t"],"fact":"y"}],"final":"y","dataset":"hotpotqa"}"#,
        "\n",
        r#"{"id":"d","question":"q","steps":[],"final":"y","dataset":"musique"}"#,
        "\n",
        r#"{"id":"e","question":"q","steps":[{"query":"x","fact":"y"}],"final":"","dataset":"musique"}"#,
        "\n",
    );

    fn check(datasets: &[&str], ids: &[&str], n_other_dataset: u64, n_incomplete: u64) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("t.jsonl");
        std::fs::write(&path, ROWS).expect("the fixture is written");
        let gold = read_gold_trajectories(&path, datasets, BadLines::Skip).expect("readable");
        let found: Vec<_> = gold.rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!((found.as_slice(), gold.n_other_dataset, gold.n_incomplete), (ids, n_other_dataset, n_incomplete));
        assert_eq!(gold.skipped.first[0].line, 5);
        assert_eq!(gold.skipped.first[0].reason, Fault::Empty { field: "final" });
    }

    #[test]
    fn rows_are_filtered_by_dataset_and_completeness() {
        check(&[], &["a", "c"], 0, 2);
        check(&["musique"], &["a"], 2, 1);
        check(&["nq"], &[], 3, 1);
    }
}
