//! Rows of HotpotQA, MuSiQue and 2WikiMultihopQA, as published and as our question files keep them, to one shape.
//!
//! Read are, besides what `questions` reads:
//! - MuSiQue: `question_decomposition[{question, answer, paragraph_support_idx}]`, `paragraphs[{idx, title, paragraph_text}]`,
//!   `answerable`
//! - HotpotQA, 2WikiMultihopQA: `supporting_facts[[title, sentence]]`, `context[[title, [sentence]]]`, both also as the columns of
//!   the Hugging Face hub; 2WikiMultihopQA: `evidences[[subject, relation, object]]`
//! - ours: `decomposition[{question, answer, support_id} or {subject, relation, object}]`, `supporting[{id, title, text, facts}]`,
//!   `qa_pairs[{question, answer}]`, the sub-questions that belong to triples
use crate::Fault;
use crate::questions::record;
use exsearch_schema::{PassageId, QaRecord};
use serde::Deserialize;
use serde_json::Value;

/// A question with what is known of the way to its answer.
pub(super) struct Row {
    pub(super) record: QaRecord,
    pub(super) is_answerable: bool,
    pub(super) way: Way,
    /// The gold passages.
    pub(super) supports: Vec<Support>,
    /// Supporting sentences that the row names and does not hold.
    pub(super) n_missing_sentences: usize,
}

/// The way to the answer.
pub(super) enum Way {
    /// Questions and their answers, which may name earlier answers as `#1`.
    Questions(Vec<SubQuestion>),
    /// Facts, and questions for them in words where the row has any.
    Triples(Vec<Triple>, Vec<SubQuestion>),
    /// Only the supporting sentences of the gold passages.
    Sentences,
    /// Nothing.
    Unknown,
}

#[derive(Clone, Debug, Default)]
pub(super) struct SubQuestion {
    pub(super) question: String,
    pub(super) answer: Option<String>,
    pub(super) support: Option<Support>,
}

pub(super) struct Triple {
    pub(super) subject: String,
    pub(super) relation: String,
    pub(super) object: String,
}

/// A gold passage, known by its id in the corpus, by its words, or by both.
#[derive(Clone, Debug, Default)]
pub(super) struct Support {
    pub(super) id: Option<PassageId>,
    pub(super) title: String,
    pub(super) text: String,
    /// The sentences of it that matter, where the row tells.
    pub(super) facts: Vec<String>,
}

impl Row {
    /// Reads a row. `stem` and `number` name one without an id.
    pub(super) fn read(value: Value, stem: &str, number: u64) -> Result<Self, Fault> {
        let raw = RawRow::deserialize(&value)?;
        let mut record = record(value, stem, number)?;
        let layout = raw.dataset();
        record.dataset = record.dataset.or_else(|| layout.map(str::to_owned));
        let is_answerable = raw.answerable.unwrap_or(true);
        let mut n_missing_sentences = 0;
        let supports = match raw.supporting {
            Some(supporting) => supporting.into_iter().map(RawSupport::into_support).collect(),
            None => named_sentences(&raw.supporting_facts, &raw.context, &mut n_missing_sentences),
        };
        let paragraphs = raw.paragraphs.unwrap_or_default();
        let sub_question = |question: String, answer: Option<String>, id: Option<PassageId>, idx: Option<u64>| {
            let by_id = || {
                let known = supports.iter().find(|support| support.id.is_some() && support.id == id);
                known.cloned().or_else(|| id.clone().map(|id| Support { id: Some(id), ..Support::default() }))
            };
            let paragraph = paragraphs.iter().find(|paragraph| idx == Some(paragraph.idx)).map(RawParagraph::support);
            SubQuestion { question, answer, support: paragraph.or_else(by_id) }
        };
        let (mut questions, mut triples) = (Vec::new(), Vec::new());
        for part in raw.decomposition.or(raw.question_decomposition).unwrap_or_default() {
            match part {
                RawPart::Triple { subject, relation, object } => triples.push(Triple { subject, relation, object }),
                RawPart::Question { question, answer, support_id, paragraph_support_idx } => {
                    questions.push(sub_question(question, answer, support_id, paragraph_support_idx));
                }
                RawPart::Text(question) => questions.push(SubQuestion { question, ..SubQuestion::default() }),
            }
        }
        triples.extend(raw.evidences.into_triples());
        let pair = |pair: RawPair| SubQuestion { question: pair.question, answer: Some(pair.answer), support: None };
        let way = if !questions.is_empty() {
            Way::Questions(questions)
        } else if !triples.is_empty() {
            Way::Triples(triples, raw.qa_pairs.unwrap_or_default().into_iter().map(pair).collect())
        } else if supports.iter().any(|support| !support.facts.is_empty()) {
            Way::Sentences
        } else {
            Way::Unknown
        };
        Ok(Self { record, is_answerable, way, supports, n_missing_sentences })
    }
}

/// Supporting facts by title, with their sentences.
fn named_sentences(facts: &RawFacts, context: &RawContext, n_missing: &mut usize) -> Vec<Support> {
    let mut supports: Vec<Support> = Vec::new();
    for (title, sentence_idx) in facts.pairs() {
        let sentences = context.sentences(title);
        let support_idx = supports.iter().position(|support| support.title == *title).unwrap_or_else(|| {
            let text =
                sentences.unwrap_or_default().iter().map(|sentence| sentence.trim()).collect::<Vec<_>>().join(" ");
            supports.push(Support { id: None, title: title.to_owned(), text, facts: Vec::new() });
            supports.len() - 1
        });
        match sentences.and_then(|sentences| sentences.get(sentence_idx)) {
            Some(sentence) => supports[support_idx].facts.push(sentence.trim().to_owned()),
            None => *n_missing += 1,
        }
    }
    supports
}

#[derive(Deserialize)]
struct RawRow {
    decomposition: Option<Vec<RawPart>>,
    question_decomposition: Option<Vec<RawPart>>,
    qa_pairs: Option<Vec<RawPair>>,
    supporting: Option<Vec<RawSupport>>,
    paragraphs: Option<Vec<RawParagraph>>,
    #[serde(default)]
    supporting_facts: RawFacts,
    #[serde(default)]
    context: RawContext,
    #[serde(default)]
    evidences: RawEvidences,
    answerable: Option<bool>,
}

impl RawRow {
    /// The data set whose layout this is, where the row does not name it itself.
    fn dataset(&self) -> Option<&'static str> {
        let has_evidences = !matches!(&self.evidences, RawEvidences::Rows(rows) if rows.is_empty());
        let has_facts = self.supporting_facts.pairs().next().is_some();
        match (self.question_decomposition.is_some(), has_evidences, has_facts) {
            (true, ..) => Some("musique"),
            (_, true, _) => Some("2wikimultihopqa"),
            (.., true) => Some("hotpotqa"),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawPart {
    Triple {
        subject: String,
        relation: String,
        object: String,
    },
    Question {
        question: String,
        answer: Option<String>,
        support_id: Option<PassageId>,
        paragraph_support_idx: Option<u64>,
    },
    Text(String),
}

#[derive(Deserialize)]
struct RawPair {
    question: String,
    answer: String,
}

#[derive(Deserialize)]
struct RawSupport {
    id: Option<PassageId>,
    #[serde(default)]
    title: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    facts: Vec<String>,
}

impl RawSupport {
    fn into_support(self) -> Support {
        let facts = self.facts.iter().map(|fact| fact.trim().to_owned()).filter(|fact| !fact.is_empty()).collect();
        Support { id: self.id, title: self.title, text: self.text, facts }
    }
}

#[derive(Deserialize)]
struct RawParagraph {
    idx: u64,
    title: String,
    paragraph_text: String,
}

impl RawParagraph {
    fn support(&self) -> Support {
        Support { id: None, title: self.title.clone(), text: self.paragraph_text.clone(), facts: Vec::new() }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawFacts {
    Rows(Vec<(String, usize)>),
    Columns { title: Vec<String>, sent_id: Vec<usize> },
}

impl RawFacts {
    fn pairs(&self) -> Box<dyn Iterator<Item = (&str, usize)> + '_> {
        match self {
            Self::Rows(rows) => Box::new(rows.iter().map(|(title, idx)| (title.as_str(), *idx))),
            Self::Columns { title, sent_id } => Box::new(title.iter().map(String::as_str).zip(sent_id.iter().copied())),
        }
    }
}

impl Default for RawFacts {
    fn default() -> Self {
        Self::Rows(Vec::new())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawContext {
    Rows(Vec<(String, Vec<String>)>),
    Columns {
        title: Vec<String>,
        #[serde(alias = "content")]
        sentences: Vec<Vec<String>>,
    },
}

impl RawContext {
    fn sentences(&self, wanted: &str) -> Option<&[String]> {
        match self {
            Self::Rows(rows) => rows.iter().find(|(title, _)| title == wanted).map(|(_, sentences)| &**sentences),
            Self::Columns { title, sentences } => {
                let at = title.iter().position(|title| title == wanted)?;
                sentences.get(at).map(|sentences| &**sentences)
            }
        }
    }
}

impl Default for RawContext {
    fn default() -> Self {
        Self::Rows(Vec::new())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawEvidences {
    Rows(Vec<[String; 3]>),
    Columns { fact: Vec<String>, relation: Vec<String>, entity: Vec<String> },
}

impl RawEvidences {
    fn into_triples(self) -> Vec<Triple> {
        let triple = |[subject, relation, object]: [String; 3]| Triple { subject, relation, object };
        match self {
            Self::Rows(rows) => rows.into_iter().map(triple).collect(),
            Self::Columns { fact, relation, entity } => {
                let rows = fact.into_iter().zip(relation).zip(entity);
                rows.map(|((subject, relation), object)| triple([subject, relation, object])).collect()
            }
        }
    }
}

impl Default for RawEvidences {
    fn default() -> Self {
        Self::Rows(Vec::new())
    }
}
