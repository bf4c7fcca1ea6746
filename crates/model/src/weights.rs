//! safetensors files of a model folder <-> named f32 tensors.
//!
//! Reads single and sharded folders, one tensor at a time with plain reads: no memory map, and never more than a block
//! of raw bytes beside the tensor itself. Writes stream the same way. Knows nothing of what the tensors mean.
use crate::error::{io_error, json_error};
use crate::{ModelError, files};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The number formats that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightDtype {
    /// 32 bits.
    F32,
    /// IEEE half precision: values beyond 65504 are refused.
    F16,
    /// The upper half of an f32.
    Bf16,
}

/// The tensors of a model folder, found but not yet read.
#[derive(Debug)]
pub struct Weights {
    /// The weights file, or the index of a sharded folder: what messages about missing tensors name.
    source: PathBuf,
    files: Vec<Shard>,
    tensors: BTreeMap<String, Place>,
}

/// A safetensors file being written tensor by tensor, in the order that was announced.
pub(crate) struct SafetensorsWriter<'w> {
    path: &'w Path,
    writer: &'w mut BufWriter<File>,
    expected: std::vec::IntoIter<(String, usize)>,
    dtype: WeightDtype,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    /// One handle for the folder's life, so that replacing the file does not mix two versions.
    file: Mutex<File>,
}

#[derive(Debug)]
struct Place {
    shard_idx: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Position in the file, not in its data section.
    start_bytes: u64,
}

/// Raw bytes held beside a tensor while it is read or written: large enough that every core has work in a block.
const BLOCK_BYTES: usize = 8 << 20;
/// Numbers converted by one task.
const TASK_LEN: usize = 1 << 16;
/// The safetensors format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl Weights {
    /// Reads the headers of `dir/model.safetensors`, or of the shards that `dir/model.safetensors.index.json` names.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
        if single.is_file() {
            return Self::open_file(&single);
        }
        if !index.is_file() {
            return Err(ModelError::MissingFile {
                folder: dir.to_owned(),
                file: "model.safetensors or model.safetensors.index.json",
                advice: "pull the model again; weights in PyTorch's .bin format are not read",
            });
        }
        let mut weights = Self { source: index.clone(), files: Vec::new(), tensors: BTreeMap::new() };
        for name in shard_names(&index)? {
            weights.add_file(&dir.join(name))?;
        }
        Ok(weights)
    }

    /// Reads the header of one safetensors file, such as an adapter's.
    pub fn open_file(path: &Path) -> Result<Self, ModelError> {
        let mut weights = Self { source: path.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        weights.add_file(path)?;
        Ok(weights)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, where it exists.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|place| place.shape.as_slice())
    }

    /// How many numbers all tensors hold, and in how many bytes.
    pub fn size(&self) -> (u64, u64) {
        let places = self.tensors.values();
        places.fold((0, 0), |(n_numbers, n_bytes), place| {
            let n = place.shape.iter().product::<usize>() as u64;
            (n_numbers + n, n_bytes + n * place.dtype.bitsize() as u64 / 8)
        })
    }

    /// The number formats of the tensors, as the file names them.
    pub fn dtypes(&self) -> BTreeSet<String> {
        self.tensors.values().map(|place| format!("{:?}", place.dtype)).collect()
    }

    /// The numbers of a tensor in row-major order. Safe to call from many threads.
    pub fn tensor_f32(&self, name: &str, expected_shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let Some(place) = self.tensors.get(name) else {
            return Err(ModelError::MissingTensor { path: self.source.clone(), tensor: name.to_owned() });
        };
        let shard = &self.files[place.shard_idx];
        if place.shape != expected_shape {
            return Err(ModelError::ShapeMismatch {
                path: shard.path.clone(),
                tensor: name.to_owned(),
                expected: expected_shape.to_vec(),
                actual: place.shape.clone(),
            });
        }
        let n_bytes_each = match place.dtype {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            other => {
                return Err(ModelError::UnsupportedDtype {
                    path: shard.path.clone(),
                    tensor: name.to_owned(),
                    dtype: format!("{other:?}"),
                });
            }
        };
        // The header was checked against the file's size, so this is no larger than the file implies.
        let mut numbers = vec![0f32; place.shape.iter().product()];
        let mut block = vec![0u8; BLOCK_BYTES.min(numbers.len() * n_bytes_each)];
        let mut position = place.start_bytes;
        for part in numbers.chunks_mut(BLOCK_BYTES / n_bytes_each) {
            let raw = &mut block[..part.len() * n_bytes_each];
            shard.read_at(position, raw)?;
            position += raw.len() as u64;
            let tasks = part.par_chunks_mut(TASK_LEN).zip(raw.par_chunks(TASK_LEN * n_bytes_each));
            tasks.for_each(|(numbers, raw)| decode(place.dtype, raw, numbers));
        }
        Ok(numbers)
    }

    fn add_file(&mut self, path: &Path) -> Result<(), ModelError> {
        let mut file = File::open(path).map_err(io_error("open", path))?;
        let (data_start, metadata) = read_header(path, &mut file)?;
        let shard_idx = self.files.len();
        for (name, TensorInfo { dtype, shape, data_offsets }) in metadata.tensors() {
            let start_bytes = data_start + data_offsets.0 as u64;
            self.tensors.insert(name, Place { shard_idx, dtype: *dtype, shape: shape.clone(), start_bytes });
        }
        self.files.push(Shard { path: path.to_owned(), file: Mutex::new(file) });
        Ok(())
    }
}

/// Writes tensors to a safetensors file that other tools read as PyTorch's, whole or not at all. Each item is name, shape
/// and numbers; the numbers are converted block by block.
pub fn write_safetensors<'t>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, Vec<usize>, &'t [f32])>,
    dtype: WeightDtype,
) -> Result<(), ModelError> {
    let tensors: Vec<_> = tensors.into_iter().collect();
    let layout = tensors.iter().map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
    write_streaming(path, layout, dtype, |writer| {
        tensors.iter().try_for_each(|(name, _, numbers)| writer.put(name, numbers))
    })
}

/// [`write_safetensors`] for tensors that are made one at a time: `fill` puts exactly those of `layout`, in its order.
pub(crate) fn write_streaming(
    path: &Path,
    layout: Vec<(String, Vec<usize>)>,
    dtype: WeightDtype,
    fill: impl FnOnce(&mut SafetensorsWriter) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let header = header_bytes(&layout, dtype);
    let sizes: Vec<_> = layout.into_iter().map(|(name, shape)| (name, shape.iter().product())).collect();
    files::write_atomically(path, |writer| {
        writer.write_all(&(header.len() as u64).to_le_bytes()).map_err(io_error("write", path))?;
        writer.write_all(&header).map_err(io_error("write", path))?;
        let mut tensors = SafetensorsWriter { path, writer, expected: sizes.into_iter(), dtype };
        fill(&mut tensors)?;
        match tensors.expected.next() {
            None => Ok(()),
            Some((missing, _)) => Err(tensors.unwritable(&missing, "it was announced but never came".to_owned())),
        }
    })
}

/// Copies what a model folder holds beside its weights: configuration, tokenizer and chat template. Files that the source
/// lacks are left out.
pub fn copy_sidecar_files(src_dir: &Path, dst_dir: &Path) -> Result<(), ModelError> {
    std::fs::create_dir_all(dst_dir).map_err(io_error("create", dst_dir))?;
    for entry in std::fs::read_dir(src_dir).map_err(io_error("list", src_dir))? {
        let source = entry.map_err(io_error("list", src_dir))?.path();
        let Some(name) = source.file_name().and_then(|name| name.to_str()) else { continue };
        if is_sidecar(name) && source.is_file() {
            let bytes = std::fs::read(&source).map_err(io_error("read", &source))?;
            files::write_bytes(&dst_dir.join(name), &bytes)?;
        }
    }
    Ok(())
}

/// Whether `name` is a file that a model folder holds beside its weights.
pub(crate) fn is_sidecar(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "vocab.json",
        "merges.txt",
        "tokenizer.model",
    ];
    NAMES.contains(&name) || name.starts_with("tokenizer") && name.ends_with(".json")
}

/// Whether `name` is a file that a text encoder's folder holds beside its weights, with its folder where it lies in one.
pub(crate) fn is_encoder_file(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "artifact.metadata",
        "vocab.txt",
    ];
    // The folders of modules are named `1_Pooling`.
    let is_of_module = name.split_once('/').is_some_and(|(folder, file)| {
        let number_and_class = folder.split_once('_');
        number_and_class.is_some_and(|(number, class)| {
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            is_number && !class.is_empty() && class.bytes().all(|byte| byte.is_ascii_alphanumeric())
        }) && matches!(file, "config.json" | "model.safetensors")
    });
    NAMES.contains(&name) || is_of_module
}

/// The shard files that an index names, each once, in order.
fn shard_names(index: &Path) -> Result<Vec<String>, ModelError> {
    let json = files::read_json(index)?;
    let names = json.get("weight_map").and_then(|map| map.as_object()).map(|map| {
        let mut names: Vec<_> = map.values().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        names.sort();
        names.dedup();
        names
    });
    match names {
        // A name with a folder in it could reach outside of the model folder.
        Some(names) if !names.is_empty() && names.iter().all(|name| !name.contains(['/', '\\'])) => Ok(names),
        _ => Err(json_error(index)("it has no usable `weight_map`")),
    }
}

impl Shard {
    fn read_at(&self, position: u64, bytes: &mut [u8]) -> Result<(), ModelError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(position)).map_err(io_error("read", &self.path))?;
        file.read_exact(bytes).map_err(io_error("read", &self.path))
    }
}

/// Where the data section starts, and the checked header.
fn read_header(path: &Path, file: &mut File) -> Result<(u64, Metadata), ModelError> {
    let damaged = |reason: String| ModelError::DamagedWeights { path: path.to_owned(), reason };
    let n_bytes = file.metadata().map_err(io_error("read", path))?.len();
    let mut length = [0u8; 8];
    if n_bytes < 8 {
        return Err(damaged(format!("it has {n_bytes} bytes")));
    }
    file.read_exact(&mut length).map_err(io_error("read", path))?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > MAX_HEADER_BYTES.min(n_bytes - 8) {
        return Err(damaged(format!("its header of {header_bytes} bytes does not fit into its {n_bytes}")));
    }
    let mut header = vec![0u8; header_bytes as usize];
    file.read_exact(&mut header).map_err(io_error("read", path))?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| damaged(format!("header: {error}")))?;
    let data_start = 8 + header_bytes;
    let needed = data_start + metadata.data_len() as u64;
    if needed != n_bytes {
        return Err(damaged(format!("it has {n_bytes} bytes where its header describes {needed}")));
    }
    Ok((data_start, metadata))
}

fn header_bytes(layout: &[(String, Vec<usize>)], dtype: WeightDtype) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), serde_json::json!({"format": "pt"}));
    let mut position = 0;
    for (name, shape) in layout {
        let end = position + shape.iter().product::<usize>() * dtype.n_bytes();
        let entry = serde_json::json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [position, end]});
        assert!(header.insert(name.clone(), entry).is_none(), "tensor `{name}` is written twice");
        position = end;
    }
    let mut bytes = serde_json::Value::Object(header).to_string().into_bytes();
    // The format asks for data aligned to 8 bytes; spaces are its padding.
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    bytes
}

impl SafetensorsWriter<'_> {
    /// Writes the next announced tensor.
    pub(crate) fn put(&mut self, name: &str, numbers: &[f32]) -> Result<(), ModelError> {
        match self.expected.next() {
            Some((expected, n_numbers)) if expected == name && n_numbers == numbers.len() => {}
            other => {
                let reason = format!("{} numbers came where {other:?} was announced", numbers.len());
                return Err(self.unwritable(name, reason));
            }
        }
        let overflows = |number: &f32| number.is_finite() && f16::from_f32(*number).is_infinite();
        if self.dtype == WeightDtype::F16 && numbers.par_iter().any(overflows) {
            return Err(self.unwritable(name, "it holds values beyond f16's 65504; write bf16 or f32".to_owned()));
        }
        let n_bytes_each = self.dtype.n_bytes();
        let mut block = vec![0u8; BLOCK_BYTES.min(numbers.len() * n_bytes_each)];
        for part in numbers.chunks(BLOCK_BYTES / n_bytes_each) {
            let raw = &mut block[..part.len() * n_bytes_each];
            let tasks = raw.par_chunks_mut(TASK_LEN * n_bytes_each).zip(part.par_chunks(TASK_LEN));
            tasks.for_each(|(raw, numbers)| encode(self.dtype, numbers, raw));
            self.writer.write_all(raw).map_err(io_error("write", self.path))?;
        }
        Ok(())
    }

    fn unwritable(&self, tensor: &str, reason: String) -> ModelError {
        ModelError::UnwritableTensor { path: self.path.to_owned(), tensor: tensor.to_owned(), reason }
    }
}

impl WeightDtype {
    fn n_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// As safetensors names it.
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }
}

/// Little-endian bytes -> numbers.
fn decode(dtype: Dtype, raw: &[u8], numbers: &mut [f32]) {
    let pairs = raw.as_chunks::<2>().0;
    match dtype {
        Dtype::F32 => {
            for (number, &bytes) in numbers.iter_mut().zip(raw.as_chunks::<4>().0) {
                *number = f32::from_le_bytes(bytes);
            }
        }
        Dtype::F16 => {
            let halves: Vec<f16> = pairs.iter().map(|&bytes| f16::from_le_bytes(bytes)).collect();
            halves.convert_to_f32_slice(numbers);
        }
        _ => {
            for (number, &bytes) in numbers.iter_mut().zip(pairs) {
                *number = bf16::from_le_bytes(bytes).to_f32();
            }
        }
    }
}

/// Numbers -> little-endian bytes.
fn encode(dtype: WeightDtype, numbers: &[f32], raw: &mut [u8]) {
    match dtype {
        WeightDtype::F32 => {
            for (bytes, number) in raw.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
                *bytes = number.to_le_bytes();
            }
        }
        WeightDtype::F16 => {
            let mut halves = vec![f16::ZERO; numbers.len()];
            halves.convert_from_f32_slice(numbers);
            for (bytes, number) in raw.as_chunks_mut::<2>().0.iter_mut().zip(halves) {
                *bytes = number.to_le_bytes();
            }
        }
        WeightDtype::Bf16 => {
            for (bytes, &number) in raw.as_chunks_mut::<2>().0.iter_mut().zip(numbers) {
                *bytes = bf16::from_f32(number).to_le_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(dir: &Path, file: &str, tensors: &[(&str, Vec<usize>, Vec<f32>)], dtype: WeightDtype) {
        let items = tensors.iter().map(|(name, shape, numbers)| (name.to_string(), shape.clone(), numbers.as_slice()));
        write_safetensors(&dir.join(file), items, dtype).expect("it is written");
    }

    fn ramp(n: usize) -> Vec<f32> {
        (0..n).map(|idx| idx as f32 / 8.0 - 3.0).collect()
    }

    #[test]
    fn every_dtype_comes_back() {
        let dir = tempfile::tempdir().expect("a folder");
        for dtype in [WeightDtype::F32, WeightDtype::F16, WeightDtype::Bf16] {
            // Multiples of 1/8 below 32 are exact in every format.
            let (a, b) = (ramp(15), ramp(200));
            write(dir.path(), SINGLE, &[("b", vec![200], b.clone()), ("a", vec![3, 5], a.clone())], dtype);
            let weights = Weights::open(dir.path()).expect("it opens");
            assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(weights.tensor_f32("a", &[3, 5]).expect("a"), a, "{dtype:?}");
            assert_eq!(weights.tensor_f32("b", &[200]).expect("b"), b, "{dtype:?}");
        }
    }

    #[test]
    fn tensors_longer_than_a_block_come_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let n = BLOCK_BYTES / 4 + TASK_LEN + 7;
        let numbers: Vec<f32> = (0..n).map(|idx| idx as f32).collect();
        write(dir.path(), SINGLE, &[("long", vec![n], numbers.clone())], WeightDtype::F32);
        assert!(Weights::open(dir.path()).expect("it opens").tensor_f32("long", &[n]).expect("long") == numbers);
        assert!(!dir.path().join("model.safetensors.partial").exists());
    }

    #[test]
    fn the_safetensors_crate_reads_what_is_written() {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), SINGLE, &[("a", vec![2, 2], ramp(4)), ("none", vec![0, 4], vec![])], WeightDtype::F32);
        let bytes = std::fs::read(dir.path().join(SINGLE)).expect("it is there");
        let theirs = safetensors::SafeTensors::deserialize(&bytes).expect("a valid file");
        assert_eq!(theirs.tensor("a").expect("a").shape(), [2, 2]);
        assert_eq!(u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) % 8, 0);
    }

    #[test]
    fn shards_are_found_through_the_index() {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), "model-00001-of-00002.safetensors", &[("a", vec![2], ramp(2))], WeightDtype::F16);
        write(dir.path(), "model-00002-of-00002.safetensors", &[("b", vec![3], ramp(3))], WeightDtype::F32);
        let index = serde_json::json!({"metadata": {}, "weight_map": {
            "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}});
        files::write_json(&dir.path().join(INDEX), &index).expect("written");
        let weights = Weights::open(dir.path()).expect("it opens");
        assert_eq!(weights.tensor_f32("a", &[2]).expect("a"), ramp(2));
        assert_eq!(weights.tensor_f32("b", &[3]).expect("b"), ramp(3));
    }

    #[test]
    fn errors_name_the_file_the_tensor_and_the_way_out() {
        let dir = tempfile::tempdir().expect("a folder");
        let error = Weights::open(dir.path()).expect_err("it is empty").to_string();
        assert!(error.contains("has no model.safetensors") && error.contains("pull"), "{error}");
        write(dir.path(), SINGLE, &[("a", vec![2, 2], ramp(4))], WeightDtype::F32);
        let weights = Weights::open(dir.path()).expect("it opens");
        let error = weights.tensor_f32("b", &[2]).expect_err("there is no b").to_string();
        assert!(error.contains("model.safetensors") && error.contains("`b`"), "{error}");
        let error = weights.tensor_f32("a", &[4]).expect_err("another shape").to_string();
        assert!(error.contains("[2, 2]") && error.contains("[4]"), "{error}");
        let path = dir.path().join(SINGLE);
        let bytes = std::fs::read(&path).expect("it is there");
        for n_kept in 0..bytes.len() {
            std::fs::write(&path, &bytes[..n_kept]).expect("written");
            let error = Weights::open(dir.path()).expect_err("it is cut short").to_string();
            assert!(error.contains("damaged") && error.contains("fetch the model again"), "{error}");
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), SINGLE, &[("a", vec![1], ramp(1))], WeightDtype::F32);
        let numbers = [1e6];
        let tensors = [("a".to_owned(), vec![1], numbers.as_slice())];
        let error = write_safetensors(&dir.path().join(SINGLE), tensors, WeightDtype::F16).expect_err("too large");
        assert!(error.to_string().contains("65504"), "{error}");
        let weights = Weights::open(dir.path()).expect("the old one opens");
        assert_eq!(weights.tensor_f32("a", &[1]).expect("a"), ramp(1));
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1, "no temporary file stays");
    }

    #[test]
    fn sidecar_files_are_copied_and_weights_are_not() {
        let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", SINGLE, "x.txt"] {
            std::fs::write(from.path().join(name), name).expect("written");
        }
        copy_sidecar_files(from.path(), to.path()).expect("copied");
        let mut names: Vec<_> = std::fs::read_dir(to.path())
            .expect("listed")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        names.sort();
        assert_eq!(names, ["chat_template.jinja", "config.json", "tokenizer.json", "tokenizer_config.json"]);
    }

    #[test]
    fn the_files_of_an_encoder_are_known_by_name() {
        for name in ["modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors", "artifact.metadata"] {
            assert!(is_encoder_file(name), "{name}");
        }
        for name in
            ["1_Pooling/../config.json", "../config.json", "_Pooling/config.json", "1_/config.json", "onnx/config.json"]
        {
            assert!(!is_encoder_file(name), "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), n in 0u64..200) {
            let dir = tempfile::tempdir().expect("a folder");
            let mut file = n.to_le_bytes().to_vec();
            file.extend(bytes);
            std::fs::write(dir.path().join(SINGLE), file).expect("written");
            prop_assert!(Weights::open(dir.path()).is_err() || n >= 2);
        }
    }
}
