//! A model on a device as the stages of a run use it: asked, trained, and written to the same files as on CPU.
use crate::adapter::DeviceAdapter;
use crate::decoder::{DeviceDecoder, Precision, numbers};
use crate::engine::DeviceEngine;
use crate::layer::cast;
use crate::open::DeviceError;
use crate::parameters::Parameters;
use crate::training::{OnDevice, Trained};
use burn_tensor::{DType, Device, Tensor};
use exsearch_engine::{Decode, EngineConfig};
use exsearch_model::ModelError;
use exsearch_model::checkpoint::{is_adapter, load_adapter, save_adapter, save_tensors};
use exsearch_model::decoder::Adapter;
use exsearch_model::weights::WeightDtype;
use exsearch_schema::Example;
use exsearch_trainer::{Method, StepReport, TrainConfig, train_learner};
use std::path::Path;

/// A decoder and, where one is trained, its adapter.
pub struct DeviceModel {
    decoder: DeviceDecoder,
    adapter: Option<DeviceAdapter>,
    /// f32 copies of parameters that are not, once all of them were trained.
    masters: Option<Parameters<Tensor<2>>>,
}

impl DeviceModel {
    /// Loads an HF folder for sequences of at most `max_positions` tokens, or the model's own limit if less.
    pub fn open(dir: &Path, max_positions: usize, precision: Precision, device: &Device) -> Result<Self, DeviceError> {
        if !device.supports_dtype(precision.dtype()) {
            return Err(DeviceError::NoBf16 { device: format!("{device:?}") });
        }
        let decoder = DeviceDecoder::open(dir, max_positions, precision, device)?;
        Ok(Self { decoder, adapter: None, masters: None })
    }

    /// Its decoder.
    pub fn decoder(&self) -> &DeviceDecoder {
        &self.decoder
    }

    /// A generator and scorer over it.
    pub fn engine<'m>(&'m self, text: &'m dyn Decode, config: EngineConfig) -> DeviceEngine<'m> {
        DeviceEngine::new(&self.decoder, self.adapter.as_ref(), text, config)
    }

    /// Takes up a checkpoint: an adapter beside the decoder, or a folder in its place.
    pub fn load_checkpoint(&mut self, dir: &Path) -> Result<(), ModelError> {
        if is_adapter(dir) {
            let adapter = load_adapter(dir, self.decoder.config())?;
            self.adapter = Some(DeviceAdapter::upload(&adapter, self.decoder.device()));
            return Ok(());
        }
        let (max_positions, precision) = (self.decoder.max_positions(), self.decoder.precision());
        self.decoder = DeviceDecoder::open(dir, max_positions, precision, self.decoder.device())?;
        (self.adapter, self.masters) = (None, None);
        Ok(())
    }

    /// Trains as `config` says and writes the checkpoint to `dir`, as `exsearch-model` writes it. `base` is the folder that the
    /// model came from. LoRA goes on from the adapter that is there; full training makes it part of the decoder first.
    pub fn train(
        &mut self,
        examples: &[Example],
        config: &TrainConfig,
        (base, dir): (&Path, &Path),
        on_step: &mut dyn FnMut(&StepReport),
    ) -> Result<(), DeviceError> {
        match config.method {
            Method::Lora => {
                let adapter = self.adapter.get_or_insert_with(|| {
                    let fresh = Adapter::new(&config.lora(), self.decoder.config(), config.seed);
                    DeviceAdapter::upload(&fresh, self.decoder.device())
                });
                let mut learner =
                    OnDevice::new(&mut self.decoder, Trained::Adapter(adapter), config.activation_bytes());
                train_learner(&mut learner, examples, config, on_step)?;
                let adapter = self.adapter.as_ref().expect("it was just trained");
                save_adapter(&adapter.download(), base, dir)?;
            }
            Method::Full => {
                self.merge_adapter();
                let mut learner =
                    OnDevice::new(&mut self.decoder, Trained::Full(self.masters.as_mut()), config.activation_bytes());
                train_learner(&mut learner, examples, config, on_step)?;
                self.save(base, dir)?;
            }
        }
        Ok(())
    }

    /// Makes the adapter part of the decoder, `W += s·B·A`, and f32 copies where the decoder is not f32.
    fn merge_adapter(&mut self) {
        let decoder = &mut self.decoder;
        if decoder.precision() != Precision::F32 && self.masters.is_none() {
            self.masters = Some(decoder.parameters.map(|tensor| cast(tensor.clone(), DType::F32)));
        }
        let Some(adapter) = self.adapter.take() else { return };
        let scale = adapter.scale();
        let wide = self.masters.as_mut().unwrap_or(&mut decoder.parameters);
        for (layer, pairs) in wide.layers.iter_mut().zip(adapter.layers) {
            for (weight, pair) in layer.linears.iter_mut().zip(pairs) {
                let Some([a, b]) = pair else { continue };
                *weight = weight.clone() + b.matmul(a) * scale;
            }
        }
        if let Some(masters) = &self.masters {
            for (tensor, master) in decoder.parameters.all_mut().zip(masters.all()) {
                *tensor = cast(master.clone(), tensor.dtype());
            }
        }
    }

    fn save(&self, base: &Path, dir: &Path) -> Result<(), ModelError> {
        let layout = Parameters::of(self.decoder.config()).all().cloned().collect();
        let tensors: Vec<&Tensor<2>> = self.masters.as_ref().unwrap_or(&self.decoder.parameters).all().collect();
        save_tensors(layout, |idx| numbers(tensors[idx].clone()), base, dir, WeightDtype::F32)
    }
}
