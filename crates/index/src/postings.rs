//! From centroids to the passages that have a token there: made by counting, read where it lies.
//!
//! A postings file is the lists of all centroids in blocks of 32, then a u64 for each block, where it begins, and one for where
//! the last one ends. A block is the length in bytes of each of its lists, then the lists. A list is its first passage, then
//! the distance to each next one less 1. Lengths, passages and distances are varints: 7 bits a byte, lowest first, the
//! highest bit set on all but the last. Passages are counted from the segment's first.
use crate::IndexError;
use crate::error::{damaged, io_error};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Lists of a block: their lengths take some 40 bytes, read from one or two cache lines.
const BLOCK: usize = 32;

/// What is in the file is not a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A postings file of `n_centroids` lists.
#[derive(Clone, Copy)]
pub(crate) struct Postings<'a> {
    bytes: &'a [u8],
    n_centroids: usize,
}

impl<'a> Postings<'a> {
    pub(crate) fn new(bytes: &'a [u8], n_centroids: usize) -> Self {
        Self { bytes, n_centroids }
    }

    /// The list of a centroid.
    pub(crate) fn list(&self, centroid: usize) -> Result<&'a [u8], Malformed> {
        let n_blocks = self.n_centroids.div_ceil(BLOCK);
        let n_data = self.bytes.len().checked_sub(8 * (n_blocks + 1)).ok_or(Malformed)?;
        let (data, directory) = self.bytes.split_at(n_data);
        let start = |block: usize| {
            let bytes = directory.get(8 * block..8 * block + 8).ok_or(Malformed)?;
            Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes")) as usize)
        };
        let block = centroid / BLOCK;
        let mut rest = data.get(start(block)?..start(block + 1)?).ok_or(Malformed)?;
        let n_lists = BLOCK.min(self.n_centroids - block * BLOCK);
        let (mut before, mut length) = (0, 0);
        for list in 0..n_lists {
            let n_bytes = read_varint(&mut rest)? as usize;
            match list.cmp(&(centroid % BLOCK)) {
                std::cmp::Ordering::Less => before += n_bytes,
                std::cmp::Ordering::Equal => length = n_bytes,
                std::cmp::Ordering::Greater => {}
            }
        }
        rest.get(before..before + length).ok_or(Malformed)
    }
}

/// Calls `each` with every passage of a list, ascending.
#[inline(always)]
pub(crate) fn for_each(mut list: &[u8], mut each: impl FnMut(u32) -> Result<(), Malformed>) -> Result<(), Malformed> {
    if list.is_empty() {
        return Ok(());
    }
    let mut passage = read_varint(&mut list)?;
    each(passage)?;
    while !list.is_empty() {
        passage = passage.checked_add(read_varint(&mut list)?).and_then(|sum| sum.checked_add(1)).ok_or(Malformed)?;
        each(passage)?;
    }
    Ok(())
}

#[inline(always)]
fn read_varint(bytes: &mut &[u8]) -> Result<u32, Malformed> {
    let (first, rest) = bytes.split_first().ok_or(Malformed)?;
    *bytes = rest;
    if *first < 0x80 {
        return Ok(u32::from(*first));
    }
    let mut value = u32::from(*first & 0x7f);
    for shift in [7, 14, 21, 28] {
        let (next, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        value |= u32::from(*next & 0x7f).checked_shl(shift).ok_or(Malformed)?;
        if *next < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn write_varint(mut value: u32, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Where the codes of a segment are, to be read several times.
pub(crate) struct CodesFile<'a> {
    pub(crate) path: &'a Path,
    pub(crate) code_bytes: usize,
    pub(crate) n_centroids: usize,
    /// Tokens of each passage.
    pub(crate) lengths: &'a [u32],
}

impl CodesFile<'_> {
    /// Calls `each` with every token's passage and centroid, in the order of the file.
    fn for_each(&self, mut each: impl FnMut(u32, usize)) -> Result<(), IndexError> {
        let file = File::open(self.path).map_err(|error| io_error(self.path, error))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut bytes = Vec::new();
        for (passage, length) in self.lengths.iter().enumerate() {
            bytes.resize(*length as usize * self.code_bytes, 0);
            reader.read_exact(&mut bytes).map_err(|error| io_error(self.path, error))?;
            for code in bytes.chunks_exact(self.code_bytes) {
                let code = read_code(code);
                if code as usize >= self.n_centroids {
                    return Err(damaged(self.path, format!("it names centroid {code} of {}", self.n_centroids)));
                }
                each(passage as u32, code as usize);
            }
        }
        Ok(())
    }

    /// Writes the postings of all centroids. Holds about `memory_bytes`, and reads the codes as often as that takes: once to
    /// count, then once for each part of the centroids of which the tokens' passages fit (4 bytes a token).
    pub(crate) fn write_postings(
        &self,
        memory_bytes: usize,
        mut write: impl FnMut(&[u8]) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let mut counts = vec![0u64; self.n_centroids.next_multiple_of(BLOCK)];
        self.for_each(|_, centroid| counts[centroid] += 1)?;
        let mut directory = Vec::new();
        let mut n_written = 0u64;
        let mut first = 0;
        while first < self.n_centroids {
            let mut last = first;
            let mut n_tokens = 0;
            while last < self.n_centroids {
                let block = counts[last..last + BLOCK].iter().sum::<u64>();
                if last > first && (n_tokens + block) * 4 > memory_bytes as u64 {
                    break;
                }
                n_tokens += block;
                last += BLOCK;
            }
            let last = last.min(self.n_centroids);
            let (starts, passages) = self.passages_of(first..last, &counts)?;
            for block in (first..last).step_by(BLOCK) {
                directory.extend(n_written.to_le_bytes());
                let bytes = block_bytes((block..last.min(block + BLOCK)).map(|centroid| {
                    let (start, end) = starts[centroid - first];
                    &passages[start..end]
                }));
                write(&bytes)?;
                n_written += bytes.len() as u64;
            }
            first = last;
        }
        directory.extend(n_written.to_le_bytes());
        write(&directory)
    }

    /// The different passages of each centroid of a part, ascending: where they begin and end, and all of them.
    #[expect(clippy::type_complexity, reason = "two vectors that belong together")]
    fn passages_of(
        &self,
        part: std::ops::Range<usize>,
        counts: &[u64],
    ) -> Result<(Vec<(usize, usize)>, Vec<u32>), IndexError> {
        let mut ranges = Vec::with_capacity(part.len());
        let mut n = 0;
        for count in &counts[part.clone()] {
            ranges.push((n, n));
            n += *count as usize;
        }
        let mut passages = vec![0u32; n];
        self.for_each(|passage, centroid| {
            if part.contains(&centroid) {
                let (start, end) = &mut ranges[centroid - part.start];
                if start == end || passages[*end - 1] != passage {
                    passages[*end] = passage;
                    *end += 1;
                }
            }
        })?;
        Ok((ranges, passages))
    }
}

fn block_bytes<'a>(lists: impl Iterator<Item = &'a [u32]>) -> Vec<u8> {
    let (mut lengths, mut data) = (Vec::new(), Vec::new());
    for list in lists {
        let before = data.len();
        let mut next = 0;
        for passage in list {
            write_varint(passage - next, &mut data);
            next = passage.wrapping_add(1);
        }
        write_varint((data.len() - before) as u32, &mut lengths);
    }
    lengths.append(&mut data);
    lengths
}

/// A code of two, three or four bytes.
#[inline(always)]
pub(crate) fn read_code(bytes: &[u8]) -> u32 {
    match *bytes {
        [a, b] => u32::from_le_bytes([a, b, 0, 0]),
        [a, b, c] => u32::from_le_bytes([a, b, c, 0]),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        _ => unreachable!("codes have two to four bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn read(postings: Postings<'_>, centroid: usize) -> Result<Vec<u32>, Malformed> {
        let mut passages = Vec::new();
        for_each(postings.list(centroid)?, |passage| {
            passages.push(passage);
            Ok(())
        })?;
        Ok(passages)
    }

    fn write(codes: &[Vec<u32>], n_centroids: usize, memory_bytes: usize) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let bytes: Vec<u8> = codes.iter().flatten().flat_map(|code| code.to_le_bytes()[..3].to_vec()).collect();
        std::fs::write(file.path(), bytes).expect("it is written");
        let lengths: Vec<u32> = codes.iter().map(|codes| codes.len() as u32).collect();
        let codes = CodesFile { path: file.path(), code_bytes: 3, n_centroids, lengths: &lengths };
        let mut bytes = Vec::new();
        codes
            .write_postings(memory_bytes, |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })
            .expect("the codes are in range");
        bytes
    }

    proptest! {
        #[test]
        fn lists_hold_what_the_codes_say_whatever_the_memory(
            codes in prop::collection::vec(prop::collection::vec(0u32..100, 0..9), 0..60), memory_bytes in 0usize..2000,
        ) {
            let bytes = write(&codes, 100, memory_bytes);
            for centroid in 0..100u32 {
                let expected: Vec<u32> =
                    (0..codes.len() as u32).filter(|passage| codes[*passage as usize].contains(&centroid)).collect();
                prop_assert_eq!(read(Postings::new(&bytes, 100), centroid as usize), Ok(expected));
            }
        }

        #[test]
        fn numbers_of_any_size_are_read_back(passages: BTreeSet<u32>) {
            let passages: Vec<u32> = passages.into_iter().collect();
            let bytes = block_bytes([&passages[..]].into_iter());
            let directory: Vec<u8> = [0, bytes.len() as u64].iter().flat_map(|at| at.to_le_bytes()).collect();
            let file = [bytes, directory].concat();
            prop_assert_eq!(read(Postings::new(&file, 1), 0), Ok(passages));
        }

        #[test]
        fn any_bytes_are_lists_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for centroid in 0..70 {
                let _ = read(Postings::new(&bytes, 70), centroid);
            }
        }
    }
}
