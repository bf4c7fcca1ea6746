//! The seam between the agent and the tokenizer with its chat template.
use serde::{Deserialize, Serialize};

/// Who speaks in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Standing instructions.
    System,
    /// The user; for the agent also the environment.
    User,
    /// The model.
    Assistant,
}

/// One turn of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// A chat could not be turned into tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatError(pub String);

/// Turns chats into token ids so that a dialogue only ever grows at its end: what was sampled is never tokenized again.
pub trait ChatCodec: Send + Sync {
    /// The ids of `messages` and of the header that invites the model to speak.
    fn open(&self, messages: &[Message]) -> Result<Vec<u32>, ChatError>;

    /// The ids between the end of a sampled assistant turn and the start of the next: the rest of the template's end of
    /// turn, `next` as a turn, and the header that invites the model to speak. `history` is the chat up to and without the
    /// sampled turn. `ended` says whether the sampled ids already end with the end-of-turn token.
    fn reply(&self, history: &[Message], ended: bool, next: &Message) -> Result<Vec<u32>, ChatError>;

    /// The ids of `text` as the model would write it as a whole turn, with the end-of-turn token.
    fn turn(&self, text: &str) -> Vec<u32>;

    /// The text of `ids` without special tokens.
    fn decode(&self, ids: &[u32]) -> String;
}

impl Message {
    /// A turn of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: Role::Assistant, content: content.into() }
    }

    /// A turn of the user or the environment.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Role::User, content: content.into() }
    }

    /// Standing instructions.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: Role::System, content: content.into() }
    }
}

impl std::fmt::Display for ChatError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the chat template failed: {}", self.0)
    }
}

impl std::error::Error for ChatError {}
