//! A chat template: found in a model folder, rendered as transformers renders it.
use super::environment;
use crate::error::io_error;
use crate::tokenizer::token_text;
use crate::{ModelError, files};
use exsearch_schema::Message;
use minijinja::{Environment, context};
use std::path::{Path, PathBuf};

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    /// Where it was found, for messages.
    path: PathBuf,
    source: String,
    environment: Environment<'static>,
}

/// What a template is told beside the messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct RenderOptions<'a> {
    /// Whether to end with the header that invites the model to speak.
    pub add_generation_prompt: bool,
    /// The token that opens a text; empty in the template where the model has none.
    pub bos_token: Option<&'a str>,
    /// The token that ends a text.
    pub eos_token: Option<&'a str>,
    /// What `strftime_now` prints, in UTC. With `None` the function is not defined: templates then use the date they carry.
    pub now_unix_secs: Option<i64>,
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// Finds the template of a model folder: chat_template.jinja, then chat_template.json, then tokenizer_config.json, in
    /// transformers' order.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let jinja = dir.join("chat_template.jinja");
        if jinja.is_file() {
            let source = std::fs::read_to_string(&jinja).map_err(io_error("read", &jinja))?;
            return Self::from_source(&jinja, source);
        }
        for name in ["chat_template.json", "tokenizer_config.json"] {
            let path = dir.join(name);
            if path.is_file()
                && let Some(source) = pick_template(&files::read_json(&path)?["chat_template"])
            {
                return Self::from_source(&path, source);
            }
        }
        Err(ModelError::NoChatTemplate { folder: dir.to_owned() })
    }

    /// Compiles a template; `path` is for error messages only.
    pub fn from_source(path: &Path, source: String) -> Result<Self, ModelError> {
        let mut environment = environment::like_transformers();
        let compiled = environment.add_template_owned(NAME, environment::without_generation_tags(&source));
        match compiled {
            Ok(()) => Ok(Self { path: path.to_owned(), source, environment }),
            Err(error) => Err(template_error(path, &error)),
        }
    }

    /// The template as it was found.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a chat.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String, ModelError> {
        let mut globals = context! {
            messages => messages,
            tools => (),
            documents => (),
            add_generation_prompt => options.add_generation_prompt,
            bos_token => options.bos_token.unwrap_or_default(),
            eos_token => options.eos_token.unwrap_or_default(),
        };
        if let Some(now_unix_secs) = options.now_unix_secs {
            let strftime_now = environment::strftime_now(now_unix_secs);
            globals = context! { strftime_now => strftime_now, ..globals };
        }
        let template = self.environment.get_template(NAME).expect("`from_source` added it");
        template.render(globals).map_err(|error| template_error(&self.path, &error))
    }

    pub(super) fn error(&self, reason: &str) -> ModelError {
        ModelError::Template { path: self.path.clone(), reason: reason.to_owned() }
    }
}

/// One template, or the one named `default` of several.
fn pick_template(value: &serde_json::Value) -> Option<String> {
    if let Some(one) = value.as_str() {
        return Some(one.to_owned());
    }
    let several = value.as_array()?;
    let default = several.iter().find(|entry| entry["name"] == "default").or(several.first())?;
    token_text(&default["template"])
}

/// The message of `raise_exception`, or of the engine with the line it stopped at.
fn template_error(path: &Path, error: &minijinja::Error) -> ModelError {
    let mut reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    if let Some(line) = error.line() {
        reason.push_str(&format!(" (line {line})"));
    }
    ModelError::Template { path: path.to_owned(), reason }
}
