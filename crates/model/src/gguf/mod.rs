//! GGUF files (versions 2 and 3) -> metadata, tensors as f32, and HF model folders.
//!
//! The format is llama.cpp's (github.com/ggml-org/ggml/blob/master/docs/gguf.md). A file is never trusted: every length in
//! it is checked against what is left of the file before anything is allocated.
mod dequantize;
mod import;
#[cfg(test)]
mod tests;
mod tokenizer;

pub use dequantize::{KNOWN_QUANTIZATIONS, Quantization};
pub use import::import_gguf;

use crate::ModelError;
use crate::error::io_error;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A GGUF file whose metadata was read and whose tensors can be.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    /// The key-value pairs in front of the tensors.
    pub metadata: BTreeMap<String, GgufValue>,
    tensors: BTreeMap<String, GgufTensor>,
    file: File,
}

/// A metadata value. Integers of all widths are one kind, as are floats.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// Any integer; unsigned 64-bit values beyond i64 are refused.
    Int(i64),
    /// A 32- or 64-bit float.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A UTF-8 text.
    Text(String),
    /// Integers or booleans.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f64>),
    /// Texts.
    Texts(Vec<String>),
}

#[derive(Debug)]
struct GgufTensor {
    /// Row-major, as HF writes it: the reverse of GGUF's order.
    shape: Vec<usize>,
    /// `Err` holds the number of an unknown one, which is only wrong once the tensor is asked for.
    quantization: Result<Quantization, u32>,
    start_bytes: u64,
}

impl Gguf {
    /// Reads everything in front of the tensors' data and checks that the data is all there.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let n_bytes = file.metadata().map_err(io_error("read", path))?.len();
        let mut reader = Reader { path, n_bytes, position: 0, reader: BufReader::with_capacity(1 << 18, &file) };
        if reader.bytes::<4>()? != *b"GGUF" {
            return Err(reader.invalid("it does not start with `GGUF`".to_owned()));
        }
        let version = reader.u32()?;
        if version != 2 && version != 3 {
            return Err(reader.invalid(format!("it is of version {version}; 2 and 3 (little-endian) are read")));
        }
        let (n_tensors, n_pairs) = (reader.u64()?, reader.u64()?);
        let metadata = reader.pairs(n_pairs)?;
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(GgufValue::Int(alignment @ 1..=65_536)) => *alignment as u64,
            Some(other) => return Err(reader.invalid(format!("general.alignment is {other:?}"))),
        };
        let mut tensors = reader.tensor_infos(n_tensors)?;
        let data_start = reader.position.next_multiple_of(alignment);
        for (name, tensor) in &mut tensors {
            tensor.start_bytes = match data_start.checked_add(tensor.start_bytes) {
                Some(start) if start <= n_bytes => start,
                _ => return Err(reader.invalid(format!("tensor `{name}` starts behind its end: it is cut short"))),
            };
            if let Ok(quantization) = tensor.quantization {
                let size = quantization.n_bytes(&tensor.shape);
                let end = size.and_then(|size| tensor.start_bytes.checked_add(size));
                if end.is_none_or(|end| end > n_bytes) {
                    let reason = format!("tensor `{name}` {:?} reaches behind its end: it is cut short", tensor.shape);
                    return Err(reader.invalid(reason));
                }
            }
        }
        drop(reader);
        Ok(Self { path: path.to_owned(), metadata, tensors, file })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The row-major shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// The numbers of a tensor in row-major order, dequantized.
    pub fn tensor_f32(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(ModelError::MissingTensor { path: self.path.clone(), tensor: name.to_owned() });
        };
        let quantization = tensor.quantization.map_err(|number| ModelError::UnsupportedQuantization {
            path: self.path.clone(),
            tensor: name.to_owned(),
            kind: dequantize::name_of(number),
            known: KNOWN_QUANTIZATIONS,
        })?;
        let n_bytes = quantization.n_bytes(&tensor.shape).expect("`open` checked the size");
        let mut raw = vec![0; n_bytes as usize];
        self.file.seek(SeekFrom::Start(tensor.start_bytes)).map_err(io_error("read", &self.path))?;
        self.file.read_exact(&mut raw).map_err(io_error("read", &self.path))?;
        Ok(dequantize::dequantize(quantization, &raw))
    }

    /// A text of the metadata.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(GgufValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A non-negative integer of the metadata.
    pub fn count(&self, key: &str) -> Option<usize> {
        match self.metadata.get(key) {
            Some(GgufValue::Int(count)) => usize::try_from(*count).ok(),
            _ => None,
        }
    }

    /// A number of the metadata.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key) {
            Some(GgufValue::Float(number)) => Some(*number),
            Some(GgufValue::Int(number)) => Some(*number as f64),
            _ => None,
        }
    }

    /// [`Gguf::count`] of a key that starts with the model's architecture.
    fn model_count(&self, key: &str) -> Option<usize> {
        self.count(&self.model_key(key))
    }

    /// [`Gguf::float`] of a key that starts with the model's architecture.
    fn model_float(&self, key: &str) -> Option<f64> {
        self.float(&self.model_key(key))
    }

    fn model_key(&self, key: &str) -> String {
        format!("{}.{key}", self.text("general.architecture").unwrap_or_default())
    }

    fn invalid(&self, reason: String) -> ModelError {
        ModelError::InvalidGguf { path: self.path.clone(), reason }
    }
}

/// A position in the file that never passes its end.
struct Reader<'f> {
    path: &'f Path,
    n_bytes: u64,
    position: u64,
    reader: BufReader<&'f File>,
}

impl Reader<'_> {
    fn pairs(&mut self, n_pairs: u64) -> Result<BTreeMap<String, GgufValue>, ModelError> {
        // No allocation by the count: a false one runs into the file's end.
        let mut pairs = BTreeMap::new();
        for _ in 0..n_pairs {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind)?;
            pairs.insert(key, value);
        }
        Ok(pairs)
    }

    fn tensor_infos(&mut self, n_tensors: u64) -> Result<BTreeMap<String, GgufTensor>, ModelError> {
        let mut tensors = BTreeMap::new();
        for _ in 0..n_tensors {
            let name = self.text()?;
            let n_dims = self.u32()?;
            if n_dims > 4 {
                return Err(self.invalid(format!("tensor `{name}` has {n_dims} dimensions")));
            }
            let mut shape = Vec::new();
            for _ in 0..n_dims {
                let size = self.u64()?;
                shape.push(usize::try_from(size).map_err(|_| self.invalid(format!("tensor `{name}`: size {size}")))?);
            }
            shape.reverse();
            let number = self.u32()?;
            let quantization = Quantization::from_number(number).ok_or(number);
            let start_bytes = self.u64()?;
            if tensors.insert(name.clone(), GgufTensor { shape, quantization, start_bytes }).is_some() {
                return Err(self.invalid(format!("tensor `{name}` comes twice")));
            }
        }
        Ok(tensors)
    }

    fn value(&mut self, kind: u32) -> Result<GgufValue, ModelError> {
        Ok(match kind {
            6 | 12 => GgufValue::Float(self.float(kind)?),
            7 => GgufValue::Bool(self.int(kind)? != 0),
            8 => GgufValue::Text(self.text()?),
            9 => {
                let (kind, length) = (self.u32()?, self.u64()?);
                match kind {
                    6 | 12 => GgufValue::Floats(self.items(length, |reader| reader.float(kind))?),
                    8 => GgufValue::Texts(self.items(length, Self::text)?),
                    _ => GgufValue::Ints(self.items(length, |reader| reader.int(kind))?),
                }
            }
            _ => GgufValue::Int(self.int(kind)?),
        })
    }

    fn items<T>(
        &mut self,
        length: u64,
        mut read: impl FnMut(&mut Self) -> Result<T, ModelError>,
    ) -> Result<Vec<T>, ModelError> {
        // Each item takes at least a byte of the file; the vector grows as items arrive.
        if length > self.n_bytes - self.position {
            return Err(self.invalid(format!("a list of {length} items reaches behind its end")));
        }
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(read(self)?);
        }
        Ok(items)
    }

    fn int(&mut self, kind: u32) -> Result<i64, ModelError> {
        Ok(match kind {
            0 | 7 => i64::from(self.bytes::<1>()?[0]),
            1 => i64::from(i8::from_le_bytes(self.bytes()?)),
            2 => i64::from(u16::from_le_bytes(self.bytes()?)),
            3 => i64::from(i16::from_le_bytes(self.bytes()?)),
            4 => i64::from(self.u32()?),
            5 => i64::from(i32::from_le_bytes(self.bytes()?)),
            10 => {
                let number = self.u64()?;
                i64::try_from(number).map_err(|_| self.invalid(format!("{number} is too large")))?
            }
            11 => i64::from_le_bytes(self.bytes()?),
            9 => return Err(self.invalid("a list of lists is not read".to_owned())),
            _ => return Err(self.invalid(format!("a value of unknown kind {kind} before byte {}", self.position))),
        })
    }

    fn float(&mut self, kind: u32) -> Result<f64, ModelError> {
        match kind {
            6 => Ok(f64::from(f32::from_le_bytes(self.bytes()?))),
            _ => Ok(f64::from_le_bytes(self.bytes()?)),
        }
    }

    fn text(&mut self) -> Result<String, ModelError> {
        let length = self.u64()?;
        if length > self.n_bytes - self.position {
            return Err(self.invalid(format!("a text of {length} bytes reaches behind its end")));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.invalid(format!("no UTF-8 before byte {}", self.position)))
    }

    fn u32(&mut self) -> Result<u32, ModelError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ModelError> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ModelError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ModelError> {
        if bytes.len() as u64 > self.n_bytes - self.position {
            return Err(self.invalid(format!("it ends at byte {}, in the middle of its header", self.n_bytes)));
        }
        self.reader.read_exact(bytes).map_err(io_error("read", self.path))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn invalid(&self, reason: String) -> ModelError {
        ModelError::InvalidGguf { path: self.path.to_owned(), reason }
    }
}
