//! Fictional worlds: small corpora with questions of known answers, for learning to search without downloads.
//!
//! A world is people in families, cities in regions, companies, and books, films and songs; one short passage for each.
//! Everything is invented, so no model knows an answer and every one must be searched for. Every question comes with its
//! gold passages and its gold decomposition.
//!
//! The steps, each in its file: `facts` decides what is true, `prose` says it in passages, `ask` draws chains of facts,
//! `phrase` puts them into words. Knows nothing of retrieval or models.
mod ask;
mod config;
mod facts;
mod names;
mod phrase;
mod prose;
mod random;

pub use config::{WorldConfig, WorldSummary};

use crate::{CorpusError, PassageFormat, PassageWriter, write_json, write_jsonl};
use ask::Asker;
use config::KIND_NAMES;
use exsearch_schema::{GoldTrajectory, Passage, PassageId, QaRecord};
use facts::{Facts, Sizes};
use random::Random;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The version of the layout that [`World::write`] leaves; goes up when a reader of older worlds would go wrong.
const FORMAT_VERSION: u32 = 1;

/// A corpus and questions about it.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// What it was made from.
    pub config: WorldConfig,
    /// One passage for each entity, titled by its name; ids from 1 in the order of the list.
    pub passages: Vec<Passage>,
    /// Questions to learn from.
    pub train: Vec<WorldQuestion>,
    /// Questions to choose checkpoints by.
    pub dev: Vec<WorldQuestion>,
    /// Questions to report on.
    pub test: Vec<WorldQuestion>,
    /// Questions whose gold trajectories are for warm-up.
    pub warmup: Vec<WorldQuestion>,
}

/// A question of a world with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldQuestion {
    /// The question, its answer and its passages, one a hop.
    pub record: QaRecord,
    /// Its decomposition. The fact of a step is the bare answer to the step's query.
    pub gold: GoldTrajectory,
}

/// What `world.json` holds.
#[derive(Serialize)]
struct Manifest<'a> {
    format: &'static str,
    version: u32,
    config: &'a WorldConfig,
    summary: &'a WorldSummary,
}

impl World {
    /// Makes a world. Errors when a setting is out of range or the world has too few questions of a kind.
    pub fn generate(config: &WorldConfig) -> Result<Self, CorpusError> {
        config.check()?;
        let stream = |number| Random::new(config.seed, number);
        let facts = Facts::generate(config.n_people, &mut stream(0));
        let by_entity = passages(&facts, &mut stream(1));
        let mut asker = Asker::new(&facts, &by_entity);
        // Test and dev come first: what is drawn for them does not depend on how much is drawn to learn from.
        let mut ask = |split, number, n_questions, hop_weights| {
            asker.ask(split, config.seed, config.quotas(n_questions, hop_weights), &mut stream(number))
        };
        let test = ask("test", 2, config.n_test, config.hop_weights)?;
        let dev = ask("dev", 3, config.n_dev, config.hop_weights)?;
        let warmup = ask("warmup", 4, config.n_warmup, config.warmup_hop_weights)?;
        let train = ask("train", 5, config.n_train, config.hop_weights)?;
        let mut passages = by_entity;
        passages.sort_by_key(|passage| passage.id.0.parse::<u32>().expect("ids are numbers"));
        Ok(Self { config: config.clone(), passages, train, dev, test, warmup })
    }

    /// What the world came to.
    pub fn summary(&self) -> WorldSummary {
        let Sizes { n_people, n_cities, n_regions, n_companies, n_works } = Sizes::new(self.config.n_people);
        let words =
            |passage: &Passage| passage.title.split_whitespace().count() + passage.text.split_whitespace().count();
        let splits = [("train", &self.train), ("dev", &self.dev), ("test", &self.test), ("warmup", &self.warmup)];
        WorldSummary {
            n_passages: self.passages.len(),
            n_people,
            n_cities,
            n_regions,
            n_companies,
            n_works,
            max_passage_words: self.passages.iter().map(words).max().unwrap_or_default(),
            questions: splits.map(|(split, questions)| (split.to_owned(), count_kinds(questions))).into(),
        }
    }

    /// Writes the world into a folder, which is made where it is missing: `passages.tsv` in DPR's format; `train.jsonl`,
    /// `dev.jsonl` and `test.jsonl` with questions; `warmup.jsonl` and, of the training questions, `train_gold.jsonl`
    /// with gold trajectories; last `world.json` with the settings and counts.
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<WorldSummary, CorpusError> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(|source| CorpusError::write(dir, source))?;
        let mut writer = PassageWriter::create(dir.join("passages.tsv"), PassageFormat::DprTsv)?;
        for passage in &self.passages {
            writer.write(passage)?;
        }
        writer.finish()?;
        for (name, questions) in [("train.jsonl", &self.train), ("dev.jsonl", &self.dev), ("test.jsonl", &self.test)] {
            write_jsonl(dir.join(name), questions.iter().map(|question| &question.record))?;
        }
        for (name, questions) in [("warmup.jsonl", &self.warmup), ("train_gold.jsonl", &self.train)] {
            write_jsonl(dir.join(name), questions.iter().map(|question| &question.gold))?;
        }
        let summary = self.summary();
        let (format, version) = ("exsearch-world", FORMAT_VERSION);
        write_json(dir.join("world.json"), &Manifest { format, version, config: &self.config, summary: &summary })?;
        Ok(summary)
    }
}

/// The passages by entity. Ids are dealt at random, so that they say nothing about the kind.
fn passages(facts: &Facts, random: &mut Random) -> Vec<Passage> {
    let mut ids: Vec<_> = (1..=facts.entities.len()).collect();
    random.shuffle(&mut ids);
    let told = facts.entities.iter().zip(ids).map(|(entity, id)| Passage {
        id: PassageId(id.to_string()),
        title: entity.name.clone(),
        text: prose::passage_text(facts, entity, random),
    });
    told.collect()
}

fn count_kinds(questions: &[WorldQuestion]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for WorldQuestion { record, .. } in questions {
        let kind = record.kind.as_deref().unwrap_or_default();
        let name = match record.hops {
            Some(hops) if !KIND_NAMES.contains(&kind) => format!("{hops}-hop"),
            _ => kind.to_owned(),
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
