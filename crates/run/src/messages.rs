//! Trajectories to and from the training file of the published code: a JSON list of `{"messages": [{"role", "content"}], "prob"}`.
//!
//! Its inference output, `{"output": [{"query_id", "messages", ..}]}`, is read as well. What is written has the question's id beside, as
//! `query_id`, which its loader leaves out.
use crate::error::{RunError, io};
use crate::files;
use exsearch_agent::{ChatFault, Protocol, read_messages};
use exsearch_evaluation::counted_prediction;
use exsearch_schema::{GoldTrajectory, Message, PassageId, QaRecord, Trajectory};
use exsearch_trainset::Weight;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A row of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessagesRow {
    /// The chat.
    pub messages: Vec<Message>,
    /// How much it counts: the weight. The published code has the mean cross-entropy of all turns here.
    #[serde(default = "whole")]
    pub prob: f64,
    /// The question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_id: Option<PassageId>,
}

fn whole() -> f64 {
    1.0
}

/// What became of trajectories that were written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExportStats {
    /// All of them.
    pub n_trajectories: usize,
    /// Left out: there is no answer.
    pub n_failed: usize,
    /// Left out: their weight is 0.
    pub n_weightless: usize,
    /// Rows in the file.
    pub n_written: usize,
    /// Select turns of theirs, which are no rows of their own: their candidates are kept as ids only.
    pub n_select_turns: usize,
}

/// What became of chats that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImportStats {
    /// All of them.
    pub n_rows: usize,
    /// That became gold trajectories.
    pub n_converted: usize,
    /// That did not, by reason.
    pub left_out: BTreeMap<String, usize>,
}

/// Trajectories as rows: in the words of `protocol`, or as recorded without one. A row's `prob` is its weight, 1 without weights.
/// With `questions` the answer is the question's gold one, as in training; else the trajectory's own. Errors at a trajectory whose
/// question or weight is missing.
pub fn export(
    trajectories: &[Trajectory],
    weights: Option<&[Weight]>,
    questions: Option<&[QaRecord]>,
    protocol: Option<&Protocol>,
) -> Result<(Vec<MessagesRow>, ExportStats), RunError> {
    let weights: Option<HashMap<(&str, u32), f64>> = weights.map(|weights| {
        weights.iter().map(|weight| ((weight.question_id.as_str(), weight.sample_idx), weight.weight)).collect()
    });
    let gold: Option<HashMap<&str, &str>> =
        questions.map(|questions| questions.iter().map(|row| (row.id.as_str(), row.answers.canonical())).collect());
    let (mut rows, mut stats) = (Vec::new(), ExportStats::default());
    for trajectory in trajectories {
        stats.n_trajectories += 1;
        let id = trajectory.question_id.as_str();
        let missing =
            |what| RunError::Unmatched { what, question_id: id.to_owned(), sample_idx: trajectory.sample_idx };
        let weight = match &weights {
            Some(weights) => *weights.get(&(id, trajectory.sample_idx)).ok_or_else(|| missing("weight"))?,
            None => whole(),
        };
        let gold = match &gold {
            Some(gold) => Some(*gold.get(id).ok_or_else(|| missing("question"))?),
            None => None,
        };
        let Some(prediction) = counted_prediction(trajectory) else {
            stats.n_failed += 1;
            continue;
        };
        if weight == 0.0 {
            stats.n_weightless += 1;
            continue;
        }
        let answer = gold.unwrap_or(prediction);
        let messages = match protocol {
            Some(protocol) => protocol.messages(trajectory, answer),
            None => {
                let (_, before) = trajectory.messages.split_last().expect("it has an answer");
                [before, &[Message::assistant(answer)]].concat()
            }
        };
        stats.n_written += 1;
        stats.n_select_turns += trajectory.steps.iter().filter(|step| step.select.is_some()).count();
        rows.push(MessagesRow { messages, prob: weight, query_id: Some(id.into()) });
    }
    Ok((rows, stats))
}

/// Writes rows as a JSON list, a row a line.
pub fn write_messages(path: &Path, rows: &[MessagesRow]) -> Result<(), RunError> {
    let lines: Vec<String> =
        rows.iter().map(|row| serde_json::to_string(row).expect("plain data serializes")).collect();
    let separator = if lines.is_empty() { "" } else { "\n" };
    files::write(path, format!("[{separator}{}{separator}]\n", lines.join(",\n")).as_bytes())
}

/// Reads a file of the published code as gold trajectories. A row without an id is named by the file and its position.
pub fn import(path: &Path) -> Result<(Vec<GoldTrajectory>, ImportStats), RunError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Rows {
        Training(Vec<MessagesRow>),
        Inference { output: Vec<MessagesRow> },
    }
    let bytes = std::fs::read(path).map_err(io(path))?;
    let read: Rows = serde_json::from_slice(&bytes).map_err(|error| RunError::Malformed {
        path: path.to_owned(),
        line: error.line().max(1),
        reason: format!("{error}; a JSON list of {{\"messages\", \"prob\"}} is wanted"),
    })?;
    let (Rows::Training(rows) | Rows::Inference { output: rows }) = read;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut stats = ImportStats { n_rows: rows.len(), ..ImportStats::default() };
    let mut gold = Vec::new();
    for (row_idx, row) in rows.iter().enumerate() {
        let id = row.query_id.clone().map_or_else(|| format!("{stem}-{}", row_idx + 1), |id| id.0);
        match read_messages(&id, &row.messages) {
            Ok(trajectory) => gold.push(trajectory),
            Err(fault) => *stats.left_out.entry(kind(&fault).to_owned()).or_default() += 1,
        }
    }
    stats.n_converted = gold.len();
    Ok((gold, stats))
}

fn kind(fault: &ChatFault) -> &'static str {
    match fault {
        ChatFault::SelectTurn => "select_turn",
        ChatFault::NoQuestion => "no_question",
        ChatFault::NoMarks => "no_marks",
        ChatFault::NoQuery { .. } => "no_query",
        ChatFault::NoFact { .. } => "no_fact",
        ChatFault::NoAnswer => "no_answer",
    }
}
