//! A codec from a sample of vectors: spherical k-means in two levels, then levels for what the centroids leave.
//!
//! The same sample, settings and seed give the same codec, whatever the number of threads: each vector's assignment depends
//! on it alone, and a centroid is summed in the order of the sample.
use super::assign::{Assigner, assign_flat, pack};
use super::{Codec, Floats, Inner, normalize};
use crate::IndexError;
use exsearch_kernels::{ResidualTable, SplitMix64, add, scale, sum_of_squares};
use rayon::prelude::*;
use std::sync::{Arc, OnceLock};

/// Groups that a vector looks into while training, where a near miss costs little.
const TRAINING_PROBE: usize = 8;
/// Groups that a vector looks into when it is stored.
const ENCODING_PROBE: usize = 16;
/// Vectors of the sample for each centroid; more make hardly better centroids.
const SAMPLE_A_CENTROID: u64 = 32;
/// The part of the sample that centroids are not made of, one in so many: what they leave of it is what they will leave of
/// any vector, while their own vectors are nearer.
const HELD_OUT: usize = 20;
/// Vectors that the levels are made of at most.
const MAX_HELD_OUT: usize = 1 << 15;
/// 2^18 centroids of 128 dimensions are 128 MiB; more would not fit the nearer caches of any machine.
const MAX_CENTROIDS: u64 = 1 << 18;

/// How a codec is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct CodecConfig {
    /// Bits a dimension: 1, 2 or 4.
    pub bits: usize,
    /// How many centroids; by default the largest power of two below 16 times the root of the corpus's tokens (PLAID, arXiv
    /// 2205.09707), at most 2^18.
    pub n_centroids: Option<usize>,
    /// Rounds of k-means.
    pub n_rounds: usize,
    /// Of the first centroids' choice.
    pub seed: u64,
}

impl Default for CodecConfig {
    fn default() -> Self {
        Self { bits: 2, n_centroids: None, n_rounds: 4, seed: 0 }
    }
}

impl CodecConfig {
    /// How many vectors a sample of a corpus of `n_tokens` should have. They are best all those of randomly drawn passages.
    pub fn n_sample_tokens(&self, n_tokens: u64) -> u64 {
        let wanted = self.wanted_centroids(n_tokens) * SAMPLE_A_CENTROID;
        (wanted + wanted / (HELD_OUT as u64 - 1)).min(n_tokens)
    }

    /// How many centroids a codec for a corpus of `n_tokens` has, if the sample is large enough.
    pub fn wanted_centroids(&self, n_tokens: u64) -> u64 {
        let by_default = || (16.0 * (n_tokens.max(1) as f64).sqrt()).log2().floor().exp2() as u64;
        self.n_centroids.map_or_else(by_default, |n| n as u64).clamp(1, MAX_CENTROIDS)
    }
}

impl Codec {
    /// Trains a codec on a sample (`n x dim`) of a corpus of about `n_tokens`; the vectors need not have length 1. A sample
    /// of fewer than four vectors a centroid makes fewer centroids.
    pub fn train(mut sample: Vec<f32>, dim: usize, n_tokens: u64, config: &CodecConfig) -> Result<Self, IndexError> {
        check(config, dim)?;
        if sample.is_empty() {
            return Err(IndexError::EmptySample);
        }
        if !sample.len().is_multiple_of(dim) {
            return Err(IndexError::Dimension { dim, n_values: sample.len() });
        }
        normalize(&mut sample, dim, || "sample".to_owned())?;
        let n_sample = sample.len() / dim;
        let n_held_out = (n_sample / HELD_OUT).min(MAX_HELD_OUT);
        // A small sample is used for both.
        let (training, held_out) = if n_held_out < 256 {
            (&sample[..], &sample[..n_sample.min(MAX_HELD_OUT) * dim])
        } else {
            sample.split_at((n_sample - n_held_out) * dim)
        };
        let n_training = training.len() / dim;
        let n_centroids = (config.wanted_centroids(n_tokens) as usize).min(n_training / 4).max(1);
        let grouped = cluster(training, dim, n_centroids, config);
        Ok(with_levels(grouped, held_out, dim, config))
    }

    pub(crate) fn assigner(&self) -> Assigner {
        let inner = &self.inner;
        Assigner::new(&inner.group_centers, &inner.group_starts, self.centroids(), self.dim(), ENCODING_PROBE)
    }
}

fn check(config: &CodecConfig, dim: usize) -> Result<(), IndexError> {
    let refuse = |name, value: usize, expected| Err(IndexError::Config { name, value: value as u64, expected });
    if !matches!(config.bits, 1 | 2 | 4) {
        return refuse("bits", config.bits, "1, 2 or 4");
    }
    if !(1..=4096).contains(&dim) {
        return refuse("dim", dim, "1 to 4096");
    }
    if config.n_centroids.is_some_and(|n| !(1..=MAX_CENTROIDS as usize).contains(&n)) {
        return refuse("n_centroids", config.n_centroids.unwrap_or(0), "1 to 2^18");
    }
    Ok(())
}

/// Centroids in the order of their groups.
struct Grouped {
    centers: Vec<f32>,
    starts: Vec<u32>,
    centroids: Vec<f32>,
}

fn cluster(training: &[f32], dim: usize, n_centroids: usize, config: &CodecConfig) -> Grouped {
    let n_training = training.len() / dim;
    let mut random = SplitMix64(config.seed);
    let chosen = choose(&mut random, n_training, n_centroids);
    let mut centroids = Vec::with_capacity(n_centroids * dim);
    for idx in &chosen {
        centroids.extend_from_slice(&training[*idx as usize * dim..][..dim]);
    }
    // Twice the root, as a power of two: 512 groups of 128 for 65,536.
    let n_groups = (2.0 * (n_centroids as f64).sqrt()).log2().round().exp2() as usize;
    let n_groups = if n_centroids < 64 { 1 } else { n_groups };
    let mut centers: Vec<f32> = Vec::with_capacity(n_groups * dim);
    for idx in choose(&mut random, n_centroids, n_groups) {
        centers.extend_from_slice(&centroids[idx as usize * dim..][..dim]);
    }
    let mut grouped = group(&centroids, centers, dim, 6);
    for _ in 0..config.n_rounds {
        let assigner = Assigner::new(&grouped.centers, &grouped.starts, &grouped.centroids, dim, TRAINING_PROBE);
        let (numbers, scores) = assigner.assign(training);
        let centroids = means(training, dim, &numbers, &scores, grouped.centroids);
        grouped = group(&centroids, grouped.centers, dim, 2);
    }
    grouped
}

/// Improves the groups' centers by rounds of k-means over the centroids and brings these in the groups' order.
fn group(centroids: &[f32], mut centers: Vec<f32>, dim: usize, n_rounds: usize) -> Grouped {
    let nearest = |centers: &[f32]| assign_flat(centroids, dim, &pack(centers, dim));
    for _ in 0..n_rounds {
        let (numbers, scores): (Vec<u32>, Vec<f32>) = nearest(&centers).into_iter().unzip();
        centers = means(centroids, dim, &numbers, &scores, centers);
    }
    let numbers: Vec<u32> = nearest(&centers).into_iter().map(|(number, _)| number).collect();
    let (starts, order) = sort_by_number(&numbers, centers.len() / dim);
    let mut sorted = Vec::with_capacity(centroids.len());
    for idx in &order {
        sorted.extend_from_slice(&centroids[*idx as usize * dim..][..dim]);
    }
    Grouped { centers, starts, centroids: sorted }
}

/// The normalized mean of each cluster's vectors. One without vectors moves to a vector that is far from its centroid.
fn means(vectors: &[f32], dim: usize, numbers: &[u32], scores: &[f32], mut centroids: Vec<f32>) -> Vec<f32> {
    let (starts, order) = sort_by_number(numbers, centroids.len() / dim);
    centroids.par_chunks_exact_mut(dim).enumerate().for_each(|(number, centroid)| {
        let members = &order[starts[number] as usize..starts[number + 1] as usize];
        if members.is_empty() {
            return;
        }
        centroid.fill(0.0);
        for member in members {
            add(centroid, &vectors[*member as usize * dim..][..dim]);
        }
        let length = sum_of_squares(centroid).sqrt() as f32;
        if length > 1e-6 {
            scale(centroid, 1.0 / length);
        } else {
            // Opposite vectors cancel out; any of them is as good.
            centroid.copy_from_slice(&vectors[members[0] as usize * dim..][..dim]);
        }
    });
    let empty: Vec<usize> = (0..starts.len() - 1).filter(|number| starts[*number] == starts[*number + 1]).collect();
    if !empty.is_empty() {
        let mut far: Vec<u32> = (0..numbers.len() as u32).collect();
        far.sort_by(|left, right| scores[*left as usize].total_cmp(&scores[*right as usize]).then(left.cmp(right)));
        for (number, vector) in empty.into_iter().zip(far) {
            centroids[number * dim..][..dim].copy_from_slice(&vectors[vector as usize * dim..][..dim]);
        }
    }
    centroids
}

/// Where each number's positions begin, and the positions in the order of their numbers.
fn sort_by_number(numbers: &[u32], n_numbers: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; n_numbers + 1];
    for number in numbers {
        starts[*number as usize + 1] += 1;
    }
    for idx in 0..n_numbers {
        starts[idx + 1] += starts[idx];
    }
    let mut next = starts.clone();
    let mut order = vec![0u32; numbers.len()];
    for (position, number) in numbers.iter().enumerate() {
        let slot = &mut next[*number as usize];
        order[*slot as usize] = position as u32;
        *slot += 1;
    }
    (starts, order)
}

/// Scales, levels and the distances to expect, from what the centroids leave of the held-out vectors.
fn with_levels(grouped: Grouped, held_out: &[f32], dim: usize, config: &CodecConfig) -> Codec {
    let Grouped { centers, starts, centroids } = grouped;
    let assigner = Assigner::new(&centers, &starts, &centroids, dim, ENCODING_PROBE);
    let (numbers, _) = assigner.assign(held_out);
    let mut residuals = held_out.to_vec();
    for (residual, number) in residuals.chunks_exact_mut(dim).zip(&numbers) {
        for (x, c) in residual.iter_mut().zip(&centroids[*number as usize * dim..][..dim]) {
            *x -= c;
        }
    }
    let mut norms: Vec<f32> = residuals.chunks_exact(dim).map(|row| sum_of_squares(row).sqrt() as f32).collect();
    let mean_norm = (norms.iter().map(|norm| f64::from(*norm)).sum::<f64>() / norms.len() as f64) as f32;
    norms.sort_by(f32::total_cmp);
    let outlier_norm = norms[(norms.len() - 1) * 99 / 100];
    let scales: Vec<f32> = (0..dim)
        .map(|d| {
            let squares = residuals.iter().skip(d).step_by(dim).map(|x| f64::from(*x).powi(2)).sum::<f64>();
            // A dimension that centroids say all of still needs a scale to divide by.
            ((squares / norms.len() as f64).sqrt() as f32).max(1e-9)
        })
        .collect();
    // A million values say where levels belong.
    let step = (residuals.len() >> 20).max(1) | 1;
    let mut values: Vec<f32> =
        (0..residuals.len()).step_by(step).map(|idx| residuals[idx] / scales[idx % dim]).collect();
    values.sort_by(f32::total_cmp);
    let levels = best_levels(&values, 1 << config.bits);
    let cutoffs = levels.windows(2).map(|pair| 0.5 * (pair[0] + pair[1])).collect();
    let table = ResidualTable::new(config.bits, &levels, &scales);
    let inner = Inner {
        table,
        cutoffs,
        seed: config.seed,
        outlier_norm,
        mean_norm,
        group_starts: starts,
        group_centers: centers,
        centroids: Floats::Owned(centroids),
        bytes: OnceLock::new(),
    };
    Codec { inner: Arc::new(inner) }
}

/// The levels with the least squared error over ascending values: Lloyd's rounds from the quantiles on.
fn best_levels(values: &[f32], n_levels: usize) -> Vec<f32> {
    let mut sums = vec![0f64];
    for value in values {
        sums.push(sums[sums.len() - 1] + f64::from(*value));
    }
    let mut ends: Vec<usize> = (1..n_levels).map(|level| level * values.len() / n_levels).collect();
    let mut levels = vec![0f32; n_levels];
    for _ in 0..50 {
        for (level, mean) in levels.iter_mut().enumerate() {
            let first = if level == 0 { 0 } else { ends[level - 1] };
            let last = ends.get(level).copied().unwrap_or(values.len());
            if last > first {
                *mean = ((sums[last] - sums[first]) / (last - first) as f64) as f32;
            }
        }
        levels.sort_by(f32::total_cmp);
        for (end, pair) in ends.iter_mut().zip(levels.windows(2)) {
            let cutoff = 0.5 * (pair[0] + pair[1]);
            *end = values.partition_point(|value| *value <= cutoff);
        }
    }
    levels
}

/// `count` different numbers below `n`, in no order: the beginning of a shuffle.
fn choose(random: &mut SplitMix64, n: usize, count: usize) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..n as u32).collect();
    for idx in 0..count.min(n) {
        let other = idx + random.below((n - idx) as u64) as usize;
        numbers.swap(idx, other);
    }
    numbers.truncate(count);
    numbers
}
