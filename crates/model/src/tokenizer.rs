//! tokenizer.json of a model folder -> text to ids and back.
//!
//! Two ways in: [`Tokenizer::encode`] for text of the chat template, where `<|im_end|>` is a token, and
//! [`Tokenizer::encode_plain`] for text from outside (questions, passages, sampled turns), where it is ten characters. No
//! special token is ever added around the text. Knows nothing of chats.
use crate::ModelError;
use crate::files;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A model's tokenizer.
pub struct Tokenizer {
    path: PathBuf,
    full: tokenizers::Tokenizer,
    /// The same, but blind to special tokens.
    plain: tokenizers::Tokenizer,
    controls: Vec<ControlToken>,
    control_ids: BTreeSet<u32>,
    bos_token: Option<String>,
    eos_token: Option<String>,
    end_of_turn_ids: Vec<u32>,
}

/// A token that steers the model and must never come out of outside text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlToken {
    pub(crate) id: u32,
    pub(crate) content: String,
    /// It swallows white space before it.
    pub(crate) lstrip: bool,
    /// It swallows white space behind it.
    pub(crate) rstrip: bool,
}

/// Text of ids that arrive one at a time, for finding stop strings while a turn is sampled. Bytes of an unfinished
/// character are held back until the character is whole.
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    ids: Vec<u32>,
    /// Decoding restarts here, so that a token is always decoded behind its left neighbour.
    context_idx: usize,
    /// The text of the ids before this one is in `text`.
    emitted_idx: usize,
    text: String,
    /// Length of `text` before the last push.
    n_bytes_before: usize,
}

impl Tokenizer {
    /// Reads `dir/tokenizer.json` and, where they exist, the special tokens of tokenizer_config.json, config.json and
    /// generation_config.json. A tokenizer that does not fit config.json's `vocab_size` is refused.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("tokenizer.json");
        if !path.is_file() {
            return Err(ModelError::MissingFile {
                folder: dir.to_owned(),
                file: "tokenizer.json",
                advice: "pull the model again, or save it with a fast tokenizer",
            });
        }
        let mut full = guarded(&path, || tokenizers::Tokenizer::from_file(&path))?;
        full.with_padding(None);
        guarded(&path, || full.with_truncation(None).map(|_| ()))?;
        let mut plain = full.clone();
        plain.set_encode_special_tokens(true);
        // A tokenizer that has no way to say "unknown" would fail in the middle of a run.
        encode_ids(&path, &plain, "\u{10FFFF}\u{E000}\u{2603} a1\n", false)?;

        let special = SpecialTokens::read(dir)?;
        let id_of = |token: &Option<String>| token.as_ref().and_then(|token| full.token_to_id(token));
        let mut end_of_turn_ids = special.eos_ids.clone();
        end_of_turn_ids.extend(id_of(&special.eos_token).filter(|id| !special.eos_ids.contains(id)));
        let mut controls: Vec<ControlToken> = full
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(id, token)| token.special || end_of_turn_ids.contains(id))
            .map(|(id, token)| ControlToken { id, content: token.content, lstrip: token.lstrip, rstrip: token.rstrip })
            .collect();
        // Longest first, so that `<|end|>` is not found inside of `<|end|>x`; then by id.
        controls.sort_by_key(|token| (std::cmp::Reverse(token.content.len()), token.id));
        let mut control_ids: BTreeSet<u32> = controls.iter().map(|token| token.id).collect();
        control_ids.extend(&end_of_turn_ids);
        control_ids.extend(id_of(&special.bos_token));
        if let Some(vocab_size) = special.vocab_size {
            check_vocabulary(&path, &full, vocab_size)?;
        }
        let SpecialTokens { bos_token, eos_token, .. } = special;
        Ok(Self { path, full, plain, controls, control_ids, bos_token, eos_token, end_of_turn_ids })
    }

    /// The ids of template text: special tokens written out in it become their ids, and none is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        encode_ids(&self.path, &self.full, text, false)
    }

    /// The ids of outside text: no special token comes out, whatever the text holds. Equal to [`Tokenizer::encode`] for
    /// text that spells no special token.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let ids = encode_ids(&self.path, &self.plain, text, false)?;
        if !ids.iter().any(|id| self.control_ids.contains(id)) {
            return Ok(ids);
        }
        // The vocabulary itself spells a control token (added without the special flag, or reachable by merges): cut the
        // text inside of each.
        let (mut ids, mut start) = (Vec::new(), 0);
        for end in self.cuts_inside_controls(text).into_iter().chain([text.len()]) {
            ids.extend(encode_ids(&self.path, &self.plain, &text[start..end], false)?);
            start = end;
        }
        ids.retain(|id| !self.control_ids.contains(id));
        Ok(ids)
    }

    /// The text of `ids`. `skip_special` leaves special tokens out; ids outside of the vocabulary always are.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        // The library's decoders fail on nothing that ids can cause; an empty text is what an unknown id gives too.
        guarded(&self.path, || self.full.decode(ids, skip_special)).unwrap_or_default()
    }

    /// Starts a text that grows id by id, special tokens left out.
    pub fn stream(&self) -> TextStream<'_> {
        let (ids, text) = (Vec::new(), String::new());
        TextStream { tokenizer: self, ids, context_idx: 0, emitted_idx: 0, text, n_bytes_before: 0 }
    }

    /// The id of one token, special or not.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.full.token_to_id(token)
    }

    /// The token of an id, as the vocabulary spells it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.full.id_to_token(id)
    }

    /// One more than the largest id.
    pub fn n_tokens(&self) -> usize {
        n_tokens(&self.full)
    }

    /// The token that opens a text, where the model has one.
    pub fn bos_token(&self) -> Option<&str> {
        self.bos_token.as_deref()
    }

    /// The token that ends a text, where the model has one.
    pub fn eos_token(&self) -> Option<&str> {
        self.eos_token.as_deref()
    }

    /// The ids that end a generation according to the folder's configuration files.
    pub fn end_of_turn_ids(&self) -> &[u32] {
        &self.end_of_turn_ids
    }

    /// Whether `id` steers the model instead of standing for text.
    pub fn is_control(&self, id: u32) -> bool {
        self.control_ids.contains(&id)
    }

    /// Special tokens, the longest first.
    pub(crate) fn controls(&self) -> &[ControlToken] {
        &self.controls
    }

    /// The ends of the first characters of all control tokens that `text` spells, ascending.
    fn cuts_inside_controls(&self, text: &str) -> BTreeSet<usize> {
        let tokens = self.control_ids.iter().filter_map(|&id| self.full.id_to_token(id));
        let occurrences = tokens.filter(|token| !token.is_empty()).flat_map(|token| {
            let n_first = token.chars().next().map_or(0, char::len_utf8);
            text.match_indices(&token).map(|(start, _)| start + n_first).collect::<Vec<_>>()
        });
        occurrences.collect()
    }
}

impl TextStream<'_> {
    /// Adds an id and returns the text that it completed, often one word, sometimes nothing.
    pub fn push(&mut self, id: u32) -> &str {
        self.n_bytes_before = self.text.len();
        self.ids.push(id);
        let before = self.tokenizer.decode(&self.ids[self.context_idx..self.emitted_idx], true);
        let after = self.tokenizer.decode(&self.ids[self.context_idx..], true);
        // U+FFFD at the end: the last bytes are the start of a character, or rubbish that the next id will settle.
        if let Some(new) = after.strip_prefix(&before)
            && !new.is_empty()
            && !new.ends_with('\u{FFFD}')
        {
            self.text.push_str(new);
            self.context_idx = self.emitted_idx;
            self.emitted_idx = self.ids.len();
        }
        &self.text[self.n_bytes_before..]
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the last [`TextStream::push`] completed one of `stops`.
    pub fn has_stop(&self, stops: &[String]) -> bool {
        stops.iter().filter(|stop| !stop.is_empty()).any(|stop| {
            let mut start = self.n_bytes_before.saturating_sub(stop.len());
            while !self.text.is_char_boundary(start) {
                start -= 1;
            }
            self.text[start..].contains(stop.as_str())
        })
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("path", &self.path).field("n_tokens", &self.n_tokens()).finish()
    }
}

/// What the configuration files say beside tokenizer.json.
struct SpecialTokens {
    bos_token: Option<String>,
    eos_token: Option<String>,
    eos_ids: Vec<u32>,
    vocab_size: Option<usize>,
}

impl SpecialTokens {
    fn read(dir: &Path) -> Result<Self, ModelError> {
        let read = |name: &str| match dir.join(name) {
            path if path.is_file() => files::read_json(&path),
            _ => Ok(Value::Null),
        };
        let names = [read("tokenizer_config.json")?, read("special_tokens_map.json")?];
        let token = |field: &str| names.iter().find_map(|names| token_text(&names[field]));
        let (config, generation) = (read("config.json")?, read("generation_config.json")?);
        let eos_ids = match token_ids(&generation["eos_token_id"]) {
            ids if ids.is_empty() => token_ids(&config["eos_token_id"]),
            ids => ids,
        };
        let vocab_size = config["vocab_size"].as_u64().and_then(|size| usize::try_from(size).ok());
        Ok(Self { bos_token: token("bos_token"), eos_token: token("eos_token"), eos_ids, vocab_size })
    }
}

/// The ids that a tokenizer makes of a text, `with_markers` those that its post-processor puts around it too.
pub(crate) fn encode_ids(
    path: &Path,
    tokenizer: &tokenizers::Tokenizer,
    text: &str,
    with_markers: bool,
) -> Result<Vec<u32>, ModelError> {
    Ok(guarded(path, || tokenizer.encode_fast(text, with_markers))?.get_ids().to_vec())
}

/// What the tokenizers library makes of the file at `path`, or by it. It trusts some of what a tokenizer.json says and panics where
/// one part contradicts another (a post-processor that names a token it does not describe), which is an error of the file.
pub(crate) fn guarded<T>(path: &Path, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, ModelError> {
    let unusable = |reason: String| ModelError::Tokenizer { path: path.to_owned(), reason };
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| unusable(error.to_string())),
        Err(_) => Err(unusable("its parts contradict each other: the tokenizers library stopped on them".to_owned())),
    }
}

/// A token written as a text or as an object with its `content`.
pub(crate) fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// An id or a list of them; anything else is left to `DecoderConfig` to refuse.
fn token_ids(value: &Value) -> Vec<u32> {
    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    items.iter().filter_map(|item| item.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}

fn n_tokens(tokenizer: &tokenizers::Tokenizer) -> usize {
    tokenizer.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1)
}

/// Models pad their vocabulary upwards (Qwen2.5 by 271 rows), so fewer tokens than rows are fine, but not far fewer.
fn check_vocabulary(path: &Path, tokenizer: &tokenizers::Tokenizer, vocab_size: usize) -> Result<(), ModelError> {
    let n_tokens = n_tokens(tokenizer);
    let n_unused = vocab_size.saturating_sub(n_tokens);
    if n_tokens > vocab_size || n_unused > 1024 && n_unused > vocab_size / 10 {
        return Err(ModelError::TokenizerMismatch { path: path.to_owned(), n_tokens, vocab_size });
    }
    Ok(())
}
