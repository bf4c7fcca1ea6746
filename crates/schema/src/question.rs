//! Questions and what is known of their answers. The agent is given a [`Question`] only; gold never reaches it.
use crate::PassageId;
use serde::{Deserialize, Serialize};

/// What the agent is asked. Holds no gold: that it cannot leak is a matter of types.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Unique within its file.
    pub id: String,
    /// The words of the question.
    pub text: String,
}

/// The accepted answers of a question: the first is the canonical one, the others are aliases. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct GoldAnswers(Vec<String>);

/// A question came without a gold answer, so no prediction for it could be scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmptyGold;

/// One row of a question file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QaRecord {
    /// Unique within its file.
    pub id: String,
    /// The words of the question.
    pub question: String,
    /// The accepted answers.
    pub answers: GoldAnswers,
    /// The gold passages, in the order of the decomposition where there is one.
    #[serde(default)]
    pub supporting: Vec<Supporting>,
    /// The number of passages that must be read one after the other or side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops: Option<u32>,
    /// `composition`, `comparison`, `intersection`, ... as the data set names it.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The data set it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// `train`, `dev` or `test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
}

/// A gold passage of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supporting {
    /// Its id in the corpus.
    pub id: PassageId,
    /// Its title.
    #[serde(default)]
    pub title: String,
}

/// One step of a gold decomposition: what to search for and what to find.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldStep {
    /// The sub-query.
    pub query: String,
    /// The passages that answer it.
    #[serde(default)]
    pub docs: Vec<PassageId>,
    /// The answer to the sub-query.
    pub fact: String,
}

/// A question solved by its gold decomposition: what warm-up training learns from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldTrajectory {
    /// The id of its question.
    pub id: String,
    /// The words of the question.
    pub question: String,
    /// The steps in order.
    pub steps: Vec<GoldStep>,
    /// The answer to the question.
    #[serde(rename = "final")]
    pub answer: String,
    /// The data set it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
}

impl GoldAnswers {
    /// Keeps the answers in order. Errors when there is none.
    pub fn new(answers: Vec<String>) -> Result<Self, EmptyGold> {
        if answers.is_empty() { Err(EmptyGold) } else { Ok(Self(answers)) }
    }

    /// The canonical answer first, then the aliases.
    pub fn aliases(&self) -> &[String] {
        &self.0
    }

    /// The canonical answer.
    pub fn canonical(&self) -> &str {
        &self.0[0]
    }
}

impl QaRecord {
    /// What the agent may see of this row.
    pub fn ask(&self) -> Question {
        Question { id: self.id.clone(), text: self.question.clone() }
    }
}

impl TryFrom<Vec<String>> for GoldAnswers {
    type Error = EmptyGold;

    fn try_from(answers: Vec<String>) -> Result<Self, EmptyGold> {
        Self::new(answers)
    }
}

impl From<GoldAnswers> for Vec<String> {
    fn from(gold: GoldAnswers) -> Self {
        gold.0
    }
}

impl std::fmt::Display for EmptyGold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a question needs at least one gold answer")
    }
}

impl std::error::Error for EmptyGold {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_without_gold_is_refused() {
        let row = r#"{"id":"q","question":"who?","answers":[]}"#;
        let error = serde_json::from_str::<QaRecord>(row).expect_err("no answer");
        assert!(error.to_string().contains("at least one gold answer"), "{error}");
    }
}
