//! A toy encoder whose vectors are functions of words, and a retriever that says what it is told to say.
use exsearch_schema::{
    Embedding, EncodeError, Encoder, Hit, Passage, PassageId, RetrieveError, Retriever, TextRole, VectorKind,
};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) const DIM: usize = 24;

/// A word is a direction that its hash gives; a text is their sum (`Single`) or their list (`PerToken`). A word that starts
/// with `!` is one that it fails on.
pub(crate) struct WordEncoder {
    pub(crate) kind: VectorKind,
    pub(crate) fingerprint: String,
    pub(crate) n_texts: AtomicUsize,
}

impl WordEncoder {
    pub(crate) fn new(kind: VectorKind) -> Self {
        Self { kind, fingerprint: "toy:1".to_owned(), n_texts: AtomicUsize::new(0) }
    }

    pub(crate) fn n_texts(&self) -> usize {
        self.n_texts.load(Ordering::Relaxed)
    }
}

impl Encoder for WordEncoder {
    fn dim(&self) -> usize {
        DIM
    }

    fn kind(&self) -> VectorKind {
        self.kind
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn encode(&self, texts: &[&str], _: TextRole) -> Result<Vec<Embedding>, EncodeError> {
        self.n_texts.fetch_add(texts.len(), Ordering::Relaxed);
        let encode = |text: &&str| {
            let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '!');
            let words: Vec<Vec<f32>> = words.filter(|word| !word.is_empty()).map(direction).collect();
            let values = match self.kind {
                VectorKind::PerToken => words.concat(),
                VectorKind::Single => {
                    let sum = |at: usize| words.iter().map(|word| word[at]).sum::<f32>();
                    unit((0..DIM).map(sum).collect())
                }
            };
            Embedding { dim: DIM, values }
        };
        match texts.iter().find(|text| text.contains('!')) {
            Some(text) => Err(EncodeError(format!("cannot encode {text:?}"))),
            None => Ok(texts.iter().map(encode).collect()),
        }
    }
}

fn direction(word: &str) -> Vec<f32> {
    let number = |at: usize| {
        let mut hasher = DefaultHasher::new();
        (word.to_lowercase(), at).hash(&mut hasher);
        (hasher.finish() % 2001) as f32 / 1000.0 - 1.0
    };
    unit((0..DIM).map(number).collect())
}

fn unit(vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-6);
    vector.iter().map(|value| value / length).collect()
}

pub(crate) fn passage(id: &str, title: &str, text: &str) -> Passage {
    Passage { id: PassageId::from(id), title: title.to_owned(), text: text.to_owned() }
}

/// Passages of five words out of forty.
pub(crate) fn corpus(n_passages: u64) -> Vec<Passage> {
    let word = |at: u64| format!("word{}", at % 40);
    let text = |i: u64| [i, i * 7 + 1, i * i, i / 3, i * 11 + 5].map(word).join(" ");
    (0..n_passages).map(|i| passage(&format!("p{i}"), &word(i * 3), &text(i))).collect()
}

/// Answers from a list, and remembers what it was asked.
#[derive(Default)]
pub(crate) struct ScriptedRetriever {
    answers: HashMap<String, Result<Vec<Hit>, RetrieveError>>,
    asked: Mutex<Vec<(String, usize)>>,
}

impl ScriptedRetriever {
    pub(crate) fn new(answers: &[(&str, Result<&[&str], RetrieveError>)]) -> Self {
        let hits = |ids: &[&str]| (1u16..).zip(ids).map(|(rank, id)| hit(id, 1.0 / f32::from(rank))).collect();
        let answers = answers.iter().map(|(query, answer)| ((*query).to_owned(), answer.clone().map(hits)));
        Self { answers: answers.collect(), asked: Mutex::default() }
    }

    pub(crate) fn asked(&self) -> Vec<(String, usize)> {
        self.asked.lock().expect("no panic").clone()
    }
}

impl Retriever for ScriptedRetriever {
    fn search_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
        let mut asked = self.asked.lock().expect("no panic");
        let mut answer = |query: &&str| {
            asked.push(((*query).to_owned(), top_k));
            let answer = self.answers.get(*query).cloned().unwrap_or(Ok(Vec::new()));
            answer.map(|hits| hits.into_iter().take(top_k).collect())
        };
        queries.iter().map(&mut answer).collect()
    }
}

/// A hit whose title and text are made from its id.
pub(crate) fn hit(id: &str, score: f32) -> Hit {
    Hit { id: PassageId::from(id), title: format!("title of {id}"), text: format!("text of {id}"), score }
}

pub(crate) fn ids(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.id.0.as_str()).collect()
}
