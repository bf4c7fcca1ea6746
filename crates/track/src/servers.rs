//! The trackers that are servers: asked one after another, each from where it is.
use crate::config::{TrackConfig, WandbConfig, WandbMode, http};
use crate::cursor::CursorFile;
use crate::error::TrackError;
use crate::record::RunRecord;
use crate::{MlflowConfig, mlflow, wandb};
use exsearch_http::{Client, HttpError, Request, Secret};
use serde_json::Value;
use std::path::Path;

/// The servers that a configuration names, with their keys.
pub struct Servers {
    client: Client,
    wandb: Option<(WandbConfig, Secret)>,
    mlflow: Option<(MlflowConfig, Option<Secret>)>,
}

impl Servers {
    /// Finds the keys; `variable` looks one up in the environment. `None` where no server is named.
    pub fn open(config: &TrackConfig, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, TrackError> {
        config.check()?;
        let wandb = match &config.wandb {
            Some(wandb) if wandb.mode == WandbMode::Online => {
                let key = wandb.key(variable)?.expect("a name or a file is always given");
                Some((wandb.clone(), wandb::authorization(&key)))
            }
            _ => None,
        };
        let mlflow = match &config.mlflow {
            Some(mlflow) => {
                let key = Secret::named(mlflow.key_env.as_deref(), mlflow.key_file.as_deref(), variable)?;
                Some((mlflow.clone(), key))
            }
            None => None,
        };
        if wandb.is_none() && mlflow.is_none() {
            return Ok(None);
        }
        Ok(Some(Self { client: Client::new(&http())?, wandb, mlflow }))
    }

    /// Sends each server what it does not have yet, and returns what went wrong: at most one error a server. What a server has is
    /// kept in `dir/track/`.
    pub fn send(&self, record: &RunRecord, dir: &Path) -> Vec<TrackError> {
        let mut errors = Vec::new();
        if let Some((config, key)) = &self.wandb {
            let server = Server::new(&self.client, "Weights & Biases", &config.url, Some(("Basic ", key)));
            let sent = CursorFile::open(dir, "wandb", &server.url)
                .and_then(|mut cursor| wandb::send(record, config, &server, &mut cursor));
            errors.extend(sent.err());
        }
        if let Some((config, key)) = &self.mlflow {
            let server = Server::new(&self.client, "MLflow", &config.url, key.as_ref().map(|key| ("Bearer ", key)));
            let sent = CursorFile::open(dir, "mlflow", &server.url)
                .and_then(|mut cursor| mlflow::send(record, config, &server, &mut cursor));
            errors.extend(sent.err());
        }
        errors
    }
}

/// A server with its key.
pub(crate) struct Server<'a> {
    client: &'a Client,
    tracker: &'static str,
    pub(crate) url: String,
    /// What stands before the key in the header, and the key.
    key: Option<(&'static str, &'a Secret)>,
}

impl<'a> Server<'a> {
    fn new(client: &'a Client, tracker: &'static str, url: &str, key: Option<(&'static str, &'a Secret)>) -> Self {
        Self { client, tracker, url: url.trim_end_matches('/').to_owned(), key }
    }

    pub(crate) fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, HttpError> {
        self.ask(path, parameters, None)
    }

    pub(crate) fn post(&self, path: &str, body: Value) -> Result<Value, TrackError> {
        self.ask(path, &[], Some(body)).map_err(|error| self.failed(error))
    }

    fn ask(&self, path: &str, parameters: &[(&str, &str)], body: Option<Value>) -> Result<Value, HttpError> {
        let url = format!("{}{path}", self.url);
        let key = self.key.map(|(before, key)| ("Authorization", before, key));
        self.client.json(&Request { url: &url, parameters, body, key }, || Ok(()))
    }

    pub(crate) fn failed(&self, error: HttpError) -> TrackError {
        TrackError::Server { tracker: self.tracker, url: self.url.clone(), error }
    }

    /// The text at a place of an answer.
    pub(crate) fn text(&self, answer: &Value, pointer: &str) -> Result<String, TrackError> {
        let text = answer.pointer(pointer).and_then(Value::as_str);
        text.map(str::to_owned).ok_or_else(|| self.without(&format!("`{pointer}`")))
    }

    pub(crate) fn without(&self, what: &str) -> TrackError {
        TrackError::Answer { tracker: self.tracker, url: self.url.clone(), what: what.to_owned() }
    }
}
