//! Vectors that lie in clusters as tokens do, and an index of them.
use exsearch_index::{Codec, CodecConfig, LateIndex, Scored, SearchOptions, Writer, WriterConfig};
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) struct World {
    pub(crate) dim: usize,
    pub(crate) passages: Vec<Vec<f32>>,
    pub(crate) queries: Vec<Vec<f32>>,
}

impl World {
    /// Passages of up to 20 tokens, each near one of 60 directions; a query's tokens are near those of one passage.
    pub(crate) fn new(n_passages: usize, dim: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let directions: Vec<Vec<f32>> = (0..60).map(|_| random.vector(dim, 1.0)).collect();
        let near = |direction: &[f32], noise: f32, random: &mut Random| -> Vec<f32> {
            let noise = random.vector(dim, noise);
            let sum: Vec<f32> = direction.iter().zip(noise).map(|(x, y)| x + y).collect();
            let length = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
            sum.iter().map(|x| x / length).collect()
        };
        let passages: Vec<Vec<f32>> = (0..n_passages)
            .map(|_| {
                let n_tokens = 1 + random.below(20);
                (0..n_tokens).flat_map(|_| near(&directions[random.below(60)], 0.9, &mut random)).collect()
            })
            .collect();
        let queries = (0..20).map(|_| {
            let passage = &passages[random.below(n_passages)];
            let n_tokens = passage.len() / dim;
            (0..1 + random.below(9))
                .flat_map(|_| near(&passage[random.below(n_tokens) * dim..][..dim], 0.3, &mut random))
                .collect()
        });
        let queries = queries.collect();
        Self { dim, passages, queries }
    }

    pub(crate) fn n_tokens(&self) -> u64 {
        self.passages.iter().map(|passage| (passage.len() / self.dim) as u64).sum()
    }

    pub(crate) fn codec(&self, config: &CodecConfig) -> Codec {
        Codec::train(self.passages.concat(), self.dim, self.n_tokens(), config).expect("the vectors are fine")
    }

    pub(crate) fn build(&self, dir: &Path, config: &CodecConfig) -> LateIndex {
        build(dir, &self.codec(config), &self.passages)
    }
}

pub(crate) fn build(dir: &Path, codec: &Codec, passages: &[Vec<f32>]) -> LateIndex {
    let mut writer = Writer::create(dir, codec, "world", &WriterConfig::default()).expect("an empty folder");
    push_all(&mut writer, passages);
    writer.finish().expect("there is room");
    LateIndex::open(dir).expect("it is complete")
}

pub(crate) fn append(dir: &Path, passages: &[Vec<f32>]) {
    let mut writer = Writer::append(dir, "more", &WriterConfig::default()).expect("a complete index");
    push_all(&mut writer, passages);
    writer.finish().expect("there is room");
}

pub(crate) fn push_all(writer: &mut Writer, passages: &[Vec<f32>]) {
    for passage in passages {
        writer.push(passage).expect("a passage");
    }
}

/// The results of all queries.
pub(crate) fn results(index: &LateIndex, world: &World, options: &SearchOptions) -> Vec<Vec<Scored>> {
    world.queries.iter().map(|query| index.search(query, options).expect("the index is whole")).collect()
}

/// Every file of a folder but the lock.
pub(crate) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry"));
    let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
    named
        .filter(|(name, _)| name != "writer.lock")
        .map(|(name, path)| (name, std::fs::read(path).expect("a file")))
        .collect()
}

pub(crate) fn write_files(dir: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        std::fs::write(dir.join(name), bytes).expect("a file");
    }
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Of about this length.
    pub(crate) fn vector(&mut self, dim: usize, length: f32) -> Vec<f32> {
        let scale = length / (dim as f32 / 12.0).sqrt();
        (0..dim).map(|_| ((self.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * scale).collect()
    }
}
