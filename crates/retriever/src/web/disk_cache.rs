//! Answers of a paid service, kept in files: one an answer, named after the hash of what was asked.
use super::Provider;
use crate::Error;
use crate::error::io_error;
use exsearch_schema::Hit;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What was asked, of whom.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Key<'a> {
    pub(super) provider: Provider,
    pub(super) url: &'a str,
    pub(super) query: &'a str,
    pub(super) top_k: usize,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    key: Key<'a>,
    hits: &'a [Hit],
}

#[derive(Deserialize)]
struct StoredEntry {
    query: String,
    hits: Vec<Hit>,
}

/// `<first two digits>/<hash>.json`, so that no folder gets very long.
pub(super) struct DiskCache {
    dir: PathBuf,
}

impl DiskCache {
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(|error| io_error(dir, error))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// What was kept; a file that cannot be read or understood is as none, and is written anew.
    pub(super) fn get(&self, key: &Key<'_>) -> Option<Vec<Hit>> {
        let (folder, name) = self.place(key);
        let entry: StoredEntry = serde_json::from_slice(&std::fs::read(folder.join(name)).ok()?).ok()?;
        (entry.query == key.query).then_some(entry.hits)
    }

    pub(super) fn put(&self, key: &Key<'_>, hits: &[Hit]) -> Result<(), Error> {
        let (folder, name) = self.place(key);
        std::fs::create_dir_all(&folder).map_err(|error| io_error(&folder, error))?;
        let entry = serde_json::to_vec_pretty(&Entry { key: *key, hits }).expect("plain structs serialize");
        // Not synced: an answer that a power cut destroys is asked for again. The name under which it is written is of this
        // writer alone, since others may keep the same answer at the same time.
        static N_WRITES: AtomicU64 = AtomicU64::new(0);
        let n_writes = N_WRITES.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!("{name}.{}-{n_writes}.tmp", std::process::id()));
        let path = folder.join(&name);
        std::fs::write(&temporary, entry)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|error| io_error(&path, error))
    }

    fn place(&self, key: &Key<'_>) -> (PathBuf, String) {
        let key = serde_json::to_vec(key).expect("plain structs serialize");
        let hash: String = Sha256::digest(&key).iter().map(|byte| format!("{byte:02x}")).collect();
        (self.dir.join(&hash[..2]), format!("{hash}.json"))
    }
}
