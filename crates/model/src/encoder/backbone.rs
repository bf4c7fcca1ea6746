//! What turns token ids into hidden states: our own BERT, or an ONNX file in onnxruntime.
use super::bert::TokenIds;
#[cfg(feature = "ort")]
use super::onnx::OnnxBert;
use super::packs::PackedBert;
use crate::ModelError;

pub(super) enum Backbone {
    Bert(PackedBert),
    #[cfg(feature = "ort")]
    Onnx(OnnxBert),
}

impl Backbone {
    pub(super) fn hidden_size(&self) -> usize {
        match self {
            Self::Bert(bert) => bert.hidden_size(),
            #[cfg(feature = "ort")]
            Self::Onnx(onnx) => onnx.hidden_size(),
        }
    }

    /// What `head` makes of the ids of each text and of its final hidden states `[n, h]`, in the order of the texts.
    pub(super) fn run<T: Send>(
        &self,
        texts: &[&str],
        tokenize: impl Fn(&str) -> Result<TokenIds, ModelError> + Sync,
        head: impl Fn(&TokenIds, &[f32]) -> T + Sync,
    ) -> Result<Vec<T>, ModelError> {
        match self {
            Self::Bert(bert) => bert.run(texts, tokenize, head),
            #[cfg(feature = "ort")]
            Self::Onnx(onnx) => onnx.run(texts, tokenize, head),
        }
    }
}
