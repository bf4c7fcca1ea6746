//! Parts of runs that other runs need too: a part that was made from equal input is linked instead of made again.
//!
//! A part's key is the SHA-256 of all that it depends on: the content of its input files, the settings without those that it
//! cannot see, and the keys of the parts that made the model before it. Settings that this file does not name are taken to
//! matter, so that a new one costs sharing, never soundness. `tests` in `exsearch-cli` hold a shared run against one alone.
//!
//! Files of a run are written anew and renamed, never changed in place, so that a hard link is as good as a copy.
use crate::config::{EmConfig, RunConfig};
use crate::error::{RunError, io};
use crate::files::{self, Journal, with_suffix};
use crate::manifest::Manifest;
use crate::workbench::GeneratorConfig;
use exsearch_schema::Trajectory;
use exsearch_track::TrackConfig;
use exsearch_trainset::Scored;
use std::path::{Path, PathBuf};

/// A part of a run that can be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Gold trajectories as training examples.
    WarmupData,
    /// The checkpoint of warm-up.
    WarmupTraining,
    /// Trajectories and scores of an iteration.
    Sampling(usize),
    /// The checkpoint of an iteration that learns from the training set of this hash.
    Training(usize, &'a str),
    /// The model as it is, on a set of questions.
    Evaluation(&'a str),
}

/// A run's view of what is shared.
pub(crate) struct Sharing {
    store: Option<PathBuf>,
    /// The run's configuration with the content of files in place of their paths.
    config: RunConfig,
    /// The keys of the parts that made the model what it is.
    history: Vec<String>,
}

/// Runs of more samples a question are not looked for.
const MOST_SAMPLES: u32 = 64;

impl Sharing {
    /// `store` is the folder that runs share; without one nothing is.
    pub(crate) fn new(config: &RunConfig, manifest: &Manifest, store: Option<&Path>) -> Self {
        let hashes = manifest.by_role();
        let mut config = config.clone();
        for (role, path) in config.inputs_mut() {
            *path = hashes.get(role.as_str()).map(PathBuf::from).unwrap_or_default();
        }
        Self { store: store.map(Path::to_owned), config, history: Vec::new() }
    }

    /// Says that the model has been made by `part` now.
    pub(crate) fn advance(&mut self, part: Part<'_>) {
        self.history.push(self.key(part));
    }

    /// Says that the model is again what it was after the stage of this folder.
    pub(crate) fn rolled_back(&mut self, to: &str) {
        self.history.push(format!("rolled back to {to}"));
    }

    /// Links what is shared of `part` into `dir`, unless the last of `names`, which tells that it is complete, is there.
    pub(crate) fn fetch(&self, part: Part<'_>, dir: &Path, names: &[&str]) -> Result<(), RunError> {
        let Some(store) = &self.store else { return Ok(()) };
        let from = store.join(self.key(part));
        let last = names.last().expect("a part has files");
        if dir.join(last).exists() || !from.is_dir() {
            return Ok(());
        }
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        for name in names {
            let (to, journal) = (dir.join(name), with_suffix(&dir.join(name), ".partial"));
            remove(&journal)?;
            remove(&to)?;
            let linked = with_suffix(&to, ".tmp");
            link(&from.join(name), &linked)?;
            std::fs::rename(&linked, &to).map_err(io(&to))?;
        }
        Ok(())
    }

    /// Puts the samples that runs with another M drew for this iteration into the journals of `dir`, which `fingerprint` names, so
    /// that only the rest is drawn: a sample depends on its question and its number, and on a processor on nothing beside it.
    pub(crate) fn fetch_draws(&self, iteration: usize, dir: &Path, fingerprint: &str) -> Result<(), RunError> {
        let n_samples = self.config.em.samples;
        let [trajectories, scores] = ["trajectories.jsonl", "scores.jsonl"].map(|name| dir.join(name));
        let journals = [&trajectories, &scores].map(|path| with_suffix(path, ".partial"));
        let has_begun = [&trajectories, &scores].into_iter().chain(&journals).any(|path| path.exists());
        let Some(store) = self.store.as_ref().filter(|_| self.config.device.is_cpu() && !has_begun) else {
            return Ok(());
        };
        if !draws_alike(&self.config.em) {
            return Ok(());
        }
        let drawn = |n_samples: u32| {
            let mut other = self.config.clone();
            other.em.samples = n_samples;
            store.join(self.key_in(&other, Part::Sampling(iteration)))
        };
        // One of more samples has all that are wanted; of fewer, the one of the most.
        let others = (n_samples + 1..=MOST_SAMPLES).chain((1..n_samples).rev());
        let Some(from) = others.map(drawn).find(|dir| dir.is_dir()) else { return Ok(()) };
        let [of_trajectories, of_scores] = journals;
        let mut journal = Journal::open::<Trajectory>(&of_trajectories, fingerprint)?.0;
        let rows: Vec<Trajectory> = files::read_jsonl(&from.join("trajectories.jsonl"))?;
        rows.iter().filter(|row| row.sample_idx < n_samples).try_for_each(|row| journal.push(row))?;
        let mut journal = Journal::open::<Scored>(&of_scores, fingerprint)?.0;
        let rows: Vec<Scored> = files::read_jsonl(&from.join("scores.jsonl"))?;
        rows.iter().filter(|row| row.sample_idx < n_samples).try_for_each(|row| journal.push(row))
    }

    /// Shares `names` of `dir`, all of which are complete.
    pub(crate) fn publish(&self, part: Part<'_>, dir: &Path, names: &[&str]) -> Result<(), RunError> {
        let Some(store) = &self.store else { return Ok(()) };
        let to = store.join(self.key(part));
        if to.is_dir() {
            return Ok(());
        }
        // Another process may be making the same part.
        let partial = with_suffix(&to, &format!(".tmp-{}", std::process::id()));
        remove(&partial)?;
        std::fs::create_dir_all(&partial).map_err(io(&partial))?;
        for name in names {
            link(&dir.join(name), &partial.join(name))?;
        }
        match std::fs::rename(&partial, &to) {
            Err(_) if to.is_dir() => remove(&partial),
            renamed => renamed.map_err(io(&to)),
        }
    }

    fn key(&self, part: Part<'_>) -> String {
        self.key_in(&self.config, part)
    }

    fn key_in(&self, config: &RunConfig, part: Part<'_>) -> String {
        let mut text = format!("{part:?}\n{}\n{}\n", env!("CARGO_PKG_VERSION"), seen_by(config, part).to_toml());
        self.history.iter().for_each(|key| text += key);
        files::fingerprint_of(text.as_bytes())
    }
}

/// The configuration without what `part` cannot see: what only changes display or speed, and the settings of other parts.
fn seen_by(config: &RunConfig, part: Part<'_>) -> RunConfig {
    let mut config = config.clone();
    config.title.clear();
    config.track = TrackConfig::default();
    config.generator = GeneratorConfig { weights: config.generator.weights, ..GeneratorConfig::default() };
    config.em = EmConfig { iterations: 0, patience: 0, ..config.em };
    config.health = config.health.reaching_artifacts();
    let set = match part {
        Part::Evaluation(set) => Some(set),
        _ => None,
    };
    config.data.test.retain(|test| Some(test.name.as_str()) == set);
    match part {
        Part::WarmupData | Part::WarmupTraining => {
            forget_dev(&mut config);
            forget_iterations(&mut config);
            config.evaluation = Default::default();
            if part == Part::WarmupData {
                config.warmup = Default::default();
            }
        }
        Part::Evaluation(set) => {
            if set != "dev" {
                forget_dev(&mut config);
            }
            forget_iterations(&mut config);
            forget_warmup(&mut config);
            config.pack = Default::default();
        }
        // What is chosen by dev may reach them; of the model itself, `history` tells.
        Part::Sampling(_) => {
            forget_warmup(&mut config);
            config.pack = Default::default();
            config.train = Default::default();
            if draws_alike(&config.em) {
                config.weights = Default::default();
            }
        }
        Part::Training(..) => {
            forget_warmup(&mut config);
            config.weights = Default::default();
            config.pack = Default::default();
        }
    }
    config
}

/// Whether every question has the same number of samples of the model, whatever the weights: so it is unless `em` has a setting
/// that this file does not name.
fn draws_alike(em: &EmConfig) -> bool {
    let unnamed = |em: &EmConfig| {
        let mut em = em.clone();
        (em.iterations, em.questions, em.samples, em.patience, em.evaluate_untrained) = (0, 0, 0, 0, true);
        em
    };
    unnamed(em) == unnamed(&EmConfig::default())
}

fn forget_dev(config: &mut RunConfig) {
    config.data.dev.clear();
    config.data.dev_split = None;
    config.data.n_dev = None;
}

fn forget_iterations(config: &mut RunConfig) {
    config.health = Default::default();
    config.data.train.clear();
    config.data.train_split = None;
    config.em = EmConfig::default();
    config.weights = Default::default();
    config.train = Default::default();
}

fn forget_warmup(config: &mut RunConfig) {
    config.warmup = Default::default();
    config.data.warmup = None;
    config.data.warmup_datasets.clear();
    config.data.n_warmup = None;
}

/// A hard link, or a copy where the file system has none, of a file or of all files of a folder.
fn link(from: &Path, to: &Path) -> Result<(), RunError> {
    remove(to)?;
    if !from.is_dir() {
        return std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(|_| ())).map_err(io(from));
    }
    std::fs::create_dir_all(to).map_err(io(to))?;
    for entry in std::fs::read_dir(from).map_err(io(from))? {
        let path = entry.map_err(io(from))?.path();
        link(&path, &to.join(path.file_name().expect("an entry has a name")))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), RunError> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).map_err(io(path)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        model = "m"
        [data]
        index = "i"
        train = "t"
        dev = "d"
        warmup = "w"
        n_warmup = 10
        test = [{ name = "test", questions = "q" }]
    "#;

    fn sharing(changes: &str, store: Option<&Path>) -> Sharing {
        let text = format!("{changes}\n{CONFIG}");
        let config: RunConfig = crate::config::parse(&text).expect("valid");
        Sharing { store: store.map(Path::to_owned), config, history: Vec::new() }
    }

    fn parts(examples: &str) -> [Part<'_>; 7] {
        [
            Part::Evaluation("dev"),
            Part::Evaluation("test"),
            Part::WarmupData,
            Part::WarmupTraining,
            Part::Sampling(1),
            Part::Training(1, examples),
            Part::Sampling(2),
        ]
    }

    /// `=` for each of `parts` that a change leaves as it is, `x` for one that it reaches.
    #[test]
    fn a_change_reaches_what_depends_on_it_and_nothing_else() {
        let keys = |changes: &str, examples: &str| {
            let mut sharing = sharing(changes, None);
            parts(examples).map(|part| {
                let key = sharing.key(part);
                if matches!(part, Part::WarmupTraining | Part::Training(..)) {
                    sharing.advance(part);
                }
                key
            })
        };
        let before = keys("", "a set");
        let differing = |now: [String; 7]| -> String {
            before.iter().zip(now).map(|(a, b)| if *a == b { '=' } else { 'x' }).collect()
        };
        let check = |changes: &str, expect: &str| assert_eq!(differing(keys(changes, "a set")), expect, "{changes}");
        assert_eq!(differing(keys("", "another set")), "=====xx");
        // Other weights that come to the same training set come to the same model.
        check("title = 'x'", "=======");
        check("generator = { max_sequences = 3 }", "=======");
        check("em = { iterations = 9, patience = 7 }", "=======");
        check("weights = { kind = 'uniform' }", "=======");
        check("train = { epochs = 3 }", "=====xx");
        check("em = { samples = 3 }", "====xxx");
        check("warmup = { epochs = 3 }", "===xxxx");
        check("pack = { max_tokens = 5 }", "==xxxxx");
        check("evaluation = { n_resamples = 5 }", "xx==xxx");
        check("generator = { weights = 'int8' }", "xxxxxxx");
        check("agent = { top_k = 9 }", "xxxxxxx");
        check("health = { on_collapse = 'stop', max_failure_rate = 0.0 }", "=======");
        check("health = { on_collapse = 'rollback' }", "====xxx");
        check("seed = 1", "xxxxxxx");
        check("max_tokens = 9", "xxxxxxx");
    }

    #[test]
    fn what_is_shared_comes_back_as_it_was_and_only_where_it_is_missing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let (one, other) = (path("one"), path("other"));
        let store = path("store");
        let sharing = sharing("", Some(&store));
        let (part, names) = (Part::WarmupTraining, ["steps", "checkpoint"]);
        std::fs::create_dir_all(one.join("checkpoint")).expect("made");
        std::fs::write(one.join("steps"), "1").expect("written");
        std::fs::write(one.join("checkpoint/weights"), "2").expect("written");
        sharing.fetch(part, &other, &names).expect("there is nothing");
        assert!(!other.exists());
        sharing.publish(part, &one, &names).expect("shared");
        // A killed attempt left something.
        std::fs::create_dir_all(other.join("checkpoint.tmp")).expect("made");
        std::fs::write(other.join("steps"), "half").expect("written");
        sharing.fetch(part, &other, &names).expect("linked");
        let read = |name: &str| std::fs::read_to_string(other.join(name)).expect(name);
        assert_eq!((read("steps").as_str(), read("checkpoint/weights").as_str()), ("1", "2"));
        std::fs::write(other.join("steps.new"), "mine").expect("written");
        std::fs::rename(other.join("steps.new"), other.join("steps")).expect("renamed");
        sharing.fetch(part, &other, &names).expect("complete already");
        assert_eq!(read("steps"), "mine");
        sharing.fetch(Part::WarmupData, &path("third"), &names).expect("another part has another key");
        assert!(!path("third").exists());
    }

    #[test]
    fn samples_of_runs_with_more_or_fewer_are_not_drawn_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let sharing = |n_samples: u32| sharing(&format!("em = {{ samples = {n_samples} }}"), Some(&path("store")));
        let n_journaled = |to: &str, n_samples: u32| {
            sharing(n_samples).fetch_draws(1, &path(to), "work").expect("readable");
            let journals = ["trajectories", "scores"].map(|name| path(to).join(format!("{name}.jsonl.partial")));
            journals.map(|path| std::fs::read_to_string(path).unwrap_or_default().lines().skip(1).count())
        };
        assert_eq!(n_journaled("first", 4), [0, 0]);
        // Two questions with three samples each.
        let rows = |row: &str| -> String {
            let ids = ["a", "b"].iter().flat_map(|id| (0..3).map(move |idx| (id, idx)));
            ids.map(|(id, idx)| format!("{{\"question_id\":\"{id}\",\"sample_idx\":{idx},{row}}}\n")).collect()
        };
        let trajectory =
            r#""question":"?","seed":0,"steps":[],"prediction":null,"outcome":"answered","segments":[],"messages":[]"#;
        std::fs::create_dir(path("drawn")).expect("made");
        std::fs::write(path("drawn/trajectories.jsonl"), rows(trajectory)).expect("written");
        let scored = r#""alias_logprobs":[],"n_path_tokens":0,"n_answer_tokens":0"#;
        std::fs::write(path("drawn/scores.jsonl"), rows(scored)).expect("written");
        let names = ["scores.jsonl", "trajectories.jsonl"];
        sharing(3).publish(Part::Sampling(1), &path("drawn"), &names).expect("shared");
        assert_eq!((n_journaled("fewer", 2), n_journaled("more", 5)), ([4, 4], [6, 6]));
        // What has begun goes on from its own journal, and runs on a GPU draw what their card draws.
        std::fs::write(path("more/scores.jsonl.partial"), "").expect("written");
        assert_eq!(n_journaled("more", 5), [6, 0]);
        let mut on_gpu = sharing(2);
        on_gpu.config.device = crate::workbench::Device::Gpu;
        on_gpu.fetch_draws(1, &path("gpu"), "work").expect("nothing to do");
        assert!(!path("gpu").exists());
    }
}
