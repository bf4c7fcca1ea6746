//! What the tests share: the golden checkpoints of `crates/model/tests/golden` and a device, a GPU where one is built for.
use exsearch_device::{Device, DeviceModel, Precision};
use serde_json::Value;
use std::path::PathBuf;

/// One of each family, and of each switch of one. The rows of those with windows are longer than them.
pub(crate) const CHECKPOINTS: &[&str] =
    &["llama_tied", "llama_untied", "llama_biased", "mistral", "qwen2", "qwen3", "gemma3"];
pub(crate) const MAX_TOKENS: usize = 128;

#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) fn device() -> Device {
    exsearch_device::open_gpu().expect("a GPU, or lavapipe (Debian's mesa-vulkan-drivers)").device
}

#[cfg(not(any(feature = "wgpu", feature = "cuda")))]
pub(crate) fn device() -> Device {
    exsearch_device::open_cpu()
}

pub(crate) fn model(name: &str, precision: Precision) -> DeviceModel {
    DeviceModel::open(&folder(name), MAX_TOKENS, precision, &device()).expect("a checkpoint")
}

pub(crate) fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden").join(name)
}

pub(crate) fn golden(name: &str) -> Value {
    let path = folder(name).join("golden.json");
    serde_json::from_slice(&std::fs::read(path).expect("the golden file is committed")).expect("JSON")
}

pub(crate) fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("numbers")
}
