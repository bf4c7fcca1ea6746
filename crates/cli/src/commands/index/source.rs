//! A passage file to what names its content.
use crate::output::Output;
use crate::progress::Unit;
use anyhow::Context;
use exsearch_retriever::SourceId;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Up to this size the whole file is hashed, about a second a GB; of larger ones `N_SAMPLES` blocks and the size.
const FULL_HASH_BYTES: u64 = 4_000_000_000;
/// 256 blocks of 1 MiB: a second or two even from a slow disk. The first and the last MiB are among them.
const N_SAMPLES: u64 = 256;
const BLOCK_BYTES: usize = 1 << 20;

/// What the index is made from, by content: the SHA-256 of the file, or of its size and blocks spread over it when it is
/// larger than [`FULL_HASH_BYTES`].
pub(crate) fn source_id(path: &Path, output: &Output) -> anyhow::Result<SourceId> {
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
