//! Studies: a base configuration and named changes of it to run configurations, and what their runs came to, side by side.
//!
//! ```text
//! DIR/VARIANT/seed-N/   run folders
//! DIR/shared/           parts that runs share, as links
//! DIR/study.json study.md study.svg
//! ```
mod figure;
mod results;

pub use results::{FailedRun, FinishedRun, StudyResults, VariantResults};

use crate::config::{RunConfig, read_toml, with_nearest};
use crate::error::{RunError, io};
use crate::folder::lock;
use std::fs::File;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The studies of arXiv 2505.20128 that take no numbers: changes by name, by study.
const BUILT_IN: &str = include_str!("studies.toml");

/// A study that comes with ExSearch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Without thinking, search, recording or weights (section 5).
    Removals,
    /// With and without the turn that selects passages.
    Select,
    /// Kinds of weights.
    Weights,
    /// Gold trajectories of warm-up.
    WarmupSize,
    /// M.
    Samples,
    /// N.
    Iterations,
}

/// Named changes of a base configuration. The others are compared with the first.
#[derive(Clone, Debug, PartialEq)]
pub struct Study {
    /// What tables call it.
    pub name: String,
    /// In the order of tables.
    pub variants: Vec<Variant>,
}

/// A named change.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// What tables call it; also a folder's name.
    pub name: String,
    /// Settings that take the place of the base's.
    pub overlay: Table,
}

/// The configuration that variants change.
#[derive(Clone, Debug)]
pub struct Base {
    path: PathBuf,
    table: Table,
}

/// A study's folder; one process works in it at a time.
pub struct StudyFolder {
    dir: PathBuf,
    _lock: File,
}

impl Known {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Removals, Self::Select, Self::Weights, Self::WarmupSize, Self::Samples, Self::Iterations];

    /// Its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Removals => "removals",
            Self::Select => "select",
            Self::Weights => "weights",
            Self::WarmupSize => "warmup-size",
            Self::Samples => "samples",
            Self::Iterations => "iterations",
        }
    }

    /// The numbers that it tries unless told otherwise; none for a study that takes none. Warm-up sizes are within the
    /// quickstart's 48 gold trajectories.
    pub fn values(self) -> &'static [u32] {
        match self {
            Self::Removals | Self::Select | Self::Weights => &[],
            Self::WarmupSize => &[0, 12, 24, 48],
            Self::Samples => &[1, 2, 4, 6, 8],
            Self::Iterations => &[1, 2, 3, 4, 5],
        }
    }

    /// The study, with `values` in place of its own numbers where there are any.
    pub fn study(self, values: &[u32]) -> Study {
        let (table, key) = match self {
            Self::WarmupSize => ("data", "n_warmup"),
            Self::Samples => ("em", "samples"),
            Self::Iterations => ("em", "iterations"),
            Self::Removals | Self::Select | Self::Weights => {
                let mut studies: Table = toml::from_str(BUILT_IN).expect("the built-in studies are valid");
                let Some(Value::Table(variants)) = studies.remove(self.name()) else {
                    unreachable!("{} is built in", self.name())
                };
                return Study::of(self.name(), variants).expect("the built-in studies are valid");
            }
        };
        let values = if values.is_empty() { self.values() } else { values };
        let variant = |value: &u32| {
            let setting = Table::from_iter([(key.to_owned(), Value::Integer(i64::from(*value)))]);
            Variant { name: value.to_string(), overlay: Table::from_iter([(table.to_owned(), Value::Table(setting))]) }
        };
        Study { name: self.name().to_owned(), variants: values.iter().map(variant).collect() }
    }
}

impl Study {
    /// Reads a file of variants: a table of settings for each, by its name. The file's name is the study's.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        let variants: Table = read_toml(path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::of(&name, variants).map_err(|reason| RunError::Config { path: path.to_owned(), reason })
    }

    fn of(name: &str, variants: Table) -> Result<Self, String> {
        let mut study = Self { name: name.to_owned(), variants: Vec::new() };
        for (name, overlay) in variants {
            let Value::Table(overlay) = overlay else {
                return Err(format!("`{name}` must be a table: the settings that the variant of this name changes"));
            };
            let plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
            if name.is_empty() || name.starts_with('.') || name == SHARED || !name.chars().all(plain) {
                return Err(format!("`{name}` cannot name a variant: letters, digits, `-`, `_` and `.` can"));
            }
            study.variants.push(Variant { name, overlay });
        }
        if study.variants.is_empty() {
            return Err("there is no variant; write a table of settings for each, such as [name]".into());
        }
        Ok(study)
    }
}

impl Base {
    /// Reads a configuration file.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        // Told here, mistakes come with their lines.
        RunConfig::open(path)?;
        let text = std::fs::read_to_string(path).map_err(io(path))?;
        let table = toml::from_str(&text).expect("it was read above");
        Ok(Self { path: path.to_owned(), table })
    }

    /// The configuration of a variant at a seed.
    pub fn with(&self, study: &str, variant: &Variant, seed: u64) -> Result<RunConfig, RunError> {
        let refused = |reason: String| RunError::Config {
            path: self.path.clone(),
            reason: format!("with the settings of `{}`: {reason}", variant.name),
        };
        let mut table = self.table.clone();
        lay_over(&mut table, &variant.overlay);
        let mut config: RunConfig =
            table.try_into().map_err(|error: toml::de::Error| refused(with_nearest(error.message())))?;
        config.seed = seed;
        config.title = format!("{study}: {}, seed {seed}", variant.name);
        config.resolve(&self.path);
        config.check().map_err(refused)?;
        Ok(config)
    }
}

/// `changes` in place of what `table` has; tables within are laid over in turn.
fn lay_over(table: &mut Table, changes: &Table) {
    for (key, change) in changes {
        match (table.get_mut(key), change) {
            (Some(Value::Table(below)), Value::Table(change)) => lay_over(below, change),
            _ => {
                table.insert(key.clone(), change.clone());
            }
        }
    }
}

const SHARED: &str = "shared";

impl StudyFolder {
    /// Makes the folder or goes on in it.
    pub fn open(dir: &Path) -> Result<Self, RunError> {
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        Ok(Self { dir: dir.to_owned(), _lock: lock(dir)? })
    }

    /// The run folder of a variant at a seed.
    pub fn run(&self, variant: &str, seed: u64) -> PathBuf {
        self.dir.join(variant).join(format!("seed-{seed}"))
    }

    /// Where runs share their parts unless told otherwise.
    pub fn shared(&self) -> PathBuf {
        self.dir.join(SHARED)
    }

    /// Writes `study.json`, `study.md` and `study.svg`.
    pub fn write(&self, results: &StudyResults) -> Result<(), RunError> {
        crate::files::write(&self.dir.join("study.svg"), figure::render(results).as_bytes())?;
        crate::files::write(&self.dir.join("study.md"), results.markdown().as_bytes())?;
        crate::files::write_json(&self.dir.join("study.json"), results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsearch_agent::Variant as AgentVariant;
    use exsearch_trainset::WeightKind;

    fn base(folder: &Path) -> Base {
        let path = folder.join("base.toml");
        let text = "model = 'm'\nagent = { top_k = 2 }\nweights = { min_answer_logprob = -3.0 }\n\
                    [data]\nindex = 'i'\ntrain = 't'\ndev = 'd'\n";
        std::fs::write(&path, text).expect("written");
        Base::open(&path).expect("valid")
    }

    #[test]
    fn every_built_in_variant_is_a_valid_configuration_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let base = base(folder.path());
        for known in Known::ALL {
            let study = known.study(&[]);
            let configs = study.variants.iter().map(|variant| base.with(&study.name, variant, 7));
            let configs: Vec<RunConfig> = configs.collect::<Result<_, _>>().expect("valid");
            for (idx, config) in configs.iter().enumerate() {
                assert!(config.seed == 7 && config.data.index == folder.path().join("i"));
                let untitled = |config: &RunConfig| RunConfig { title: String::new(), ..config.clone() };
                assert!(!configs[..idx].iter().any(|other| untitled(other) == untitled(config)), "{}", study.name);
            }
        }
    }

    /// The base that docs/LOG.md's studies start from.
    #[test]
    fn the_base_in_runs_is_valid_with_every_variant() {
        let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runs");
        let base = Base::open(&runs.join("studies.toml")).expect("valid");
        let estimators = Study::open(&runs.join("estimators.toml")).expect("valid");
        for (study, n_variants) in [(Known::Weights.study(&[]), 5), (Known::Removals.study(&[]), 5), (estimators, 7)] {
            let configs = study.variants.iter().map(|variant| base.with(&study.name, variant, 0));
            assert_eq!(configs.map(|config| config.expect("valid").em.iterations).sum::<usize>(), n_variants);
        }
    }

    #[test]
    fn a_variant_changes_what_it_names_and_keeps_the_rest() {
        let folder = tempfile::tempdir().expect("a folder");
        let base = base(folder.path());
        let config = |known: Known, name: &str| {
            let study = known.study(&[]);
            let variant = study.variants.iter().find(|variant| variant.name == name).expect(name);
            base.with(&study.name, variant, 0).expect("valid")
        };
        let uniform = config(Known::Weights, "uniform");
        assert_eq!((uniform.weights.kind, uniform.weights.min_answer_logprob), (WeightKind::Uniform, Some(-3.0)));
        let silent = config(Known::Removals, "without-thinking");
        assert_eq!((silent.agent.variant, silent.agent.top_k), (AgentVariant::WithoutThinking, 2));
        assert_eq!(config(Known::Samples, "6").em.samples, 6);
        assert_eq!(Known::WarmupSize.study(&[5]).variants[0].name, "5");
    }

    #[test]
    fn variants_of_a_file_keep_their_order_and_mistakes_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mine.toml");
        let open = |text: &str| {
            std::fs::write(&path, text).expect("written");
            Study::open(&path)
        };
        let study = open("[zebra]\n[ape]\ntrain.epochs = 3\n[bee]\n").expect("valid");
        let names: Vec<&str> = study.variants.iter().map(|variant| variant.name.as_str()).collect();
        assert_eq!((study.name.as_str(), names), ("mine", vec!["zebra", "ape", "bee"]));
        let base = base(folder.path());
        assert_eq!(base.with("mine", &study.variants[1], 0).expect("valid").train.epochs, 3);
        let check = |text: &str, expect: &str| {
            let error = open(text).expect_err("refused").to_string();
            assert!(error.contains(expect) && error.contains("mine.toml"), "{error}");
        };
        check("", "no variant");
        check("a = 3", "must be a table");
        check("[\"../x\"]", "cannot name");
        check("[shared]", "cannot name");
        let wrong = open("[a]\ntrain.epoch = 3").expect("a table");
        let error = base.with("mine", &wrong.variants[0], 0).expect_err("unknown").to_string();
        assert!(error.contains("`a`") && error.contains("did you mean `epochs`?"), "{error}");
    }
}
