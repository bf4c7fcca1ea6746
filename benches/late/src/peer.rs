//! next-plaid, the public Rust engine of the PLAID family, through its documented interface.
use crate::measure::DIM;
use anyhow::Result;
use ndarray::Array2;
use next_plaid::{IndexConfig, MmapIndex, SearchParameters, UpdateConfig};
use std::path::Path;

pub struct Peer(pub MmapIndex);

/// A setting of its search; both have top 10.
#[derive(Clone, Copy)]
pub struct Setting {
    pub n_probe: usize,
    pub n_full: usize,
    pub threshold: Option<f32>,
}

pub const DEFAULT: Setting = Setting { n_probe: 8, n_full: 4096, threshold: Some(0.4) };
pub const WIDEST: Setting = Setting { n_probe: 64, n_full: 32_768, threshold: None };

pub fn rows(vectors: Vec<f32>) -> Array2<f32> {
    Array2::from_shape_vec((vectors.len() / DIM, DIM), vectors).expect("whole rows")
}

impl Peer {
    pub fn build(passages: &[Array2<f32>], out: &Path) -> Result<Self> {
        let config = IndexConfig { nbits: 2, start_from_scratch: 0, ..Default::default() };
        Ok(Self(MmapIndex::create_with_kmeans(passages, &out.to_string_lossy(), &config)?))
    }

    /// With given centroids (`n x DIM`): only assignment and levels are left to it.
    pub fn build_with(passages: &[Array2<f32>], centroids: &[f32], out: &Path) -> Result<Self> {
        let config = IndexConfig { nbits: 2, start_from_scratch: 0, ..Default::default() };
        let centroids = rows(centroids.to_vec());
        next_plaid::index::create_index_files(passages, centroids, &out.to_string_lossy(), &config)?;
        Self::open(out)
    }

    pub fn add(&mut self, passages: &[Array2<f32>]) -> Result<()> {
        self.0.update(passages, &UpdateConfig { start_from_scratch: 0, ..Default::default() })?;
        Ok(())
    }

    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self(MmapIndex::load(&dir.to_string_lossy())?))
    }

    pub fn search(&self, query: &Array2<f32>, setting: Setting) -> Result<Vec<u32>> {
        let parameters = SearchParameters {
            top_k: 10,
            n_ivf_probe: setting.n_probe,
            n_full_scores: setting.n_full,
            centroid_score_threshold: setting.threshold,
            ..Default::default()
        };
        let found = self.0.search(query, &parameters, None)?;
        Ok(found.passage_ids.iter().map(|passage| *passage as u32).collect())
    }
}
