//! Messages -> the text of a model's chat template -> token ids, as transformers' `apply_chat_template` makes them.
//!
//! [`ChatTemplate`] renders and knows nothing of tokens. [`HfChat`] adds the tokenizer and implements
//! [`exsearch_schema::ChatCodec`]: a dialogue only grows at its end, and no text from outside (a passage that holds
//! `<|im_end|>`, say) can become a control token.
mod environment;
mod template;
#[cfg(test)]
mod tests;

pub use template::{ChatTemplate, RenderOptions};

use crate::ModelError;
use crate::tokenizer::Tokenizer;
use exsearch_schema::{ChatCodec, ChatError, Message, Role};
use std::path::Path;

/// A model's chat format: its tokenizer and its template.
#[derive(Debug)]
pub struct HfChat {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    now_unix_secs: Option<i64>,
    /// The token that the template puts behind an assistant turn.
    end_of_turn_id: u32,
    /// Every id that ends a sampled turn, `end_of_turn_id` first.
    end_of_turn_ids: Vec<u32>,
}

/// Stands for a turn whose ids are known already; no template touches it and no chat holds it.
const SAMPLED_TURN: &str = "\u{E0F1}sampled turn\u{E0F1}";

impl HfChat {
    /// Opens tokenizer and template of a model folder. `now_unix_secs` is what templates that print the date are told; with
    /// `None` they fall back to the date they carry, which keeps runs reproducible.
    pub fn open(dir: &Path, now_unix_secs: Option<i64>) -> Result<Self, ModelError> {
        Self::new(Tokenizer::open(dir)?, ChatTemplate::open(dir)?, now_unix_secs)
    }

    /// Joins a tokenizer and a template. Errors when the template leaves open where an assistant turn ends.
    pub fn new(tokenizer: Tokenizer, template: ChatTemplate, now_unix_secs: Option<i64>) -> Result<Self, ModelError> {
        let mut chat = Self { tokenizer, template, now_unix_secs, end_of_turn_id: 0, end_of_turn_ids: Vec::new() };
        let dialogue = [Message::user("question"), Message::assistant(SAMPLED_TURN)];
        let rest = chat.after_sampled_turn(&dialogue, false)?;
        let ids = chat.tokenizer.encode(&rest)?;
        let first_control = ids.iter().copied().find(|&id| chat.tokenizer.is_control(id));
        let Some(end_of_turn_id) = first_control.or(chat.tokenizer.end_of_turn_ids().first().copied()) else {
            let reason = "it ends an assistant turn without a special token, and no eos_token_id is configured";
            return Err(chat.template.error(reason));
        };
        chat.end_of_turn_id = end_of_turn_id;
        let others = chat.tokenizer.end_of_turn_ids().iter().copied().filter(|&id| id != end_of_turn_id);
        chat.end_of_turn_ids = std::iter::once(end_of_turn_id).chain(others).collect();
        Ok(chat)
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// Every id at which sampling a turn must stop: the one that the template puts behind an assistant turn, then those of
    /// the folder's configuration files.
    pub fn end_of_turn_ids(&self) -> &[u32] {
        &self.end_of_turn_ids
    }

    /// The text of a chat, as [`ChatTemplate::render`] gives it.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ModelError> {
        self.template.render(
            messages,
            &RenderOptions {
                add_generation_prompt,
                bos_token: self.tokenizer.bos_token(),
                eos_token: self.tokenizer.eos_token(),
                now_unix_secs: self.now_unix_secs,
            },
        )
    }

    /// What the template puts behind the content of the assistant turn [`SAMPLED_TURN`].
    fn after_sampled_turn(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ModelError> {
        let text = self.render(messages, add_generation_prompt)?;
        match text.rsplit_once(SAMPLED_TURN) {
            Some((_, rest)) => Ok(rest.to_owned()),
            None => Err(self.template.error("it leaves out the content of an assistant turn")),
        }
    }

    /// Renders and tokenizes, where `render` is given the messages with every control token in them hidden.
    fn tokenize(
        &self,
        messages: &[Message],
        render: impl FnOnce(&[Message]) -> Result<String, ModelError>,
    ) -> Result<Vec<u32>, ModelError> {
        let is_hostile = |message: &Message| {
            self.tokenizer.controls().iter().any(|control| message.content.contains(&control.content))
        };
        if !messages.iter().any(is_hostile) {
            // The usual case. One text through the tokenizer: words merge across the border of template and content as
            // they do in transformers.
            return self.tokenizer.encode(&render(messages)?);
        }
        let disguise = Disguise::new(&self.tokenizer, messages);
        let disguised: Vec<_> = messages
            .iter()
            .map(|message| Message { role: message.role, content: disguise.put_on(&message.content) })
            .collect();
        let text = render(&disguised)?;
        let mut ids = Vec::new();
        for piece in split_at_controls(&self.tokenizer, &text) {
            match piece {
                Piece::Control(id) => ids.push(id),
                Piece::Text(text) => ids.extend(self.tokenizer.encode_plain(&disguise.take_off(text))?),
            }
        }
        Ok(ids)
    }

    /// Without the end-of-turn token at its start, and white space that a template puts before it.
    fn strip_end_of_turn<'i>(&self, ids: &'i [u32]) -> Option<&'i [u32]> {
        let end = ids.iter().position(|id| self.end_of_turn_ids.contains(id))?;
        self.tokenizer.decode(&ids[..end], false).trim().is_empty().then_some(&ids[end + 1..])
    }
}

impl ChatCodec for HfChat {
    fn open(&self, messages: &[Message]) -> Result<Vec<u32>, ChatError> {
        self.tokenize(messages, |messages| self.render(messages, true)).map_err(chat_error)
    }

    fn reply(&self, history: &[Message], ended: bool, next: &Message) -> Result<Vec<u32>, ChatError> {
        let mut messages = history.to_vec();
        messages.push(Message { role: Role::Assistant, content: SAMPLED_TURN.to_owned() });
        messages.push(next.clone());
        let ids = self.tokenize(&messages, |messages| self.after_sampled_turn(messages, true)).map_err(chat_error)?;
        match self.strip_end_of_turn(&ids) {
            Some(rest) if ended => Ok(rest.to_vec()),
            _ => Ok(ids),
        }
    }

    fn turn(&self, text: &str) -> Vec<u32> {
        let mut ids = self.tokenizer.encode_plain(text).expect("`Tokenizer::open` probed that unknown text encodes");
        ids.push(self.end_of_turn_id);
        ids
    }

    fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, true)
    }
}

fn chat_error(error: ModelError) -> ChatError {
    ChatError(error.to_string())
}

/// Hides control tokens in contents while a template is at work, so that those in its output are its own. Hidden rather
/// than cut out: templates trim and compare contents.
struct Disguise<'t> {
    tokenizer: &'t Tokenizer,
    /// A character that no message holds, put behind the first character of each control token.
    mark: char,
}

impl<'t> Disguise<'t> {
    fn new(tokenizer: &'t Tokenizer, messages: &[Message]) -> Self {
        let is_free = |mark: &char| !messages.iter().any(|message| message.content.contains(*mark));
        // Private-use characters, then anything: a chat that holds them all does not fit into memory's share of a prompt.
        let mark = ('\u{F0000}'..='\u{10FFFD}').find(is_free).expect("some of 131,069 characters is not in the chat");
        Self { tokenizer, mark }
    }

    fn put_on(&self, content: &str) -> String {
        let mut hidden = content.to_owned();
        for control in self.tokenizer.controls() {
            let mut masked = control.content.clone();
            masked.insert(masked.chars().next().map_or(0, char::len_utf8), self.mark);
            hidden = hidden.replace(&control.content, &masked);
        }
        hidden
    }

    fn take_off(&self, text: &str) -> String {
        text.replace(self.mark, "")
    }
}

enum Piece<'t> {
    Control(u32),
    Text(&'t str),
}

/// Cuts `text` at the special tokens that it spells, the leftmost first and the longest among those, as the tokenizers
/// library does.
fn split_at_controls<'t>(tokenizer: &Tokenizer, text: &'t str) -> Vec<Piece<'t>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        // `min_by_key` keeps the first of equals, and `controls` has the longest first.
        let next = tokenizer
            .controls()
            .iter()
            .filter_map(|control| rest.find(&control.content).map(|start| (start, control)))
            .min_by_key(|&(start, _)| start);
        let Some((start, control)) = next else { break };
        let (before, behind) = (&rest[..start], &rest[start + control.content.len()..]);
        let before = if control.lstrip { before.trim_end() } else { before };
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Control(control.id));
        rest = if control.rstrip { behind.trim_start() } else { behind };
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}
