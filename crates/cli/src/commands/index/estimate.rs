//! The first passages of a file to what an index of all of them takes, and whether this machine has it.
use super::Kind;
use crate::output::{Output, bytes, duration, thousands};
use anyhow::{Context, bail};
use exsearch_corpus::{BadLines, PassageReader};
use exsearch_index::CodecConfig;
use exsearch_schema::{Encoder, Passage, TextRole};
use std::path::Path;
use std::time::Instant;

/// What a build is expected to take.
pub(super) struct Estimate {
    n_passages: u64,
    secs: f64,
    memory_bytes: u64,
    disk_bytes: u64,
}

/// Passages that are looked at.
const N_SAMPLED: usize = 2_000;
/// Passages that are encoded to learn the rate; the first few warm up the machine.
const N_TIMED: usize = 48;
/// BM25: index bytes a byte of the file, and passages a second; of psgs_dev.tsv (docs/LOG.md), rounded up and down.
const BM25_BYTES_A_BYTE: f64 = 1.1;
const BM25_BYTES_A_SEC: f64 = 8e6;
/// The encoder's weights and its buffers for a batch, and the process.
const ENCODER_BYTES: u64 = 600_000_000;
/// Unique ids.
const ID_BYTES: u64 = 18;
/// Late interaction: a token's centroid number and its place in the lists of passages.
const CODE_BYTES: f64 = 5.0;

/// What is built, as far as its size depends on it.
pub(super) struct Plan<'a> {
    pub(super) kind: Kind,
    pub(super) encoder: Option<&'a dyn Encoder>,
    pub(super) bytes_a_number: u64,
    pub(super) bits: usize,
    pub(super) buffer_bytes: u64,
}

impl Plan<'_> {
    /// Reads and, where there is an encoder, encodes the first passages.
    pub(super) fn estimate(&self, path: &Path) -> anyhow::Result<Estimate> {
        let mut reader = PassageReader::open(path, BadLines::Skip)?;
        let n_bytes = reader.total_bytes();
        let sample: Vec<Passage> = reader.by_ref().take(N_SAMPLED).collect::<Result<_, _>>()?;
        let n_sampled = sample.len().max(1) as f64;
        // The reader buffers ahead, so what the sample takes is counted from its own words, with marks between them.
        let length = |passage: &Passage| passage.id.0.len() + passage.title.len() + passage.text.len();
        let mean_bytes = sample.iter().map(|passage| length(passage) + 5).sum::<usize>() as f64 / n_sampled;
        let n_passages =
            if sample.len() < N_SAMPLED { sample.len() as u64 } else { (n_bytes as f64 / mean_bytes) as u64 };
        let mut estimate = Estimate { n_passages, secs: 0.0, memory_bytes: n_passages * ID_BYTES, disk_bytes: 0 };
        if matches!(self.kind, Kind::Bm25 | Kind::Hybrid) {
            estimate.secs += n_bytes as f64 / BM25_BYTES_A_SEC;
            // Merging segments holds old and new at once.
            estimate.disk_bytes += (2.0 * BM25_BYTES_A_BYTE * n_bytes as f64) as u64;
            estimate.memory_bytes += self.buffer_bytes;
        }
        let Some(encoder) = self.encoder else { return Ok(estimate) };
        let (secs_a_passage, vectors_a_passage) = rate(encoder, &sample)?;
        estimate.secs += secs_a_passage * n_passages as f64;
        estimate.memory_bytes += ENCODER_BYTES;
        let n_vectors = vectors_a_passage * n_passages as f64;
        let text = (mean_bytes * n_passages as f64) as u64;
        match self.kind {
            Kind::Late => {
                let codec = CodecConfig::default();
                let vector_bytes = (encoder.dim() * self.bits).div_ceil(8) as f64 + CODE_BYTES;
                let codec_bytes = codec.wanted_centroids(n_vectors as u64) * 4 * encoder.dim() as u64;
                estimate.disk_bytes += text + codec_bytes + (n_vectors * vector_bytes) as u64;
                estimate.memory_bytes += self.buffer_bytes + codec_bytes;
                // The codec's sample is encoded beside the corpus.
                let n_sampled = codec.n_sample_tokens(n_vectors as u64) as f64 / vectors_a_passage.max(1.0);
                estimate.secs += secs_a_passage * n_sampled;
            }
            _ => estimate.disk_bytes += text + (n_vectors * (encoder.dim() as u64 * self.bytes_a_number) as f64) as u64,
        }
        Ok(estimate)
    }
}

/// Seconds and vectors a passage.
fn rate(encoder: &dyn Encoder, sample: &[Passage]) -> anyhow::Result<(f64, f64)> {
    let step = (sample.len() / N_TIMED).max(1);
    let texts: Vec<String> = sample
        .iter()
        .step_by(step)
        .take(N_TIMED)
        .map(|passage| format!("{} {}", passage.title, passage.text))
        .collect();
    if texts.is_empty() {
        return Ok((0.0, 0.0));
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    encoder.encode(&texts[..texts.len().min(4)], TextRole::Passage)?;
    let clock = Instant::now();
    let embeddings = encoder.encode(&texts, TextRole::Passage)?;
    let n_vectors: usize = embeddings.iter().map(|embedding| embedding.n_vectors()).sum();
    Ok((clock.elapsed().as_secs_f64() / texts.len() as f64, n_vectors as f64 / texts.len() as f64))
}

impl Estimate {
    /// In words.
    pub(super) fn describe(&self) -> String {
        format!(
            "about {} passages: {}, {} of memory, {} of disk",
            thousands(self.n_passages),
            duration(self.secs),
            bytes(self.memory_bytes),
            bytes(self.disk_bytes)
        )
    }

    /// Refuses what the machine cannot hold.
    pub(super) fn check(&self, out: &Path, output: &Output) -> anyhow::Result<()> {
        let disk = out.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
        let free = fs4::available_space(if disk.as_os_str().is_empty() { Path::new(".") } else { disk })
            .with_context(|| format!("cannot tell how much space {} has", disk.display()))?;
        if self.disk_bytes > free {
            bail!(
                "the index would take about {} of disk, {} has {}; give an --out on a larger disk, fewer --bits or --half \
                 vectors, or --force",
                bytes(self.disk_bytes),
                disk.display(),
                bytes(free)
            );
        }
        match available_memory() {
            Some(available) if self.memory_bytes > available => bail!(
                "the build would take about {} of memory, {} are free; give a smaller --memory-mb, or --force",
                bytes(self.memory_bytes),
                bytes(available)
            ),
            None => output.note("how much memory is free cannot be told here, so it is not checked"),
            Some(_) => {}
        }
        Ok(())
    }
}

/// What programs can still take, where the system tells.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_is_refused_with_what_would() {
        let folder = tempfile::tempdir().expect("a folder");
        let output = Output::new(true);
        let small = Estimate { n_passages: 1, secs: 1.0, memory_bytes: 1 << 20, disk_bytes: 1 << 10 };
        small.check(&folder.path().join("new/index"), &output).expect("a kilobyte fits");
        let refused = |estimate: &Estimate| estimate.check(folder.path(), &output).expect_err("refused").to_string();
        let error = refused(&Estimate { disk_bytes: 1 << 60, ..small });
        assert!(error.contains("of disk") && error.contains("--half"), "{error}");
        if available_memory().is_some() {
            let error = refused(&Estimate { memory_bytes: 1 << 60, disk_bytes: 0, ..small });
            assert!(error.contains("of memory") && error.contains("--memory-mb"), "{error}");
        }
    }
}
