//! Changes to a complete late-interaction index: new passages behind the old ones, deleted passages, and less disk.
use super::Built;
use super::manifest::{FORMAT, LateConfig, Manifest, SEGMENT_PREFIX};
use super::search::Opened;
use super::writer::{INDEX, SegmentWriter};
use crate::Error;
use crate::encode::check_kind;
use crate::folder::{Built as Found, Folder, Progress, SourceId};
use crate::stream::{Pace, add_all};
use exsearch_index::Writer;
use exsearch_schema::{Encoder, Passage, PassageId, VectorKind};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

/// Adds the passages of another corpus. Ids must be new, or those of deleted passages. Readers see all of them or none.
/// Killed at any point and called again with the same corpus, it continues behind its last commit; a corpus that was added
/// before is not added again.
pub fn append<E>(
    dir: &Path,
    passages: impl IntoIterator<Item = Result<Passage, E>>,
    source: &SourceId,
    encoder: &dyn Encoder,
    config: &LateConfig,
    mut progress: impl FnMut(Progress),
) -> Result<Built, Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    config.check()?;
    check_kind(encoder, VectorKind::PerToken)?;
    let (folder, manifest, _lock) = open_for_change(dir)?;
    manifest.encoder.check(dir, encoder)?;
    let data = folder.data(&manifest.data);
    let index_dir = data.join(INDEX);
    let has_passages = manifest.sources.iter().any(|known| known.difference(source).is_none());
    let mut resumed = Writer::resume(&index_dir, &config.writer())?;
    if let Some(writer) = resumed.take_if(|writer| u64::from(writer.first_passage()) < manifest.n_added()) {
        // Killed between the manifest and the end of the vectors.
        writer.finish()?;
    }
    if has_passages {
        return match resumed {
            None => Ok(Found::AlreadyComplete(manifest)),
            Some(writer) => Err(other_unfinished(dir, writer.source())),
        };
    }
    let index = match resumed {
        Some(writer) if writer.source() == source.fingerprint => writer,
        Some(writer) => return Err(other_unfinished(dir, writer.source())),
        None => Writer::append(&index_dir, &source.fingerprint, &config.writer())?,
    };
    let before = Opened::open(&folder, &manifest)?;
    let name = manifest.next_segment();
    let mut writer = SegmentWriter::open(&data, &name, index, encoder, Some(&before), HashMap::new())?;
    let pace = Pace { batch: config.batch, commit_every: config.commit_every };
    if let Err(error) = add_all(&mut writer, dir, passages, pace, &mut progress) {
        if matches!(error, Error::DuplicateId { .. } | Error::IdInUse { .. }) {
            // This corpus cannot be added, so there is nothing to continue.
            writer.abandon()?;
        }
        return Err(error);
    }
    progress(Progress::Merging);
    let (segment, index) = writer.finish()?;
    let mut manifest = manifest;
    manifest.passages.push(segment);
    manifest.sources.push(source.clone());
    folder.write_manifest(&manifest)?;
    index.finish()?;
    Ok(Found::Completed(manifest))
}

/// Gives up an append that was begun and not finished; true when there was one.
pub fn abandon(dir: &Path, config: &LateConfig) -> Result<bool, Error> {
    let (folder, manifest, _lock) = open_for_change(dir)?;
    let index_dir = folder.data(&manifest.data).join(INDEX);
    let Some(writer) = Writer::resume(&index_dir, &config.writer())? else { return Ok(false) };
    if u64::from(writer.first_passage()) < manifest.n_added() {
        // Its passages are named already: finishing is all that there is to do.
        writer.finish()?;
        return Ok(false);
    }
    writer.abandon()?;
    Ok(true)
}

/// Deletes passages: searches return them no more, and their ids can be given to others. Errors, changing nothing, at an id
/// that the index does not have. Returns how many were deleted; their text and vectors stay on disk until [`compact`].
pub fn delete(dir: &Path, ids: &[PassageId]) -> Result<u32, Error> {
    let (folder, manifest, _lock) = open_for_change(dir)?;
    let opened = Opened::open(&folder, &manifest)?;
    let mut numbers = Vec::with_capacity(ids.len());
    for id in ids {
        let number = opened.find(id)?;
        numbers.push(number.ok_or_else(|| Error::UnknownId { dir: dir.to_owned(), id: id.0.clone() })?);
    }
    drop(opened);
    Ok(exsearch_index::delete(&folder.data(&manifest.data).join(INDEX), &numbers)?)
}

/// Makes one segment of the vectors' segments, without the deleted ones, and drops the text of deleted passages. False when
/// there was nothing to do. Until the end there is room for two; readers go on with what they opened. Killed at any point,
/// nothing is lost, and the next call does what is left.
pub fn compact(dir: &Path, config: &LateConfig) -> Result<bool, Error> {
    let (folder, mut manifest, _lock) = open_for_change(dir)?;
    let data = folder.data(&manifest.data);
    // Refuses while an append is unfinished: every file that the manifest does not name is a leftover from here on.
    let mut is_changed = exsearch_index::compact(&data.join(INDEX), &config.writer())?;
    let opened = Opened::open(&folder, &manifest)?;
    let mut copied = false;
    for segment_idx in 0..manifest.passages.len() {
        if let Some(segment) = opened.copy_without_deleted(segment_idx, &manifest.next_segment())? {
            manifest.passages[segment_idx] = segment;
            copied = true;
        }
    }
    drop(opened);
    if copied {
        folder.write_manifest(&manifest)?;
    }
    let is_named = |name: &str| {
        manifest.passages.iter().any(|segment| name.split_once('.').is_some_and(|it| it.0 == segment.name))
    };
    for file in folder.data_files(&manifest.data, |name| name.starts_with(SEGMENT_PREFIX) && !is_named(name))? {
        folder.remove_file(&manifest.data, &file.name)?;
        is_changed = true;
    }
    Ok(is_changed || copied)
}

fn open_for_change(dir: &Path) -> Result<(Folder, Manifest, File), Error> {
    let folder = Folder::new(dir, &FORMAT);
    // Before the lock, which makes a file.
    folder.manifest::<Manifest>()?.ok_or_else(|| folder.incomplete())?;
    let lock = folder.lock()?;
    let manifest = folder.manifest()?.ok_or_else(|| folder.incomplete())?;
    Ok((folder, manifest, lock))
}

fn other_unfinished(dir: &Path, source: &str) -> Error {
    let reason = format!("passages of {source} are being added to it; add those again to finish, or abandon them");
    Error::OtherIndex { dir: dir.to_owned(), reason }
}
