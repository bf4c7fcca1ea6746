//! What the stages work with, opened once: the policy (a model on some device) and its chat format.
use crate::error::RunError;
use exsearch_engine::{Engine, EngineConfig, EngineStats, GenerationWeights};
use exsearch_model::ModelError;
use exsearch_model::chat::HfChat;
use exsearch_model::checkpoint::{is_adapter, load_adapter, load_decoder, merge, save_adapter, save_decoder};
use exsearch_model::decoder::{Adapter, Decoder};
use exsearch_model::weights::WeightDtype;
use exsearch_schema::{Example, Generator, Scorer};
use exsearch_trainer::{Method, StepReport, Student, TrainConfig, train};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A language model that can be asked and trained.
pub struct Policy {
    /// Tokenizer and chat template.
    pub chat: HfChat,
    /// The folder that the model came from.
    pub base: PathBuf,
    model: Model,
}

/// Where a model is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// On the processor: the same numbers on every machine.
    #[default]
    Cpu,
    /// On a GPU, with f32 weights.
    Gpu,
    /// On a GPU, with bf16 weights: half the memory. Training keeps f32 copies of what it changes.
    GpuBf16,
}

/// A generator and a scorer over a policy; they share what they have computed.
pub enum LocalEngine<'m> {
    /// On the processor.
    Cpu(Engine<'m>),
    /// On a GPU.
    #[cfg(feature = "gpu")]
    Gpu(exsearch_device::DeviceEngine<'m>),
}

enum Model {
    Cpu(CpuModel),
    #[cfg(feature = "gpu")]
    Gpu(Box<exsearch_device::DeviceModel>),
}

/// A decoder on the processor.
struct CpuModel {
    decoder: Decoder,
    /// Trained beside it, where there is one.
    adapter: Option<Adapter>,
}

/// Limits of the local generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneratorConfig {
    /// Sequences that are decoded at once. Changes speed and memory, never results.
    pub max_sequences: usize,
    /// Tokens computed in one pass. Changes speed and memory, never results.
    pub max_rows: usize,
    /// Memory in MB for keys and values: of sequences that run, of what is scored, and of turns that may go on. Changes speed,
    /// never results. Default 2048.
    pub kv_cache_mb: usize,
    /// The weights that tokens are sampled with: `f32`, or `int8` for speed. With `int8` both log-probs on a trajectory are those
    /// of the rounded model, and sampling correction (`weights.correct_sampling`), which needs the model's own, is refused. Gold
    /// answers are scored in f32 either way. Default `f32`.
    pub weights: GenerationWeights,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self { max_sequences: 64, max_rows: 512, kv_cache_mb: 2048, weights: GenerationWeights::F32 }
    }
}

impl Policy {
    /// Opens a model folder, or an adapter folder and the model that it belongs to, for dialogues of at most `max_tokens`.
    pub fn open(model: &Path, adapter: Option<&Path>, max_tokens: usize, device: Device) -> Result<Self, RunError> {
        let opened = Model::open(model, max_tokens, device)?;
        let mut policy = Self { chat: HfChat::open(model, None)?, base: model.to_owned(), model: opened };
        if let Some(adapter) = adapter {
            policy.load_checkpoint(adapter)?;
        }
        Ok(policy)
    }

    /// The longest dialogue it takes, in tokens.
    pub fn max_positions(&self) -> usize {
        match &self.model {
            Model::Cpu(model) => model.decoder.max_positions(),
            #[cfg(feature = "gpu")]
            Model::Gpu(model) => model.decoder().max_positions(),
        }
    }

    /// Takes up a checkpoint: an adapter beside the decoder, or a folder in its place.
    pub fn load_checkpoint(&mut self, dir: &Path) -> Result<(), RunError> {
        match &mut self.model {
            Model::Cpu(model) => model.load_checkpoint(dir)?,
            #[cfg(feature = "gpu")]
            Model::Gpu(model) => model.load_checkpoint(dir)?,
        }
        Ok(())
    }

    /// Makes it the model that was opened, without whatever was trained or taken up since.
    pub(crate) fn restart(&mut self) -> Result<(), RunError> {
        let base = self.base.clone();
        self.load_checkpoint(&base)
    }

    /// Errors where a generator's settings cannot be had from it.
    pub fn check(&self, config: &GeneratorConfig) -> Result<(), RunError> {
        let is_on_cpu = matches!(self.model, Model::Cpu(_));
        match config.weights == GenerationWeights::F32 || is_on_cpu {
            true => Ok(()),
            false => Err(RunError::Int8OnGpu),
        }
    }

    /// A generator and scorer over it.
    pub fn engine(&self, config: &GeneratorConfig) -> LocalEngine<'_> {
        let config = EngineConfig {
            max_sequences: config.max_sequences,
            max_rows: config.max_rows,
            kv_cache_bytes: config.kv_cache_mb << 20,
            weights: config.weights,
        };
        match &self.model {
            Model::Cpu(CpuModel { decoder, adapter, .. }) => {
                LocalEngine::Cpu(Engine::new(decoder, adapter.as_ref(), &self.chat, config))
            }
            #[cfg(feature = "gpu")]
            Model::Gpu(model) => LocalEngine::Gpu(model.engine(&self.chat, config)),
        }
    }

    /// Trains it and writes the checkpoint to `dir`. LoRA goes on from the adapter that is there; full training makes it part
    /// of the decoder first.
    pub(crate) fn train(
        &mut self,
        examples: &[Example],
        config: &TrainConfig,
        dir: &Path,
        on_step: &mut dyn FnMut(&StepReport),
    ) -> Result<(), RunError> {
        match &mut self.model {
            Model::Cpu(model) => model.train(examples, config, (&self.base, dir), on_step),
            #[cfg(feature = "gpu")]
            Model::Gpu(model) => Ok(model.train(examples, config, (&self.base, dir), on_step)?),
        }
    }
}

impl Device {
    /// Refuses a GPU that is not there, before any work is done.
    pub fn check(self) -> Result<(), RunError> {
        match self {
            Self::Cpu => Ok(()),
            #[cfg(feature = "gpu")]
            Self::Gpu | Self::GpuBf16 => Ok(exsearch_device::open_gpu().map(|_| ())?),
            #[cfg(not(feature = "gpu"))]
            Self::Gpu | Self::GpuBf16 => Err(RunError::BuiltWithoutGpu),
        }
    }

    /// Whether it is the default one.
    pub(crate) fn is_cpu(&self) -> bool {
        *self == Self::Cpu
    }
}

impl LocalEngine<'_> {
    /// Generates turns.
    pub fn generator(&self) -> Box<dyn Generator + '_> {
        match self {
            Self::Cpu(engine) => Box::new(engine),
            #[cfg(feature = "gpu")]
            Self::Gpu(engine) => Box::new(engine),
        }
    }

    /// Counters since it was made.
    pub fn stats(&self) -> EngineStats {
        match self {
            Self::Cpu(engine) => engine.stats(),
            #[cfg(feature = "gpu")]
            Self::Gpu(engine) => engine.stats(),
        }
    }

    /// Scores continuations.
    pub fn scorer(&self) -> Box<dyn Scorer + '_> {
        match self {
            Self::Cpu(engine) => Box::new(engine),
            #[cfg(feature = "gpu")]
            Self::Gpu(engine) => Box::new(engine),
        }
    }
}

impl Model {
    fn open(dir: &Path, max_tokens: usize, device: Device) -> Result<Self, RunError> {
        match device {
            Device::Cpu => {
                let decoder = load_decoder(dir, max_tokens)?;
                Ok(Self::Cpu(CpuModel { decoder, adapter: None }))
            }
            #[cfg(feature = "gpu")]
            Device::Gpu | Device::GpuBf16 => {
                use exsearch_device::Precision;
                let gpu = exsearch_device::open_gpu()?;
                if gpu.is_software {
                    tracing::warn!("computing on {}: software, slower than without --device", gpu.name);
                } else {
                    tracing::info!("computing on {}", gpu.name);
                }
                let precision = if device == Device::Gpu { Precision::F32 } else { Precision::Bf16 };
                let model = exsearch_device::DeviceModel::open(dir, max_tokens, precision, &gpu.device)?;
                Ok(Self::Gpu(Box::new(model)))
            }
            #[cfg(not(feature = "gpu"))]
            Device::Gpu | Device::GpuBf16 => Err(RunError::BuiltWithoutGpu),
        }
    }
}

impl CpuModel {
    fn load_checkpoint(&mut self, dir: &Path) -> Result<(), ModelError> {
        if is_adapter(dir) {
            self.adapter = Some(load_adapter(dir, self.decoder.config())?);
        } else {
            self.decoder = load_decoder(dir, self.decoder.max_positions())?;
            self.adapter = None;
        }
        Ok(())
    }

    fn train(
        &mut self,
        examples: &[Example],
        config: &TrainConfig,
        (base, dir): (&Path, &Path),
        on_step: &mut dyn FnMut(&StepReport),
    ) -> Result<(), RunError> {
        let Self { decoder, adapter } = self;
        match config.method {
            Method::Lora => {
                let adapter = adapter.get_or_insert_with(|| config.new_adapter(decoder));
                train(Student::Adapter { decoder, adapter }, examples, config, on_step)?;
                save_adapter(adapter, base, dir)?;
            }
            Method::Full => {
                if let Some(adapter) = adapter.take() {
                    merge(decoder, &adapter);
                }
                train(Student::Full(decoder), examples, config, on_step)?;
                save_decoder(decoder, base, dir, WeightDtype::F32)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use exsearch_model::gguf::import_gguf;

    /// A random model of a few thousand parameters.
    pub(crate) fn tiny_policy(dir: &Path) -> Policy {
        let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/tiny_llama.gguf");
        let model = dir.join("model");
        if !model.is_dir() {
            import_gguf(&gguf, &model).expect("imported");
        }
        Policy::open(&model, None, 64, Device::Cpu).expect("a model")
    }

    #[test]
    fn a_restarted_policy_learns_as_one_that_learned_nothing_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let example = |ids: Vec<u32>| Example {
            question_id: "q".into(),
            sample_idx: 0,
            loss_mask: (0..ids.len()).map(|idx| u8::from(idx > 1)).collect(),
            ids,
            weight: 1.0,
            target_weights: Vec::new(),
        };
        let (first, second) = ([example(vec![3, 4, 5, 6])], [example(vec![9, 8, 7, 6])]);
        for method in [Method::Lora, Method::Full] {
            let config = TrainConfig { method, lora_rank: 2, ..TrainConfig::default() };
            let learned = |policy: &mut Policy, examples: &[Example], name: &str| {
                let dir = folder.path().join(format!("{method:?} {name}"));
                policy.train(examples, &config, &dir, &mut |_| {}).expect("trained");
                let weights = if method == Method::Lora { "adapter_model.safetensors" } else { "model.safetensors" };
                (std::fs::read(dir.join(weights)).expect("written"), dir)
            };
            let mut policy = tiny_policy(folder.path());
            let (_, warmup) = learned(&mut policy, &first, "warm-up");
            let (on, _) = learned(&mut policy, &second, "on");
            policy.restart().expect("restarted");
            let (again, _) = learned(&mut policy, &second, "from the base");
            let (fresh, _) = learned(&mut tiny_policy(folder.path()), &second, "fresh");
            assert!(again == fresh && again != on, "{method:?}");
            policy.restart().expect("restarted");
            policy.load_checkpoint(&warmup).expect("taken up");
            assert!(learned(&mut policy, &second, "from the warm-up").0 == on, "{method:?}");
        }
    }
}
