//! A file as read-only memory: what is read of it is loaded by the system, page by page, and shared between processes.
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::path::Path;

/// A file of which the bytes are read where they lie. It can be renamed or unlinked; the bytes stay until this is dropped.
///
/// For files that no one changes once they have their name. Where a foreign program shortens one that is in use, the system
/// ends the process at the next read behind its end, as for every memory map.
pub struct MappedFile {
    /// None for an empty file, which cannot be mapped.
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps the file.
    #[expect(unsafe_code, reason = "a memory map is only as constant as its file")]
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: by the contract above nobody writes to the file while it is mapped.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map: Some(map) })
    }

    /// The whole file. The first byte is aligned to a page.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Says that reads jump about, so that the system does not read ahead.
    pub fn advise_random(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            // A hint only; where it is refused, everything works as before.
            let _ = map.advise(memmap2::Advice::Random);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_as_its_bytes_even_after_it_is_unlinked() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        std::fs::write(&path, b"some bytes").expect("a file");
        let mapped = MappedFile::open(&path).expect("it is there");
        mapped.advise_random();
        std::fs::remove_file(&path).expect("it was there");
        assert_eq!(mapped.bytes(), b"some bytes");
        std::fs::write(&path, b"").expect("a file");
        assert!(MappedFile::open(&path).expect("empty files are fine").bytes().is_empty());
        assert!(MappedFile::open(&dir.path().join("none")).is_err());
    }
}
