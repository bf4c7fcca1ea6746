//! Vectors to centroid numbers and a few bits a dimension, and the file that says what these mean.
//!
//! The residual codec of ColBERTv2 (arXiv 2112.01488, 3.3). Deviations: levels minimize the squared error (Lloyd-Max) instead
//! of halving quantiles, and are shared by all dimensions after division by each one's standard deviation; centroids are
//! found through groups of them (`assign.rs`).
//!
//! codec.bin, little endian:
//! ```text
//! 0   "EXSLATE" and a zero byte     24  n_groups u32
//! 8   version u32 = 1               28  zero u32
//! 12  dim u32                       32  seed u64
//! 16  bits u32                      40  outlier_norm f32
//! 20  n_centroids u32               44  mean_norm f32; zeros up to 64
//! 64  levels f32 x 2^bits, cutoffs f32 x (2^bits - 1), scales f32 x dim, group_starts u32 x (n_groups + 1),
//!     group_centers f32 x n_groups x dim, zeros up to a multiple of 64, centroids f32 x n_centroids x dim
//! ```
//! Centroids of a group lie together: group g has those from group_starts[g] to group_starts[g + 1].
use crate::IndexError;
use crate::error::{damaged, io_error};
use exsearch_kernels::{ByteTable, MappedFile, ResidualTable};
use rayon::prelude::*;
use std::path::Path;
use std::sync::{Arc, OnceLock};

mod assign;
mod train;

pub(crate) use assign::Assigner;
pub use train::CodecConfig;

const MAGIC: &[u8; 8] = b"EXSLATE\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;

/// Turns vectors of length 1 into codes and back. Cheap to clone.
#[derive(Clone)]
pub struct Codec {
    inner: Arc<Inner>,
}

struct Inner {
    table: ResidualTable,
    /// Between the levels, ascending.
    cutoffs: Vec<f32>,
    seed: u64,
    outlier_norm: f32,
    mean_norm: f32,
    group_starts: Vec<u32>,
    /// n_groups x dim.
    group_centers: Vec<f32>,
    /// n_centroids x dim.
    centroids: Floats,
    /// Made by the first search: a quarter of the centroids' size.
    bytes: OnceLock<ByteTable>,
}

/// Values in memory or in a mapped file.
enum Floats {
    Owned(Vec<f32>),
    /// From this byte on to the end of the file.
    Mapped(MappedFile, usize),
}

/// The codes of some vectors.
pub(crate) struct Encoded {
    pub(crate) centroids: Vec<u32>,
    /// [`Codec::residual_bytes`] a vector.
    pub(crate) residuals: Vec<u8>,
    /// How many are farther from their centroid than 99 of 100 of the codec's sample.
    pub(crate) n_outliers: u64,
}

impl Codec {
    /// The length of a vector.
    pub fn dim(&self) -> usize {
        self.inner.table.dim()
    }

    /// Bits a dimension: 1, 2 or 4.
    pub fn bits(&self) -> usize {
        self.inner.table.bits()
    }

    /// How many centroids there are.
    pub fn n_centroids(&self) -> usize {
        self.centroids().len() / self.dim()
    }

    /// How many groups the centroids are in.
    pub fn n_groups(&self) -> usize {
        self.inner.group_starts.len() - 1
    }

    /// The seed that it was trained with.
    pub fn seed(&self) -> u64 {
        self.inner.seed
    }

    /// The mean distance from vector to centroid in the held-out part of the sample.
    pub fn mean_norm(&self) -> f32 {
        self.inner.mean_norm
    }

    /// The centroids (`n_centroids x dim`), each of length 1.
    pub fn centroids(&self) -> &[f32] {
        match &self.inner.centroids {
            Floats::Owned(values) => values,
            Floats::Mapped(file, first) => bytemuck::cast_slice(&file.bytes()[*first..]),
        }
    }

    /// `n_groups x dim`.
    pub(crate) fn group_centers(&self) -> &[f32] {
        &self.inner.group_centers
    }

    /// The numbers of a group's centroids.
    pub(crate) fn group(&self, group: usize) -> std::ops::Range<usize> {
        self.inner.group_starts[group] as usize..self.inner.group_starts[group + 1] as usize
    }

    pub(crate) fn residual_bytes(&self) -> usize {
        self.inner.table.n_bytes()
    }

    /// Bytes that hold a centroid's number in a file: 2, 3 or 4.
    pub(crate) fn code_bytes(&self) -> usize {
        match self.n_centroids() {
            0..=0x1_0000 => 2,
            0x1_0001..=0x100_0000 => 3,
            _ => 4,
        }
    }

    /// The codes of `vectors` (`n x dim`, each of length 1), by `assigner`, which was made of this codec.
    pub(crate) fn encode(&self, assigner: &Assigner, vectors: &[f32]) -> Encoded {
        let (dim, n_bytes) = (self.dim(), self.residual_bytes());
        let centroids = assigner.assign(vectors).0;
        let mut residuals = vec![0u8; centroids.len() * n_bytes];
        let rows = vectors.par_chunks_exact(dim).zip(&centroids).zip(residuals.par_chunks_exact_mut(n_bytes));
        let is_outlier = rows.map(|((vector, centroid), codes)| {
            let centroid = &self.centroids()[*centroid as usize * dim..][..dim];
            u64::from(self.encode_residual(vector, centroid, codes).sqrt() > self.inner.outlier_norm)
        });
        let n_outliers = is_outlier.with_min_len(256).sum();
        Encoded { centroids, residuals, n_outliers }
    }

    /// Writes a vector's codes and returns its squared distance from the centroid.
    fn encode_residual(&self, vector: &[f32], centroid: &[f32], codes: &mut [u8]) -> f32 {
        let bits = self.bits();
        let mut squared_norm = 0.0;
        for (d, (x, c)) in vector.iter().zip(centroid).enumerate() {
            let residual = x - c;
            squared_norm += residual * residual;
            let scale = self.inner.table.scales()[d];
            let code = self.inner.cutoffs.iter().map(|cutoff| u8::from(residual > cutoff * scale)).sum::<u8>();
            codes[d * bits / 8] |= code << (d * bits % 8);
        }
        squared_norm
    }

    /// Writes the vectors of these codes, each of length 1, to `out` (`n x dim`). Every number is below `n_centroids`.
    pub(crate) fn decode(&self, numbers: &[u32], residuals: &[u8], out: &mut [f32]) {
        self.inner.table.decode(self.centroids(), numbers, residuals, out);
    }

    /// What these codes mean, in bytes.
    pub(crate) fn byte_table(&self) -> &ByteTable {
        self.inner.bytes.get_or_init(|| ByteTable::new(&self.inner.table, self.centroids()))
    }

    /// The file's content.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Inner { table, cutoffs, seed, outlier_norm, mean_norm, group_starts, group_centers, .. } = &*self.inner;
        let mut bytes = MAGIC.to_vec();
        for number in [VERSION as usize, self.dim(), self.bits(), self.n_centroids(), self.n_groups(), 0] {
            bytes.extend((number as u32).to_le_bytes());
        }
        bytes.extend(seed.to_le_bytes());
        bytes.extend(outlier_norm.to_le_bytes());
        bytes.extend(mean_norm.to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        let mut put = |values: &[f32]| bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        put(table.levels());
        put(cutoffs);
        put(table.scales());
        bytes.extend(group_starts.iter().flat_map(|start| start.to_le_bytes()));
        bytes.extend(group_centers.iter().flat_map(|value| value.to_le_bytes()));
        bytes.resize(bytes.len().next_multiple_of(HEADER_BYTES), 0);
        bytes.extend(self.centroids().iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    /// Opens the file. Its centroids stay where they are.
    pub(crate) fn open(path: &Path) -> Result<Self, IndexError> {
        let file = MappedFile::open(path).map_err(|error| io_error(path, error))?;
        let parsed = parse(path, file.bytes())?;
        let Header { table, cutoffs, seed, outlier_norm, mean_norm, group_starts, group_centers, first } = parsed;
        if bytemuck::try_cast_slice::<u8, f32>(&file.bytes()[first..]).is_err() {
            return Err(damaged(path, "its centroids are not aligned"));
        }
        let centroids = Floats::Mapped(file, first);
        let bytes = OnceLock::new();
        let inner =
            Inner { table, cutoffs, seed, outlier_norm, mean_norm, group_starts, group_centers, centroids, bytes };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// All but the centroids, which begin at byte `first`.
struct Header {
    table: ResidualTable,
    cutoffs: Vec<f32>,
    seed: u64,
    outlier_norm: f32,
    mean_norm: f32,
    group_starts: Vec<u32>,
    group_centers: Vec<f32>,
    first: usize,
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Header, IndexError> {
    let Some((header, mut rest)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(damaged(path, format!("it has {} bytes, too few for a codec", bytes.len())));
    };
    if &header[..8] != MAGIC {
        return Err(damaged(path, "it does not begin as a codec does"));
    }
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if word(8) != VERSION {
        let (found, expected) = (u64::from(word(8)), u64::from(VERSION));
        return Err(IndexError::FormatVersion { path: path.to_owned(), found, expected });
    }
    let [dim, bits, n_centroids, n_groups] = [12, 16, 20, 24].map(|at| word(at) as usize);
    if dim == 0 || !matches!(bits, 1 | 2 | 4) || n_centroids == 0 || n_groups == 0 || n_groups > n_centroids {
        return Err(damaged(path, "its header makes no sense"));
    }
    // In 128 bits, where no product of four numbers of 32 overflows.
    let n_levels = 1usize << bits;
    let front = 4 * ((2 * n_levels - 1 + dim + n_groups + 1) as u128 + n_groups as u128 * dim as u128);
    let first = (HEADER_BYTES as u128 + front).next_multiple_of(HEADER_BYTES as u128);
    let expected = first + 4 * n_centroids as u128 * dim as u128;
    if expected != bytes.len() as u128 {
        return Err(damaged(path, format!("it has {} bytes instead of {expected}", bytes.len())));
    }
    let mut take = |count: usize| -> Vec<[u8; 4]> {
        let (taken, left) = rest.split_at(4 * count);
        rest = left;
        taken.chunks_exact(4).map(|word| word.try_into().expect("four bytes")).collect()
    };
    let floats = |words: Vec<[u8; 4]>| words.into_iter().map(f32::from_le_bytes).collect::<Vec<f32>>();
    let (levels, cutoffs) = (floats(take(n_levels)), floats(take(n_levels - 1)));
    let scales = floats(take(dim));
    let group_starts: Vec<u32> = take(n_groups + 1).into_iter().map(u32::from_le_bytes).collect();
    let group_centers = floats(take(n_groups * dim));
    let ends = (group_starts[0], group_starts[n_groups] as usize);
    if ends != (0, n_centroids) || group_starts.windows(2).any(|pair| pair[0] > pair[1]) {
        return Err(damaged(path, "its groups do not divide its centroids"));
    }
    let float = |at: usize| f32::from_bits(word(at));
    Ok(Header {
        table: ResidualTable::new(bits, &levels, &scales),
        cutoffs,
        seed: u64::from(word(32)) | u64::from(word(36)) << 32,
        outlier_norm: float(40),
        mean_norm: float(44),
        group_starts,
        group_centers,
        first: first as usize,
    })
}

/// Divides every vector (`n x dim`) by its length. One that has no direction is an error that names `what` it is of.
pub(crate) fn normalize(vectors: &mut [f32], dim: usize, what: impl Fn() -> String) -> Result<(), IndexError> {
    for (row, vector) in vectors.chunks_exact_mut(dim).enumerate() {
        let sum = exsearch_kernels::sum_of_squares(vector);
        let reason = match sum {
            sum if !sum.is_finite() => "is not finite",
            sum if sum < 1e-30 => "has length 0",
            _ => {
                exsearch_kernels::scale(vector, (1.0 / sum.sqrt()) as f32);
                continue;
            }
        };
        return Err(IndexError::Vector { what: what(), row, reason });
    }
    Ok(())
}
