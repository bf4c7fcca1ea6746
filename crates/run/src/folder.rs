//! A run folder: it belongs to one configuration and one state of its data, and one process works in it at a time.
use crate::config::{EmConfig, RunConfig};
use crate::error::{RunError, io};
use crate::files;
use crate::work::Work;
use crate::workbench::GeneratorConfig;
use exsearch_track::TrackConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What `manifest.json` holds: all that a number of this run depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    /// The version of the folder's layout.
    format_version: u32,
    /// The version of ExSearch that started it.
    exsearch: String,
    /// SHA-256 of every file that the run reads.
    files: BTreeMap<String, String>,
}

const FORMAT_VERSION: u32 = 1;

/// An opened run folder.
pub(crate) struct RunFolder {
    dir: PathBuf,
    fingerprint: String,
    /// Held as long as the run works in the folder.
    _lock: File,
}

/// A line of `timings.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Timing {
    pub(crate) stage: String,
    pub(crate) part: String,
    pub(crate) secs: f64,
    /// What was done in it, where that is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) work: Option<Work>,
}

impl RunFolder {
    /// Makes the folder or goes on in it. Refuses one that other settings or other data were used in.
    pub(crate) fn open(config: &RunConfig, dir: &Path) -> Result<Self, RunError> {
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        let lock = lock(dir)?;
        let other = |reason: String| RunError::OtherRun { dir: dir.to_owned(), reason };
        let config_path = dir.join("config.toml");
        let text = config.to_toml();
        if config_path.is_file() {
            let before = std::fs::read_to_string(&config_path).map_err(io(&config_path))?;
            let before: RunConfig = crate::config::parse(&before).map_err(other)?;
            if let Some(difference) = first_difference(&comparable(&before), &comparable(config)) {
                return Err(other(format!("its configuration differs: {difference}")));
            }
        }
        files::write(&config_path, text.as_bytes())?;
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            exsearch: env!("CARGO_PKG_VERSION").into(),
            files: fingerprints(config)?,
        };
        let manifest_path = dir.join("manifest.json");
        if manifest_path.is_file() {
            let before: Manifest = files::read_json(&manifest_path)?;
            if before.format_version != FORMAT_VERSION {
                return Err(other(format!("its layout has version {}, not {FORMAT_VERSION}", before.format_version)));
            }
            if let Some((name, _)) = manifest.files.iter().find(|(name, hash)| before.files.get(*name) != Some(*hash)) {
                return Err(other(format!("{name} has changed since it was started")));
            }
        } else {
            files::write_json(&manifest_path, &manifest)?;
        }
        let fingerprint = files::fingerprint_of(comparable(config).as_bytes());
        Ok(Self { dir: dir.to_owned(), fingerprint, _lock: lock })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Names a part of this run's work.
    pub(crate) fn fingerprint(&self, part: &str) -> String {
        format!("{} {part}", &self.fingerprint[..16])
    }

    /// Writes down how long a part took.
    pub(crate) fn took(&self, stage: &str, part: &str, since: Instant, work: Option<Work>) -> Result<(), RunError> {
        let path = self.path("timings.jsonl");
        let timing = Timing { stage: stage.into(), part: part.into(), secs: since.elapsed().as_secs_f64(), work };
        let mut line = serde_json::to_vec(&timing).expect("plain data serializes");
        line.push(b'\n');
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(&line)).map_err(io(&path))
    }
}

/// The configuration of a run folder. The paths in it are those that the run was started with.
pub(crate) fn read_config(dir: &Path) -> Result<RunConfig, RunError> {
    let path = dir.join("config.toml");
    let text = std::fs::read_to_string(&path).map_err(io(&path))?;
    crate::config::parse(&text).map_err(|reason| RunError::Config { path, reason })
}

/// Seconds by stage and part, in the order in which they came first.
pub(crate) fn timings(dir: &Path) -> Result<Vec<Timing>, RunError> {
    let path = dir.join("timings.jsonl");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let mut sums: Vec<Timing> = Vec::new();
    for timing in files::read_jsonl::<Timing>(&path)? {
        match sums.iter_mut().find(|sum| sum.stage == timing.stage && sum.part == timing.part) {
            Some(sum) => {
                sum.secs += timing.secs;
                if let Some(work) = timing.work {
                    *sum.work.get_or_insert_default() += work;
                }
            }
            None => sums.push(timing),
        }
    }
    Ok(sums)
}

fn lock(dir: &Path) -> Result<File, RunError> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RunError::Busy { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(RunError::Io { path, source }),
    }
}

/// The configuration without what may change when a run goes on: names, limits that change no result, and how far it goes.
fn comparable(config: &RunConfig) -> String {
    let mut config = config.clone();
    config.title.clear();
    config.track = TrackConfig::default();
    config.generator = GeneratorConfig { weights: config.generator.weights, ..GeneratorConfig::default() };
    config.em = EmConfig { iterations: 0, patience: 0, ..config.em };
    config.to_toml()
}

fn first_difference(before: &str, now: &str) -> Option<String> {
    if before == now {
        return None;
    }
    let (before, now): (Vec<_>, Vec<_>) = (before.lines().collect(), now.lines().collect());
    let at = before.iter().zip(&now).position(|(before, now)| before != now).unwrap_or(before.len().min(now.len()));
    let line = |lines: &[&str]| lines.get(at).copied().unwrap_or("nothing").to_owned();
    Some(format!("`{}` became `{}`", line(&before), line(&now)))
}

fn fingerprints(config: &RunConfig) -> Result<BTreeMap<String, String>, RunError> {
    let data = &config.data;
    let mut paths = exsearch_retriever::identifying_files(&data.index)?;
    paths.extend([data.train.clone(), data.dev.clone()]);
    paths.extend(data.test.iter().map(|test| test.questions.clone()));
    paths.extend(data.warmup.clone());
    paths.extend(config.protocol.clone());
    let model = std::fs::read_dir(&config.model).map_err(io(&config.model))?;
    for entry in model {
        let path = entry.map_err(io(&config.model))?.path();
        let kept = path.extension().is_some_and(|kind| kind == "json" || kind == "safetensors" || kind == "jinja");
        if path.is_file() && kept {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| Ok((path.display().to_string(), files::fingerprint(path)?))).collect()
}
