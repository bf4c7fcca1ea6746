//! A server with the tokenizer of its model: what generator and scorer share.
use crate::config::{Protocol, RemoteConfig};
use crate::error::RemoteError;
use crate::generator::RemoteGenerator;
use crate::scorer::RemoteScorer;
use exsearch_http::{Client, HttpError, Request, Secret};
use exsearch_schema::ChatCodec;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The tokenizer of the server's model.
#[derive(Clone)]
pub struct Vocabulary {
    /// Ids to text and back.
    pub chat: Arc<dyn ChatCodec>,
    /// Ids that end a turn.
    pub end_ids: Vec<u32>,
    /// One more than the largest id.
    pub n_tokens: usize,
}

/// A language model behind a server.
pub struct RemoteModel {
    server: Arc<Server>,
}

/// What every request needs.
pub(crate) struct Server {
    pub(crate) config: RemoteConfig,
    pub(crate) vocabulary: Vocabulary,
    /// The longest dialogue, in tokens.
    pub(crate) max_tokens: usize,
    client: Client,
    key: Option<Secret>,
    /// The address without `/v1`.
    base: String,
}

impl RemoteModel {
    /// A model whose dialogues have at most `max_tokens`. Asks nothing yet.
    pub fn new(
        config: &RemoteConfig,
        key: Option<Secret>,
        vocabulary: Vocabulary,
        max_tokens: usize,
    ) -> Result<Self, RemoteError> {
        config.check()?;
        let client = Client::new(&config.http())?;
        let base = config.url.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base).to_owned();
        let server = Server { config: config.clone(), vocabulary, max_tokens, client, key, base };
        Ok(Self { server: Arc::new(server) })
    }

    /// Errors when the server cannot be reached or refuses the key. A server without a list of models passes.
    pub fn check(&self) -> Result<(), RemoteError> {
        match self.server.get::<Value>("/v1/models") {
            Ok(_) | Err(HttpError::Status { status: 404 | 405 | 501, .. } | HttpError::Answer { .. }) => Ok(()),
            Err(reason) => Err(RemoteError::Unreachable { url: self.server.config.url.clone(), reason }),
        }
    }

    /// Generates turns, as many at once as `http.max_concurrent` allows.
    pub fn generator(&self) -> RemoteGenerator {
        RemoteGenerator::new(self.server.clone())
    }

    /// Scores answers. Errors where the protocol gives no log-probs of given ids.
    pub fn scorer(&self) -> Result<RemoteScorer, RemoteError> {
        match self.server.config.protocol {
            Protocol::LlamaCpp | Protocol::Vllm => Ok(RemoteScorer::new(self.server.clone())),
            protocol => Err(RemoteError::NoScores { protocol: protocol.name() }),
        }
    }
}

impl Server {
    /// Posts `body` with the model's name and the config's further fields and takes the one answer.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: Value) -> Result<T, HttpError> {
        let url = format!("{}{path}", self.base);
        let request = Request { url: &url, parameters: &[], body: Some(self.complete(body)), key: self.key() };
        let answer: Value = self.client.json(&request, || Ok(()))?;
        read(answer)
    }

    /// Posts `body` likewise, with `stream` on, and hands the events to what `start` makes for each attempt.
    pub(crate) fn stream<T, E, Take>(
        &self,
        path: &str,
        mut body: Value,
        start: impl Fn() -> Take,
    ) -> Result<T, HttpError>
    where
        E: DeserializeOwned,
        Take: FnMut(E) -> Result<ControlFlow<T>, HttpError>,
    {
        body["stream"] = true.into();
        let url = format!("{}{path}", self.base);
        let request = Request { url: &url, parameters: &[], body: Some(self.complete(body)), key: self.key() };
        self.client.events(&request, || {
            let mut take = start();
            move |event| take(read(event)?)
        })
    }

    /// What a user is told of a failure: where, and never the key, should the server have repeated it.
    pub(crate) fn told(&self, error: &HttpError) -> String {
        let message = format!("{}: {error}", self.config.url);
        self.key.as_ref().map_or(message.clone(), |key| key.scrub(&message))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, HttpError> {
        let url = format!("{}{path}", self.base);
        self.client.json(&Request { url: &url, parameters: &[], body: None, key: self.key() }, || Ok(()))
    }

    fn key(&self) -> Option<(&str, &str, &Secret)> {
        self.key.as_ref().map(|key| ("authorization", "Bearer ", key))
    }

    fn complete(&self, mut body: Value) -> Value {
        if let Some(model) = &self.config.model {
            body["model"] = model.as_str().into();
        }
        for (name, value) in &self.config.extra {
            body[name] = value.clone();
        }
        body
    }
}

/// What an answer says, unless it is an error that came with a good status or in the middle of a stream.
fn read<T: DeserializeOwned>(answer: Value) -> Result<T, HttpError> {
    if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
        let message = error.get("message").and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_owned);
        return Err(wrong(format!("the server reports: {}", message.chars().take(300).collect::<String>())));
    }
    serde_json::from_value(answer).map_err(|error| wrong(format!("it is not of the protocol ({error})")))
}

/// An answer that cannot be used.
pub(crate) fn wrong(reason: String) -> HttpError {
    HttpError::Answer { reason }
}
