//! A run's scalar metrics for experiment trackers: TensorBoard's event files, Weights & Biases' files and server, MLflow's server.
//!
//! All of them are fed from a [`RunRecord`], which is made anew from a run folder's finished artifacts whenever one is added. Its parts
//! only ever grow at the end, so that each tracker needs to remember no more than how many of them it has: what a kill or a server that
//! is down leaves out comes with the next call. Knows nothing of run folders, models or questions.
mod config;
mod crc32c;
mod cursor;
mod error;
mod files;
mod mlflow;
mod protobuf;
mod record;
mod servers;
mod tensorboard;
mod wandb;

pub use config::{MlflowConfig, TrackConfig, WandbConfig, WandbMode};
pub use error::TrackError;
pub use record::{Axis, Part, Row, RunRecord};
pub use servers::Servers;

use std::path::Path;

/// Writes what lies in the run folder itself: `tensorboard/`, and `wandb/` in offline mode. Equal calls change nothing.
pub fn write_local(record: &RunRecord, config: &TrackConfig, dir: &Path) -> Result<(), TrackError> {
    tensorboard::write(record, &dir.join("tensorboard"))?;
    match &config.wandb {
        Some(wandb) if wandb.mode == WandbMode::Offline => wandb::write_offline(record, wandb, &dir.join("wandb")),
        _ => Ok(()),
    }
}
