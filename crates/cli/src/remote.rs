//! A server that writes turns in place of a model's weights: options and configuration to an opened [`RemoteModel`].
use crate::environment;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use exsearch_model::chat::HfChat;
use exsearch_remote::{Protocol, RemoteConfig, RemoteModel, Secret, Vocabulary};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The options of commands that can ask a server.
#[derive(clap::Args)]
#[command(next_help_heading = "A server in place of the model's weights")]
pub(crate) struct RemoteArgs {
    /// The server's address, http://host:port; of the model folder, which must be the same model's, only the tokenizer is used
    #[arg(long, value_name = "URL", requires = "server_protocol")]
    server: Option<String>,
    /// What it speaks: llama-server's or vLLM's way, which keep ids and log-probs, or OpenAI's completions or chat, of which only
    /// text is had
    #[arg(long, value_name = "NAME", requires = "server", value_parser = protocol_parser())]
    server_protocol: Option<Protocol>,
    /// The name by which the server knows the model
    #[arg(long, value_name = "NAME", requires = "server")]
    server_model: Option<String>,
    /// The environment variable with the server's key
    #[arg(long, value_name = "NAME", requires = "server", conflicts_with = "key_file")]
    key_env: Option<String>,
    /// The file with the server's key
    #[arg(long, value_name = "FILE", requires = "server")]
    key_file: Option<PathBuf>,
    /// Turns that it is asked for at once [default: 8]
    #[arg(long, value_name = "N", requires = "server")]
    concurrency: Option<usize>,
}

/// A server with the tokenizer of its model.
pub(crate) struct Remote {
    pub(crate) model: RemoteModel,
    pub(crate) chat: Arc<HfChat>,
}

impl RemoteArgs {
    /// The server that the options name, if they name one.
    pub(crate) fn config(&self) -> Option<RemoteConfig> {
        let mut config = RemoteConfig::new(self.server.as_deref()?, self.server_protocol?);
        config.model.clone_from(&self.server_model);
        config.key_env.clone_from(&self.key_env);
        config.key_file.clone_from(&self.key_file);
        config.http.max_concurrent = self.concurrency.unwrap_or(config.http.max_concurrent);
        Some(config)
    }
}

/// Opens the tokenizer of a model folder and sees to it that the server is there.
pub(crate) fn open(config: &RemoteConfig, folder: &Path, max_tokens: usize) -> anyhow::Result<Remote> {
    let chat = Arc::new(HfChat::open(folder, None)?);
    let (end_ids, n_tokens) = (chat.end_of_turn_ids().to_vec(), chat.tokenizer().n_tokens());
    let vocabulary = Vocabulary { chat: chat.clone(), end_ids, n_tokens };
    let key = Secret::named(config.key_env.as_deref(), config.key_file.as_deref(), &environment::named)?;
    let model = RemoteModel::new(config, key, vocabulary, max_tokens)?;
    model.check()?;
    Ok(Remote { model, chat })
}

fn protocol_parser() -> impl TypedValueParser<Value = Protocol> {
    let named = |name: String| Protocol::ALL.into_iter().find(|protocol| protocol.name() == name);
    PossibleValuesParser::new(Protocol::ALL.map(Protocol::name)).map(move |name| named(name).expect("one of these"))
}
