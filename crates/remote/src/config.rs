//! Which server to ask, and how.
use exsearch_http::{BadSetting, HttpConfig, check_url};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A language model behind a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteConfig {
    /// The server's address, as `http://host:port`, with `/v1` behind it or without.
    pub url: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// The name by which the server knows the model. Default none: servers of one model need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The environment variable that holds the key. Default: no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// The file that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// A turn is cut after this many seconds, as at its token limit. Results then depend on the server's speed. Default never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_turn_secs: Option<f64>,
    /// A request that is not answered to its end after this many seconds has failed. Default 300.
    #[serde(default = "default_timeout_secs")]
    pub timeout_secs: f64,
    /// Further fields of every request, such as `chat_template_kwargs = { enable_thinking = false }`; they take the place of ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, serde_json::Value>,
    /// Retries and limits; `timeout_secs` takes the place of its `timeout_ms`.
    #[serde(default)]
    pub http: HttpConfig,
}

/// What a server speaks. `vllm` and `llama-cpp` are exact and give log-probs; of others only text is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// llama.cpp's own: ids in, ids and log-probs out.
    LlamaCpp,
    /// OpenAI's completions with vLLM's additions: ids in, ids and log-probs out.
    Vllm,
    /// OpenAI's completions: ids in, text out.
    Completions,
    /// OpenAI's chat: messages in, text out.
    Chat,
}

fn default_timeout_secs() -> f64 {
    300.0
}

impl RemoteConfig {
    /// A server with every default.
    pub fn new(url: &str, protocol: Protocol) -> Self {
        Self {
            url: url.to_owned(),
            protocol,
            model: None,
            key_env: None,
            key_file: None,
            max_turn_secs: None,
            timeout_secs: default_timeout_secs(),
            extra: BTreeMap::new(),
            http: HttpConfig::default(),
        }
    }

    /// Errors at an address or a number that cannot be used.
    pub fn check(&self) -> Result<(), BadSetting> {
        check_url(&self.url)?;
        let refuse = |what: &str, reason: &str| Err(BadSetting { what: what.to_owned(), reason: reason.to_owned() });
        if self.http.timeout_ms != HttpConfig::default().timeout_ms {
            return refuse("remote.http.timeout_ms", "give remote.timeout_secs instead");
        }
        // Past a week a Duration in milliseconds is no limit anyone means.
        let is_time = |secs: f64| secs > 0.0 && secs <= 604_800.0;
        if !is_time(self.timeout_secs) || !self.max_turn_secs.is_none_or(is_time) {
            return refuse("remote.timeout_secs and max_turn_secs", "they must be above 0 and at most a week");
        }
        Ok(())
    }

    pub(crate) fn http(&self) -> HttpConfig {
        HttpConfig { timeout_ms: (self.timeout_secs * 1_000.0) as u64, ..self.http.clone() }
    }
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::LlamaCpp, Self::Vllm, Self::Completions, Self::Chat];

    /// As a config writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LlamaCpp => "llama-cpp",
            Self::Vllm => "vllm",
            Self::Completions => "completions",
            Self::Chat => "chat",
        }
    }
}
