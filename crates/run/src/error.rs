//! What stops a run, in terms that a user can act on.
use std::path::{Path, PathBuf};

const HOW_TO_BUILD_FOR_GPUS: &str = "build it with `cargo build --release -p exsearch-cli --features wgpu` (any GPU), \
                                     `vulkan` (faster on a card with Vulkan) or `cuda` in its place";

/// Why a run cannot start or go on. Whatever was finished before stays and is used by the next call.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A passage or question file.
    #[error(transparent)]
    Corpus(#[from] exsearch_corpus::CorpusError),
    /// The index.
    #[error(transparent)]
    Retriever(#[from] exsearch_retriever::Error),
    /// A gold passage could not be read.
    #[error("a gold passage could not be read: {0}")]
    GoldPassage(#[from] exsearch_schema::RetrieveError),
    /// The model or a checkpoint.
    #[error(transparent)]
    Model(#[from] exsearch_model::ModelError),
    /// A GPU is asked for.
    #[error("this exsearch was built without GPUs; {HOW_TO_BUILD_FOR_GPUS}, or leave out --device and `device`")]
    BuiltWithoutGpu,
    /// Rounded weights are asked for on a GPU.
    #[error(
        "weights in int8 are for sampling on the processor; take f32 (generator.weights, --weights) with a GPU, or `gpu-bf16`"
    )]
    Int8OnGpu,
    /// The GPU, or a model on it.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Device(#[from] exsearch_device::DeviceError),
    /// A judge's server.
    #[error(transparent)]
    Remote(#[from] exsearch_remote::RemoteError),
    /// The agent's settings or protocol.
    #[error(transparent)]
    Agent(#[from] exsearch_agent::AgentError),
    /// Weighing or packing.
    #[error(transparent)]
    Trainset(#[from] exsearch_trainset::TrainsetError),
    /// Training.
    #[error(transparent)]
    Train(#[from] exsearch_trainer::TrainError),
    /// Scoring predictions.
    #[error(transparent)]
    Evaluation(#[from] exsearch_evaluation::EvaluationError),
    /// An experiment tracker.
    #[error(transparent)]
    Track(#[from] exsearch_track::TrackError),
    /// Reading or writing a file of the run.
    #[error("cannot use {}: {source}{}", path.display(), hint(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the run does not parse.
    #[error("{}:{line}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The configuration file.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to write.
        reason: String,
    },
    /// The folder belongs to another run.
    #[error("{} holds another run: {reason}; give another folder, or the same settings to continue it", dir.display())]
    OtherRun {
        /// The run folder.
        dir: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The folder belongs to another evaluation.
    #[error(
        "{} belongs to another evaluation: {reason}; give another folder, or the same settings, questions, model and index to go on in it",
        dir.display()
    )]
    OtherEvaluation {
        /// The folder.
        dir: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The last trajectories all lack what a server should give.
    #[error(
        "{n_failed} trajectories one after another {lack}: {reason}; what was done before is kept, and the same command goes on \
         with it"
    )]
    Lacking {
        /// How many.
        n_failed: usize,
        /// What they lack.
        lack: &'static str,
        /// The last one's failure.
        reason: String,
    },
    /// The model is behind a server.
    #[error(
        "a run trains its model, and the one behind {url} cannot be trained from here; take `remote` out of the configuration, or use \
         the server with `exsearch sample`"
    )]
    RemoteModel {
        /// The server.
        url: String,
    },
    /// A trajectory has no row in the file that goes with it.
    #[error("sample {sample_idx} of question {question_id} has no {what}; give the files that belong together")]
    Unmatched {
        /// What is missing.
        what: &'static str,
        /// The trajectory's question.
        question_id: String,
        /// Which of its samples.
        sample_idx: u32,
    },
    /// A manifest of another version.
    #[error("{} is a manifest of version {found}, this program reads version {expected}; run it again with this program", path.display())]
    ManifestVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that can be read.
        expected: u32,
    },
    /// Another process works there.
    #[error("another exsearch is working in {}; wait for it or write elsewhere", place.display())]
    Busy {
        /// A run's folder, or a journal.
        place: PathBuf,
    },
    /// Too few rows to do what was asked.
    #[error("{} gives {found} {what}, {needed} are needed; lower the number or give a larger file", path.display())]
    TooFew {
        /// The file.
        path: PathBuf,
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are asked for.
        needed: usize,
    },
}

impl RunError {
    /// Whether training was given up because it came to nothing finite.
    pub(crate) fn is_divergence(&self) -> bool {
        use exsearch_trainer::TrainError;
        match self {
            Self::Train(TrainError::Diverged(_) | TrainError::Broken) => true,
            #[cfg(feature = "gpu")]
            Self::Device(exsearch_device::DeviceError::Train(TrainError::Diverged(_) | TrainError::Broken)) => true,
            _ => false,
        }
    }
}

fn hint(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            " (nothing written before is lost: free some space and give the same command again)"
        }
        _ => "",
    }
}

/// For `map_err`: names the path.
pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> RunError + '_ {
    |source| RunError::Io { path: path.to_owned(), source }
}
