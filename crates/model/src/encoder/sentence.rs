//! The files of sentence-transformers -> pooling, prompts, length and an optional dense layer.
//!
//! modules.json lists the modules; each has its folder. A folder without modules.json is a plain BERT: mean pooling, as
//! sentence-transformers opens it. Every vector gets the length 1, whether modules.json says so or not.
use super::text_encoder::Pooling;
use crate::{ModelError, files};
use serde_json::Value;
use std::path::{Path, PathBuf};

pub(super) const MODULES: &str = "modules.json";
/// Prompts, and what else is not of one module.
pub(super) const PROMPTS: &str = "config_sentence_transformers.json";

/// What a checkpoint of sentence-transformers says of encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SentenceSettings {
    /// Where config.json, weights and tokenizer are.
    pub(super) transformer: PathBuf,
    pub(super) pooling: Pooling,
    /// The folder of a dense layer behind the pooling, where there is one.
    pub(super) dense: Option<PathBuf>,
    /// Put before queries.
    pub(super) query_prompt: String,
    /// Put before passages.
    pub(super) passage_prompt: String,
    /// The longest text in tokens, where it is said.
    pub(super) max_tokens: Option<usize>,
}

impl SentenceSettings {
    /// Reads the folder.
    pub(super) fn open(dir: &Path) -> Result<Self, ModelError> {
        let mut settings = Self {
            transformer: dir.to_owned(),
            pooling: Pooling::Mean,
            dense: None,
            query_prompt: String::new(),
            passage_prompt: String::new(),
            max_tokens: None,
        };
        if dir.join(MODULES).is_file() {
            settings.read_modules(dir)?;
            settings.read_prompts(&dir.join(PROMPTS))?;
        }
        settings.max_tokens = read_max_tokens(&settings.transformer)?;
        Ok(settings)
    }

    fn read_modules(&mut self, dir: &Path) -> Result<(), ModelError> {
        let path = dir.join(MODULES);
        let json = files::read_json(&path)?;
        let modules = json.as_array().map_or(&[][..], Vec::as_slice);
        for (module_idx, module) in modules.iter().enumerate() {
            let [Some(kind), Some(folder)] = [module["type"].as_str(), module["path"].as_str()] else {
                let reason = format!("module {module_idx} lacks `type` or `path`");
                return Err(ModelError::Json { path, reason });
            };
            // `sentence_transformers.models.Pooling`; where the class lies has changed and may again.
            let class = kind.rsplit('.').next().unwrap_or(kind);
            let folder = dir.join(folder);
            match (module_idx, class) {
                (0, "Transformer") => self.transformer = folder,
                (1, "Pooling") => self.pooling = read_pooling(&folder)?,
                (2, "Dense") => self.dense = Some(check_dense(folder)?),
                (2.., "Normalize") => {}
                _ => {
                    let feature = format!("the module `{kind}` in place {module_idx}");
                    return Err(ModelError::UnsupportedFeature { path, feature });
                }
            }
        }
        if modules.len() < 2 {
            return Err(ModelError::InvalidConfig { path, reason: "it lists no Transformer and Pooling".to_owned() });
        }
        Ok(())
    }

    fn read_prompts(&mut self, path: &Path) -> Result<(), ModelError> {
        let json = if path.is_file() { files::read_json(path)? } else { Value::Null };
        let prompts = &json["prompts"];
        let default = json["default_prompt_name"].as_str();
        let find = |names: &[&str]| {
            let prompt = names.iter().copied().chain(default).find_map(|name| prompts[name].as_str());
            prompt.unwrap_or_default().to_owned()
        };
        // The names and their order are those of encode_query and encode_document.
        self.query_prompt = find(&["query"]);
        self.passage_prompt = find(&["document", "passage", "corpus"]);
        Ok(())
    }
}

/// The limit of sentence_bert_config.json, else that of the tokenizer, which may be a huge number that means none.
pub(super) fn read_max_tokens(transformer: &Path) -> Result<Option<usize>, ModelError> {
    let mut max_tokens = None;
    for (file, field) in
        [("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")]
    {
        let path = transformer.join(file);
        let json = if path.is_file() { files::read_json(&path)? } else { Value::Null };
        max_tokens = max_tokens.or(json[field].as_u64().and_then(|n| usize::try_from(n).ok()));
    }
    Ok(max_tokens)
}

/// The modes by their names since version 6 of sentence-transformers and, behind `pooling_mode_`, before it. A mean over
/// sqrt(n) differs from the mean by a factor alone, which the length 1 takes away.
const POOLINGS: &[(&str, Pooling)] = &[
    ("mean", Pooling::Mean),
    ("mean_tokens", Pooling::Mean),
    ("mean_sqrt_len_tokens", Pooling::Mean),
    ("cls", Pooling::Cls),
    ("cls_token", Pooling::Cls),
    ("max", Pooling::Max),
    ("max_tokens", Pooling::Max),
];

fn read_pooling(folder: &Path) -> Result<Pooling, ModelError> {
    let path = folder.join("config.json");
    let json = files::read_json(&path)?;
    if json["include_prompt"] == Value::Bool(false) {
        return Err(ModelError::UnsupportedFeature { path, feature: "`include_prompt` false".to_owned() });
    }
    let modes: Vec<&str> = match &json["pooling_mode"] {
        Value::String(mode) => vec![mode],
        Value::Array(modes) => modes.iter().filter_map(Value::as_str).collect(),
        _ => {
            let flags = json.as_object().into_iter().flatten().filter(|(_, value)| **value == Value::Bool(true));
            flags.filter_map(|(name, _)| name.strip_prefix("pooling_mode_")).collect()
        }
    };
    let pooling = match modes[..] {
        [mode] => POOLINGS.iter().find(|(name, _)| *name == mode),
        _ => None,
    };
    match pooling {
        Some((_, pooling)) => Ok(*pooling),
        None => Err(ModelError::UnsupportedFeature { feature: format!("pooling by {modes:?}"), path }),
    }
}

fn check_dense(folder: PathBuf) -> Result<PathBuf, ModelError> {
    let path = folder.join("config.json");
    let json = files::read_json(&path)?;
    let activation = json["activation_function"].as_str().unwrap_or("torch.nn.modules.linear.Identity");
    if !activation.ends_with(".Identity") {
        return Err(ModelError::UnsupportedFeature { path, feature: format!("`activation_function` {activation}") });
    }
    if json["bias"] == Value::Bool(true) {
        return Err(ModelError::UnsupportedFeature { path, feature: "`bias` true".to_owned() });
    }
    Ok(folder)
}
