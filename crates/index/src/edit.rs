//! Changes to a complete index: deleting passages, and making one segment of many. Passage numbers never change.
use crate::IndexError;
use crate::error::damaged;
use crate::folder::{FileEntry, Folder, Lock, Manifest, Session};
use crate::segment::{Segment, map};
use crate::writer::{Parts, WriterConfig, next_segment, open_codec};
use std::path::Path;

/// Which passages are deleted: a bit each, the lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deleted {
    bytes: Vec<u8>,
}

impl Deleted {
    pub(crate) fn open(folder: &Folder, manifest: &Manifest) -> Result<Self, IndexError> {
        let Some(entry) = &manifest.deleted else { return Ok(Self::default()) };
        let bytes = map(folder, entry)?.bytes().to_vec();
        let n_set = bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
        if crc32fast::hash(&bytes) != entry.crc32 || n_set != manifest.n_deleted {
            return Err(damaged(&folder.path(&entry.name), "its checksum or number of bits is another"));
        }
        Ok(Self { bytes })
    }

    pub(crate) fn contains(&self, passage: u32) -> bool {
        self.bytes.get(passage as usize / 8).is_some_and(|byte| byte >> (passage % 8) & 1 == 1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// False when it was deleted before.
    fn insert(&mut self, passage: u32) -> bool {
        let at = passage as usize / 8;
        self.bytes.resize(self.bytes.len().max(at + 1), 0);
        let is_new = !self.contains(passage);
        self.bytes[at] |= 1 << (passage % 8);
        is_new
    }
}

/// Deletes passages: searches return them no more, and their numbers stay unused. Returns how many were not deleted before.
/// Takes time and disk for a bit a passage of the index; the vectors' space comes back with [`compact`].
pub fn delete(dir: &Path, passages: &[u32]) -> Result<u32, IndexError> {
    let (folder, _lock, mut manifest) = open(dir)?;
    let mut deleted = Deleted::open(&folder, &manifest)?;
    let mut n_new = 0;
    for passage in passages {
        if *passage >= manifest.n_passages {
            return Err(IndexError::NoSuchPassage { passage: *passage, n_passages: manifest.n_passages });
        }
        n_new += u32::from(deleted.insert(*passage));
    }
    if n_new == 0 {
        return Ok(0);
    }
    manifest.generation += 1;
    manifest.n_deleted += n_new;
    manifest.deleted = Some(write_deleted(&folder, &manifest, &deleted)?);
    folder.write_manifest(&manifest)?;
    folder.remove_leftovers()?;
    Ok(n_new)
}

fn write_deleted(folder: &Folder, manifest: &Manifest, deleted: &Deleted) -> Result<FileEntry, IndexError> {
    folder.write_file(&format!("deleted-{}.bits", manifest.generation), &deleted.bytes)
}

/// Copies all segments into one without the deleted passages' vectors. Returns false when there was nothing to do. Readers
/// go on with what they opened. Killed in the middle, the index is as before; until the end there is room for two.
pub fn compact(dir: &Path, config: &WriterConfig) -> Result<bool, IndexError> {
    config.check()?;
    let (folder, _lock, mut manifest) = open(dir)?;
    if folder.session()?.is_some() {
        return Err(IndexError::Unfinished { dir: dir.to_owned() });
    }
    let codec = open_codec(&folder, &manifest.codec)?;
    let deleted = Deleted::open(&folder, &manifest)?;
    let segments: Result<Vec<_>, _> =
        manifest.segments.iter().map(|entry| Segment::open(&folder, entry, &codec)).collect();
    let segments = segments?;
    if segments.len() < 2 && !holds_deleted(&segments, &deleted)? {
        return Ok(false);
    }
    let sources: Vec<&str> = manifest.segments.iter().map(|entry| &*entry.source).collect();
    let mut session = Session::new(manifest.codec.clone(), next_segment(&manifest), 0, &sources.join("\n"));
    let mut parts = Parts::create(&folder, session.segment)?;
    let mut lengths = Vec::with_capacity(manifest.n_passages as usize);
    parts.offsets.write(&0u64.to_le_bytes())?;
    let (mut codes, mut residuals, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
    for segment in &segments {
        for local in 0..segment.entry.n_passages {
            let mut tokens = segment.tokens(local)?;
            if deleted.contains(segment.entry.first_passage + local) {
                tokens.end = tokens.start;
            }
            codes.extend_from_slice(segment.raw_codes(tokens.clone()));
            residuals.extend_from_slice(segment.residuals(tokens.clone()));
            lengths.push(tokens.len() as u32);
            session.n_tokens += tokens.len() as u64;
            offsets.extend(session.n_tokens.to_le_bytes());
            if residuals.len() > 1 << 20 {
                write_out(&mut parts, &mut codes, &mut residuals, &mut offsets)?;
            }
        }
        // Of what was deleted it is not known how many were outliers; they stay counted, at most all there is.
        session.n_outliers += segment.entry.n_outliers;
    }
    write_out(&mut parts, &mut codes, &mut residuals, &mut offsets)?;
    session.n_passages = manifest.n_passages;
    session.n_outliers = session.n_outliers.min(session.n_tokens);
    manifest.segments = vec![parts.finish(&folder, &codec, &session, &lengths, config)?];
    manifest.generation = manifest.generation.max(session.segment) + 1;
    folder.write_manifest(&manifest)?;
    folder.remove_leftovers()?;
    Ok(true)
}

fn write_out(
    parts: &mut Parts,
    codes: &mut Vec<u8>,
    residuals: &mut Vec<u8>,
    offsets: &mut Vec<u8>,
) -> Result<(), IndexError> {
    parts.codes.write(codes)?;
    parts.residuals.write(residuals)?;
    parts.offsets.write(offsets)?;
    for buffer in [codes, residuals, offsets] {
        buffer.clear();
    }
    Ok(())
}

/// Whether a deleted passage still has tokens.
fn holds_deleted(segments: &[Segment], deleted: &Deleted) -> Result<bool, IndexError> {
    if deleted.is_empty() {
        return Ok(false);
    }
    for segment in segments {
        for local in 0..segment.entry.n_passages {
            if deleted.contains(segment.entry.first_passage + local) && !segment.tokens(local)?.is_empty() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A complete index to change, what a killed writer left removed.
fn open(dir: &Path) -> Result<(Folder, Lock, Manifest), IndexError> {
    let folder = Folder::new(dir);
    folder.manifest()?;
    let lock = folder.lock()?;
    folder.remove_leftovers()?;
    let manifest = folder.manifest()?;
    Ok((folder, lock, manifest))
}
