//! Vectors in panels of 32: written front to back, read where they lie, scanned by matrix products.
use super::manifest::Precision;
use crate::Error;
use crate::error::io_error;
use crate::files::GrowingFile;
use crate::top::{Scored, Top};
use exsearch_kernels::{LANES, MappedFile, MatMut, MatRef, Operand, Panels, matmul_serial};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use rayon::prelude::*;
use std::path::Path;

// The files are read as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"), "index files are little-endian");

/// Queries that share one pass over the vectors: 64 x 384 x 4 = 98 KB stay in the second-level cache.
const QUERIES_A_PASS: usize = 64;
/// Panels that one task scores at a time: at 64 queries 64 x 2,048 scores = 512 KB.
const PANELS_A_TASK: usize = 64;

/// Appends vectors.
pub(crate) struct VectorWriter {
    file: GrowingFile,
    crc32: crc32fast::Hasher,
    precision: Precision,
    dim: usize,
    /// The panel that is being filled, `[dim][32]`.
    panel: Vec<f32>,
    n_in_panel: usize,
}

impl VectorWriter {
    /// Continues behind `n_vectors`, whole panels, of which the file's checksum is `crc32`. `None` when the file is shorter.
    pub(crate) fn open(
        path: &Path,
        dim: usize,
        precision: Precision,
        n_vectors: usize,
        crc32: u32,
    ) -> Result<Option<Self>, Error> {
        assert!(n_vectors.is_multiple_of(LANES), "whole panels");
        let n_bytes = (n_vectors * dim * precision.n_bytes()) as u64;
        let Some(file) = GrowingFile::open_at(path, n_bytes)? else { return Ok(None) };
        let crc32 = crc32fast::Hasher::new_with_initial(crc32);
        Ok(Some(Self { file, crc32, precision, dim, panel: vec![0.0; dim * LANES], n_in_panel: 0 }))
    }

    pub(crate) fn add(&mut self, vector: &[f32]) -> Result<(), Error> {
        assert_eq!(vector.len(), self.dim, "vectors of one length");
        for (line, value) in self.panel.chunks_exact_mut(LANES).zip(vector) {
            line[self.n_in_panel] = *value;
        }
        self.n_in_panel += 1;
        if self.n_in_panel == LANES { self.end_panel() } else { Ok(()) }
    }

    /// The checksum of the whole panels, which are on disk afterwards.
    pub(crate) fn sync(&mut self) -> Result<u32, Error> {
        self.file.sync()?;
        Ok(self.crc32.clone().finalize())
    }

    /// Ends the last panel, and returns the checksum of the whole file.
    pub(crate) fn finish(mut self) -> Result<u32, Error> {
        if self.n_in_panel > 0 {
            self.end_panel()?;
        }
        self.sync()
    }

    fn end_panel(&mut self) -> Result<(), Error> {
        let bytes: Vec<u8> = match self.precision {
            Precision::F32 => bytemuck::cast_slice(&self.panel).to_vec(),
            Precision::F16 => self.panel.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect(),
        };
        self.crc32.update(&bytes);
        self.file.append(&bytes)?;
        self.panel.fill(0.0);
        self.n_in_panel = 0;
        Ok(())
    }
}

/// All vectors of an index.
pub(crate) struct Vectors {
    file: MappedFile,
    dim: usize,
    n_vectors: usize,
    precision: Precision,
}

impl Vectors {
    /// Maps the file; `None` when it has another length.
    pub(crate) fn open(path: &Path, dim: usize, n_vectors: usize, precision: Precision) -> Result<Option<Self>, Error> {
        let file = MappedFile::open(path).map_err(|error| io_error(path, error))?;
        let n_bytes = n_vectors.div_ceil(LANES).checked_mul(LANES * precision.n_bytes());
        let is_whole = n_bytes.and_then(|n_bytes| n_bytes.checked_mul(dim)) == Some(file.bytes().len());
        Ok(is_whole.then_some(Self { file, dim, n_vectors, precision }))
    }

    pub(crate) fn n_vectors(&self) -> usize {
        self.n_vectors
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// One vector.
    pub(crate) fn row(&self, number: usize) -> Vec<f32> {
        let mut floats = Vec::new();
        let panel = self.panels(number / LANES, 1, &mut floats);
        panel.chunks_exact(LANES).map(|line| line[number % LANES]).collect()
    }

    /// The scores of some vectors for one query: the same bits as [`Vectors::scan`] gives them.
    pub(crate) fn scores(&self, query: &[f32], numbers: &[u32]) -> Vec<f32> {
        let rows: Vec<f32> = numbers.iter().flat_map(|number| self.row(*number as usize)).collect();
        let panels = Panels::from_transposed(&rows, numbers.len(), self.dim);
        let mut scores = vec![0.0; numbers.len()];
        let out = MatMut::new(&mut scores, 1, numbers.len());
        matmul_serial(MatRef::new(query, 1, self.dim), Operand::Panels(&panels), out, false);
        scores
    }

    pub(crate) fn crc32(&self) -> u32 {
        crc32fast::hash(self.file.bytes())
    }

    /// The best `top_k` of all vectors for each query, `queries` being `n x dim`.
    pub(crate) fn scan(&self, queries: &[f32], top_k: usize) -> Vec<Vec<Scored>> {
        let mut best = Vec::with_capacity(queries.len() / self.dim);
        for pass in queries.chunks(QUERIES_A_PASS * self.dim) {
            best.extend(self.scan_pass(pass, top_k.min(self.n_vectors)));
        }
        best
    }

    fn scan_pass(&self, queries: &[f32], top_k: usize) -> Vec<Vec<Scored>> {
        let n_queries = queries.len() / self.dim;
        let none = || vec![Top::new(top_k); n_queries];
        let n_tasks = self.n_vectors.div_ceil(PANELS_A_TASK * LANES);
        let scan_task = |(mut best, mut scratch): (Vec<Top>, Scratch), task: usize| {
            self.scan_block(queries, task, &mut scratch, &mut best);
            (best, scratch)
        };
        let best = (0..n_tasks)
            .into_par_iter()
            .fold(|| (none(), Scratch::default()), scan_task)
            .map(|(best, _)| best)
            .reduce(none, |left, right| left.into_iter().zip(right).map(|(left, right)| left.merge(right)).collect());
        best.into_iter().map(Top::into_sorted).collect()
    }

    fn scan_block(&self, queries: &[f32], task: usize, scratch: &mut Scratch, best: &mut [Top]) {
        let first = task * PANELS_A_TASK * LANES;
        let n_vectors = (self.n_vectors - first).min(PANELS_A_TASK * LANES);
        let Scratch { floats, scores } = scratch;
        let values = self.panels(first / LANES, n_vectors.div_ceil(LANES), floats);
        scores.resize(best.len() * n_vectors, 0.0);
        matmul_serial(
            MatRef::new(queries, best.len(), self.dim),
            Operand::PanelSlice { values, k: self.dim, n: n_vectors },
            MatMut::new(scores, best.len(), n_vectors),
            false,
        );
        for (top, scores) in best.iter_mut().zip(scores.chunks_exact(n_vectors)) {
            for (number, score) in (first as u32..).zip(scores) {
                top.offer(Scored { number, score: *score });
            }
        }
    }

    /// `n_panels` panels from `first_panel` on as f32, by way of `floats` where they are kept otherwise.
    fn panels<'a>(&'a self, first_panel: usize, n_panels: usize, floats: &'a mut Vec<f32>) -> &'a [f32] {
        let panel_bytes = self.dim * LANES * self.precision.n_bytes();
        let bytes = &self.file.bytes()[first_panel * panel_bytes..][..n_panels * panel_bytes];
        match self.precision {
            Precision::F32 => bytemuck::cast_slice(bytes),
            Precision::F16 => {
                let halves: &[half::f16] = bytemuck::cast_slice::<u8, u16>(bytes).reinterpret_cast();
                floats.resize(halves.len(), 0.0);
                halves.convert_to_f32_slice(floats);
                floats
            }
        }
    }
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    /// Panels as f32.
    floats: Vec<f32>,
    /// `queries x vectors`.
    scores: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Some numbers, the same at every call.
    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).max(1);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            // Sixteenths, so that products are exact in any order and ties occur.
            (state % 33) as f32 / 16.0 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_scan_finds_what_sorting_all_products_finds(
            n_vectors in 0usize..5000, dim in 1usize..9, n_queries in 1usize..70, top_k in 0usize..40, is_half: bool, seed: u32,
        ) {
            let dir = tempfile::tempdir().expect("a folder");
            let path = dir.path().join("vectors");
            let precision = if is_half { Precision::F16 } else { Precision::F32 };
            let rows = numbers(n_vectors * dim, seed);
            let mut writer = VectorWriter::open(&path, dim, precision, 0, 0).expect("opens").expect("new");
            rows.chunks_exact(dim).for_each(|row| writer.add(row).expect("written"));
            let crc32 = writer.finish().expect("finished");
            let vectors = Vectors::open(&path, dim, n_vectors, precision).expect("opens").expect("whole");
            prop_assert_eq!(vectors.crc32(), crc32);
            let queries = numbers(n_queries * dim, !seed);
            let found = vectors.scan(&queries, top_k);
            prop_assert_eq!(found.len(), n_queries);
            for (query, found) in queries.chunks_exact(dim).zip(found) {
                let product = |row: &[f32]| row.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
                let products = rows.chunks_exact(dim).map(product);
                let mut expected: Vec<Scored> = (0..).zip(products).map(|(number, score)| Scored { number, score }).collect();
                expected.sort();
                expected.truncate(top_k);
                // Minus zero and zero are one score in a product and two in the order of floats.
                let plain = |all: &[Scored]| all.iter().map(|one| one.score + 0.0).collect::<Vec<_>>();
                prop_assert_eq!(plain(&found), plain(&expected));
                prop_assert!(found.is_sorted());
            }
        }
    }

    #[test]
    fn a_file_of_another_length_is_not_opened() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("vectors");
        std::fs::write(&path, [0; 32 * 2 * 4 - 1]).expect("written");
        assert!(Vectors::open(&path, 2, 1, Precision::F32).expect("opens").is_none());
        assert!(VectorWriter::open(&path, 2, Precision::F32, 32, 0).expect("opens").is_none());
        assert!(Vectors::open(&path, usize::MAX / 8, 40, Precision::F32).expect("opens").is_none());
    }
}
