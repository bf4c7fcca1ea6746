//! One segment as it lies on disk: the codes of its passages, and which passages have tokens at a centroid.
//!
//! Nothing in a file is trusted: what would lead outside of it is an error that names the file.
use crate::IndexError;
use crate::codec::Codec;
use crate::error::{damaged, io_error};
use crate::folder::{FileEntry, Folder, SegmentEntry};
use crate::postings::{Malformed, Postings, read_code};
use exsearch_kernels::MappedFile;
use std::ops::Range;

pub(crate) struct Segment {
    folder: Folder,
    pub(crate) entry: SegmentEntry,
    offsets: MappedFile,
    codes: MappedFile,
    residuals: MappedFile,
    postings: MappedFile,
    code_bytes: usize,
    residual_bytes: usize,
    n_centroids: usize,
}

impl Segment {
    pub(crate) fn open(folder: &Folder, entry: &SegmentEntry, codec: &Codec) -> Result<Self, IndexError> {
        let n_tokens = entry.n_tokens;
        let (code_bytes, residual_bytes) = (codec.code_bytes(), codec.residual_bytes());
        let sizes = [
            (&entry.offsets, 8 * (u64::from(entry.n_passages) + 1)),
            (&entry.codes, n_tokens.saturating_mul(code_bytes as u64)),
            (&entry.residuals, n_tokens.saturating_mul(residual_bytes as u64)),
        ];
        for (file, expected) in sizes {
            if file.n_bytes != expected {
                let reason = format!(
                    "it should have {expected} bytes by the manifest's counts, and {} by its files",
                    file.n_bytes
                );
                return Err(damaged(&folder.path(&file.name), reason));
            }
        }
        let open = |file: &FileEntry| map(folder, file);
        let (offsets, codes, residuals) = (open(&entry.offsets)?, open(&entry.codes)?, open(&entry.residuals)?);
        let postings = open(&entry.postings)?;
        // A candidate's codes are some kilobytes anywhere in the file.
        residuals.advise_random();
        codes.advise_random();
        Ok(Self {
            folder: folder.clone(),
            entry: entry.clone(),
            offsets,
            codes,
            residuals,
            postings,
            code_bytes,
            residual_bytes,
            n_centroids: codec.n_centroids(),
        })
    }

    /// The tokens of a passage, counted from the segment's first passage.
    pub(crate) fn tokens(&self, local: u32) -> Result<Range<usize>, IndexError> {
        let at = 8 * local as usize;
        let offset = |at: usize| u64::from_le_bytes(self.offsets.bytes()[at..at + 8].try_into().expect("eight bytes"));
        let (first, last) = (offset(at), offset(at + 8));
        let SegmentEntry { n_tokens, max_tokens, .. } = self.entry;
        if first > last || last > n_tokens || last - first > u64::from(max_tokens) {
            let reason = format!("passage {local} has tokens {first} to {last} of {n_tokens}, at most {max_tokens}");
            return Err(damaged(&self.folder.path(&self.entry.offsets.name), reason));
        }
        Ok(first as usize..last as usize)
    }

    /// Appends the centroid numbers of these tokens.
    pub(crate) fn read_codes(&self, tokens: Range<usize>, out: &mut Vec<u32>) -> Result<(), IndexError> {
        for code in self.raw_codes(tokens).chunks_exact(self.code_bytes) {
            let code = read_code(code);
            if code as usize >= self.n_centroids {
                let reason = format!("it names centroid {code} of {}", self.n_centroids);
                return Err(damaged(&self.folder.path(&self.entry.codes.name), reason));
            }
            out.push(code);
        }
        Ok(())
    }

    pub(crate) fn raw_codes(&self, tokens: Range<usize>) -> &[u8] {
        &self.codes.bytes()[tokens.start * self.code_bytes..tokens.end * self.code_bytes]
    }

    pub(crate) fn residuals(&self, tokens: Range<usize>) -> &[u8] {
        &self.residuals.bytes()[tokens.start * self.residual_bytes..tokens.end * self.residual_bytes]
    }

    pub(crate) fn postings(&self) -> Postings<'_> {
        Postings::new(self.postings.bytes(), self.n_centroids)
    }

    pub(crate) fn malformed(&self, _: Malformed) -> IndexError {
        damaged(&self.folder.path(&self.entry.postings.name), "its lists make no sense")
    }
}

/// Maps a file that has the size which the manifest says.
pub(crate) fn map(folder: &Folder, file: &FileEntry) -> Result<MappedFile, IndexError> {
    let path = folder.path(&file.name);
    let mapped = MappedFile::open(&path).map_err(|error| io_error(&path, error))?;
    match mapped.bytes().len() as u64 {
        n_bytes if n_bytes == file.n_bytes => Ok(mapped),
        n_bytes => Err(damaged(&path, format!("it has {n_bytes} bytes instead of {}", file.n_bytes))),
    }
}
