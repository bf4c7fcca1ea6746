//! The `[track]` table of a run's configuration.
use exsearch_http::{BadSetting, HttpConfig, Secret, check_url};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a run's metrics go besides TensorBoard's files, which are always written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackConfig {
    /// Weights & Biases. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wandb: Option<WandbConfig>,
    /// An MLflow server. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlflow: Option<MlflowConfig>,
}

/// Weights & Biases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WandbConfig {
    /// `offline`: a folder that `wandb sync` uploads. `online`: the server, while the run goes on.
    pub mode: WandbMode,
    /// Default `exsearch`.
    #[serde(default = "default_name")]
    pub project: String,
    /// A user or team. Default: the key's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// The server. Default `https://api.wandb.ai`.
    #[serde(default = "default_wandb_url")]
    pub url: String,
    /// The environment variable that holds the key, for `online`. Default `WANDB_API_KEY` unless there is a `key_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// The file that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// How Weights & Biases is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WandbMode {
    /// By files that are uploaded later.
    Offline,
    /// By its server.
    Online,
}

/// An MLflow server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlflowConfig {
    /// Its address, as `http://host:5000`.
    pub url: String,
    /// Made where it is not there. Default `exsearch`.
    #[serde(default = "default_name")]
    pub experiment: String,
    /// The environment variable that holds a bearer token. Default: no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// The file that holds a bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

fn default_name() -> String {
    "exsearch".into()
}

fn default_wandb_url() -> String {
    "https://api.wandb.ai".into()
}

impl TrackConfig {
    /// Errors at addresses that cannot be used.
    pub fn check(&self) -> Result<(), BadSetting> {
        if let Some(wandb) = &self.wandb {
            check_url(&wandb.url)?;
        }
        self.mlflow.as_ref().map_or(Ok(()), |mlflow| check_url(&mlflow.url))
    }

    /// Whether there is no tracker besides TensorBoard.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The files that hold keys, whose paths are relative to the configuration.
    pub fn key_files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let wandb = self.wandb.as_mut().and_then(|wandb| wandb.key_file.as_mut());
        wandb.into_iter().chain(self.mlflow.as_mut().and_then(|mlflow| mlflow.key_file.as_mut()))
    }
}

impl WandbConfig {
    pub(crate) fn key(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Secret>, BadSetting> {
        let name = self.key_env.as_deref().or(if self.key_file.is_none() { Some("WANDB_API_KEY") } else { None });
        Secret::named(name, self.key_file.as_deref(), variable)
    }
}

/// A tracker is not worth waiting for: what it misses is sent again later.
pub(crate) fn http() -> HttpConfig {
    HttpConfig { timeout_ms: 10_000, max_attempts: 2, ..HttpConfig::default() }
}
