//! `exsearch index`: a passage file to an index folder.
use crate::output::{Output, bytes, duration, thousands};
use crate::progress::Unit;
use anyhow::Context;
use exsearch_corpus::{BadLines, CorpusError, PassageReader};
use exsearch_retriever::Error;
use exsearch_retriever::bm25::{self, Analysis, Bm25Config, Built, Manifest, Progress, SourceId, Target};
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Index the passages of a file for search (BM25)
///
/// Reads DPR's TSV (id, text, title; as psgs_w100.tsv) or JSON lines with id, title and text. A build that was killed goes
/// on where it stopped when the same command is given again; the folder is an index only once all of it is on disk.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The passage file
    passages: PathBuf,
    /// The folder to write the index to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Leave out lines that are no passages and count them, instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,
    /// Replace an index of other passages or settings
    #[arg(long)]
    force: bool,
    /// Keep English endings: "lived" then does not find "living"
    #[arg(long)]
    no_stemming: bool,
    /// Memory for buffers, in MiB; unique ids take up to 18 bytes a passage on top
    #[arg(long, value_name = "N", default_value_t = Bm25Config::default().memory_mb)]
    memory_mb: usize,
    /// Passages between two commits: a killed build loses at most this many
    #[arg(long, value_name = "N", default_value_t = Bm25Config::default().commit_every)]
    commit_every: u64,
}

/// Up to this size the whole file is hashed, about a second a GB; of larger ones `N_SAMPLES` blocks and the size.
const FULL_HASH_BYTES: u64 = 4_000_000_000;
/// 256 blocks of 1 MiB: a second or two even from a slow disk. The first and the last MiB are among them.
const N_SAMPLES: u64 = 256;
const BLOCK_BYTES: usize = 1 << 20;

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let started = Instant::now();
    let config = Bm25Config {
        analysis: Analysis { stemming: !args.no_stemming },
        memory_mb: args.memory_mb,
        n_threads: rayon::current_num_threads().clamp(1, 8),
        commit_every: args.commit_every,
    };
    let bad_lines = if args.skip_bad { BadLines::Skip } else { BadLines::Stop };
    let target = Target { dir: &args.out, replace: args.force };
    match build(&args.passages, bad_lines, &target, &config, output)? {
        Built::Completed(manifest) => {
            let secs = started.elapsed().as_secs_f64();
            let rate = thousands((manifest.n_passages as f64 / secs) as u64);
            output.line(format_args!("{} in {} ({rate} passages/s)", describe(&args.out, &manifest), duration(secs)))
        }
        Built::AlreadyComplete(manifest) => {
            output.line(format_args!("{}, nothing to do", describe(&args.out, &manifest)))
        }
    }
}

/// Builds or completes the index of a passage file, showing progress.
pub(crate) fn build(
    passages: &Path,
    bad_lines: BadLines,
    target: &Target<'_>,
    config: &Bm25Config,
    output: &Output,
) -> anyhow::Result<Built> {
    let mut reader = PassageReader::open(passages, bad_lines)?;
    let source = source_id(passages, output)?;
    let mut bar = output.progress("indexing", Unit::Bytes, source.n_bytes);
    let bytes_read = Cell::new(0);
    let rows = std::iter::from_fn(|| {
        let passage = reader.next();
        bytes_read.set(reader.bytes_read());
        passage
    });
    let mut n_resumed = None;
    let built = bm25::build(rows, &source, target, config, |progress| match progress {
        Progress::Resumed { n_passages } => {
            bar.pause(|| output.note(format_args!("going on behind passage {}", thousands(n_passages))));
            n_resumed = Some(n_passages);
        }
        Progress::Indexed { n_passages } | Progress::Committed { n_passages } => {
            // What was indexed before is only read again: it would make the rate look better than it is.
            if n_resumed.take_if(|before| n_passages >= *before).is_some() {
                bar.resume_at(bytes_read.get());
            }
            bar.set(bytes_read.get());
        }
        Progress::Merging => bar.set_what("merging"),
    });
    drop(bar);
    let built = built.map_err(explain)?;
    if reader.n_skipped() > 0 {
        output.note(format_args!("left out {} lines of {}:", thousands(reader.n_skipped()), passages.display()));
        for skipped in reader.first_skipped() {
            output.note(format_args!("  line {}: {}", skipped.line, skipped.reason));
        }
    }
    Ok(built)
}

/// A bad line is told by its own error, and that it can be skipped.
fn explain(error: Error) -> anyhow::Error {
    match error {
        Error::Source { source, number } => match source.downcast::<CorpusError>() {
            Ok(error) if matches!(*error, CorpusError::BadLine { .. }) => {
                anyhow::anyhow!("{error}\n  (--skip-bad leaves such lines out and counts them)")
            }
            Ok(error) => anyhow::Error::new(*error),
            Err(source) => Error::Source { source, number }.into(),
        },
        error => error.into(),
    }
}

fn describe(dir: &Path, manifest: &Manifest) -> String {
    let n_bytes = manifest.files.iter().map(|file| file.n_bytes).sum();
    format!("{}: {} passages, {}", dir.display(), thousands(manifest.n_passages), bytes(n_bytes))
}

/// What the index is made from, by content: the SHA-256 of the file, or of its size and blocks spread over it when it is
/// larger than [`FULL_HASH_BYTES`].
fn source_id(path: &Path, output: &Output) -> anyhow::Result<SourceId> {
    let cannot_read = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(cannot_read)?;
    let n_bytes = file.metadata().with_context(cannot_read)?.len();
    let fingerprint = if n_bytes <= FULL_HASH_BYTES {
        format!("sha256:{}", full_hash(&mut file, n_bytes, output).with_context(cannot_read)?)
    } else {
        format!("sha256-sampled:{}", sampled_hash(&mut file, n_bytes).with_context(cannot_read)?)
    };
    Ok(SourceId { path: path.display().to_string(), n_bytes, fingerprint })
}

fn full_hash(file: &mut File, n_bytes: u64, output: &Output) -> std::io::Result<String> {
    let mut bar = output.progress("fingerprint", Unit::Bytes, n_bytes);
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut n_done = 0;
    loop {
        let n_read = file.read(&mut block)?;
        if n_read == 0 {
            return Ok(hex(hash));
        }
        hash.update(&block[..n_read]);
        n_done += n_read as u64;
        bar.set(n_done);
    }
}

fn sampled_hash(file: &mut File, n_bytes: u64) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(n_bytes.to_le_bytes());
    let mut block = vec![0; BLOCK_BYTES.min(n_bytes as usize)];
    let last_start = n_bytes - block.len() as u64;
    for sample in 0..N_SAMPLES {
        file.seek(SeekFrom::Start((last_start as u128 * sample as u128 / (N_SAMPLES - 1) as u128) as u64))?;
        file.read_exact(&mut block)?;
        hash.update(&block);
    }
    Ok(hex(hash))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_of_the_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("passages.tsv");
        let hashes = |content: &[u8]| {
            std::fs::write(&path, content).expect("written");
            let mut file = File::open(&path).expect("opened");
            let full = full_hash(&mut file, content.len() as u64, &Output::new(true)).expect("read");
            (full, sampled_hash(&mut file, content.len() as u64).expect("read"))
        };
        let mut content = vec![7; 3 << 20];
        let before = hashes(&content);
        assert_eq!(before, hashes(&content));
        *content.last_mut().expect("not empty") = 8;
        let after = hashes(&content);
        assert!(before.0 != after.0 && before.1 != after.1, "the last byte counts in both");
        // FIPS 180-2's "abc".
        assert_eq!(hashes(b"abc").0, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
