//! Vectors from disk, and what a piece of work costs: CPU seconds, wall seconds, peak memory, bytes on disk.
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::Instant;

pub const DIM: usize = 128;

/// Texts' vectors as encode.py writes them: `<name>.f32` and `<name>.lens`.
pub struct Vectors {
    reader: BufReader<File>,
    pub lengths: Vec<usize>,
    next: usize,
}

impl Vectors {
    pub fn open(dir: &Path, name: &str) -> Result<Self> {
        let lengths =
            fs::read(dir.join(format!("{name}.lens"))).with_context(|| format!("{name} in {}", dir.display()))?;
        let lengths = lengths.chunks_exact(4).map(|n| i32::from_le_bytes(n.try_into().unwrap()) as usize).collect();
        let reader = BufReader::with_capacity(1 << 20, File::open(dir.join(format!("{name}.f32")))?);
        Ok(Self { reader, lengths, next: 0 })
    }

    pub fn n_tokens(&self) -> u64 {
        self.lengths.iter().map(|length| *length as u64).sum()
    }
}

impl Iterator for Vectors {
    type Item = Vec<f32>;

    fn next(&mut self) -> Option<Vec<f32>> {
        let length = *self.lengths.get(self.next)?;
        self.next += 1;
        let mut bytes = vec![0; length * DIM * 4];
        self.reader.read_exact(&mut bytes).expect("the lengths say what is there");
        Some(bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect())
    }
}

/// CPU and wall seconds since it was made.
pub struct Clock {
    cpu: f64,
    wall: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { cpu: cpu_secs(), wall: Instant::now() }
    }

    pub fn cpu(&self) -> f64 {
        cpu_secs() - self.cpu
    }

    pub fn wall(&self) -> f64 {
        self.wall.elapsed().as_secs_f64()
    }
}

/// User and system time of this process.
fn cpu_secs() -> f64 {
    // SAFETY: getrusage fills the struct.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let secs = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    secs(usage.ru_utime) + secs(usage.ru_stime)
}

/// Peak resident memory of this process, mapped files included, in MiB.
pub fn peak_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

pub fn disk_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(
            |entry| {
                if entry.path().is_dir() { disk_bytes(&entry.path()) } else { entry.metadata().map_or(0, |m| m.len()) }
            },
        )
        .sum()
}

/// The mean part of the first ten of `expected` that is among the first ten of `found`.
pub fn overlap(found: &[Vec<u32>], expected: &[Vec<u32>]) -> f64 {
    let parts = found.iter().zip(expected).map(|(found, expected)| {
        let expected = &expected[..expected.len().min(10)];
        let n_common = found.iter().take(10).filter(|passage| expected.contains(passage)).count();
        n_common as f64 / expected.len().max(1) as f64
    });
    parts.sum::<f64>() / expected.len().max(1) as f64
}
