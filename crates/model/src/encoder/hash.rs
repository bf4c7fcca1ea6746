//! What an encoder is made of -> its fingerprint.
//!
//! Numbers and texts are hashed, not files: the same checkpoint has the same fingerprint whether it came in one file or in
//! shards, from the hub or from a package.
use sha2::{Digest, Sha256};

pub(super) struct ContentHash(Sha256);

impl ContentHash {
    pub(super) fn new() -> Self {
        Self(Sha256::new())
    }

    pub(super) fn add_text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    #[cfg(feature = "ort")]
    pub(super) fn add_bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(super) fn add_ids(&mut self, ids: &[u32]) {
        self.0.update((ids.len() as u64).to_le_bytes());
        ids.iter().for_each(|id| self.0.update(id.to_le_bytes()));
    }

    pub(super) fn add_numbers(&mut self, numbers: &[f32]) {
        self.0.update((numbers.len() as u64).to_le_bytes());
        let mut block = [0u8; 4096];
        for part in numbers.chunks(block.len() / 4) {
            let bytes = &mut block[..part.len() * 4];
            for (bytes, number) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(part) {
                *bytes = number.to_le_bytes();
            }
            self.0.update(&*bytes);
        }
    }

    /// `sha256:` and 64 hexadecimal digits.
    pub(super) fn finish(self) -> String {
        let digits: String = self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{digits}")
    }
}
