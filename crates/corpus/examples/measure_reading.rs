//! Counts what a file holds and how fast it is read: `measure_reading passages|questions|gold FILE`.
//! Bad lines are skipped and the first few are shown.
use exsearch_corpus::{BadLines, PassageReader, SkippedLine, read_gold_trajectories, read_questions};
use std::error::Error;
use std::io::Write;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [kind, path] = arguments.as_slice() else {
        return Err("usage: measure_reading passages|questions|gold FILE".into());
    };
    let mut out = std::io::stdout().lock();
    let started = Instant::now();
    let mut show = |found: String, bytes: u64, n_skipped: u64, first: &[SkippedLine]| -> std::io::Result<()> {
        let secs = started.elapsed().as_secs_f64();
        writeln!(out, "{found}, {n_skipped} skipped, {:.0} MB/s", bytes as f64 / 1e6 / secs)?;
        first.iter().try_for_each(|skipped| writeln!(out, "  line {}: {}", skipped.line, skipped.reason))
    };
    match kind.as_str() {
        "passages" => {
            let mut reader = PassageReader::open(path, BadLines::Skip)?;
            let (mut n_passages, mut n_text_bytes) = (0_u64, 0);
            for passage in reader.by_ref() {
                n_passages += 1;
                n_text_bytes += passage?.text.len();
            }
            let found = format!("{n_passages} passages, {n_text_bytes} bytes of text");
            show(found, reader.bytes_read(), reader.n_skipped(), reader.first_skipped())?;
        }
        "questions" => {
            let read = read_questions(path, None, BadLines::Skip)?;
            let bytes = std::fs::metadata(path)?.len();
            show(format!("{} questions", read.rows.len()), bytes, read.skipped.n_lines, &read.skipped.first)?;
        }
        "gold" => {
            let read = read_gold_trajectories(path, &[], BadLines::Skip)?;
            let bytes = std::fs::metadata(path)?.len();
            let found = format!("{} trajectories, {} incomplete", read.rows.len(), read.n_incomplete);
            show(found, bytes, read.skipped.n_lines, &read.skipped.first)?;
        }
        other => return Err(format!("no kind `{other}`").into()),
    }
    Ok(())
}
