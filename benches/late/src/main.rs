//! Our late-interaction index beside next-plaid on the same vectors: what building, searching and adding cost.
//!
//! Commands, as `runs/bench.sh late` calls them; one process a build, so that its peak memory is its own:
//!
//! ```text
//! build ours VECTORS OUT N_PASSAGES         more passages than there are come by splicing
//! build peer VECTORS OUT [OURS]             with the centroids of our index instead of its own, which saves it k-means
//! splice peer INDEX OUT N_PASSAGES          next-plaid's index of a spliced corpus
//! exact VECTORS OUT N_PASSAGES N_QUERIES    the ten best by MaxSim over the vectors themselves
//! search VECTORS OURS PEER EXACT            both in turn, each compared with its own widest search, the other's and EXACT
//! curve VECTORS OURS EXACT                  recall and time by what is looked at
//! add ours|peer VECTORS INDEX               1,000 passages more
//! ```
use anyhow::{Context, Result, bail};
use exsearch_index::{Codec, CodecConfig, LateIndex, SearchOptions, Writer, WriterConfig, exact_search};
use measure::{Clock, DIM, Vectors, disk_bytes, overlap, peak_mb};
use peer::Peer;
use std::{fs, path::Path};

mod measure;
mod peer;
mod splice;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["build", "ours", vectors, out, n] => build_ours(Path::new(vectors), Path::new(out), n.parse()?),
        ["build", "peer", vectors, out] => build_peer(Path::new(vectors), Path::new(out), None),
        ["build", "peer", vectors, out, ours] => build_peer(Path::new(vectors), Path::new(out), Some(Path::new(ours))),
        ["splice", "peer", small, out, n] => splice::peer(Path::new(small), Path::new(out), n.parse()?),
        ["exact", vectors, out, n, n_queries] => {
            exact(Path::new(vectors), Path::new(out), n.parse()?, n_queries.parse()?)
        }
        ["search", vectors, ours, peer, exact] => {
            search(Path::new(vectors), Path::new(ours), Path::new(peer), Path::new(exact))
        }
        ["curve", vectors, ours, exact] => curve(Path::new(vectors), Path::new(ours), Path::new(exact)),
        ["add", who, vectors, index] => add(who, Path::new(vectors), Path::new(index)),
        _ => bail!("see the head of src/main.rs"),
    }
}

fn build_ours(small: &Path, out: &Path, n_passages: usize) -> Result<()> {
    let lengths = Vectors::open(small, "passages")?.lengths;
    let n_tokens = splice::n_tokens(&lengths, n_passages);
    let (clock, config) = (Clock::start(), CodecConfig::default());
    // The first passages are as good as random ones: they are in no order.
    let n_sample = config.n_sample_tokens(n_tokens) as usize;
    let mut sample = Vec::with_capacity(n_sample * DIM);
    for passage in Vectors::open(small, "passages")?.take(n_passages) {
        if sample.len() >= n_sample * DIM {
            break;
        }
        sample.extend(passage);
    }
    let codec = Codec::train(sample, DIM, n_tokens, &config)?;
    let (n, norm, cpu) = (codec.n_centroids(), codec.mean_norm(), clock.cpu());
    println!("trained {n} centroids, mean residual {norm:.3}: CPU {cpu:.1} s, peak {:.0} MiB", peak_mb());
    let mut writer = Writer::create(out, &codec, "bench", &WriterConfig::default())?;
    splice::vectors(small, n_passages, |passage| Ok(writer.push(&passage).map(drop)?))?;
    writer.commit()?;
    println!("encoded: CPU {:.1} s", clock.cpu());
    writer.finish()?;
    let held_mb = lengths.iter().sum::<usize>() as f64 * (DIM * 4) as f64 / 1024.0 / 1024.0;
    report("ours", &clock, out, n_tokens, held_mb);
    println!("{n_passages} passages, {n_tokens} tokens");
    Ok(())
}

fn build_peer(vectors: &Path, out: &Path, ours: Option<&Path>) -> Result<()> {
    let passages = Vectors::open(vectors, "passages")?;
    let n_tokens = passages.n_tokens();
    let passages: Vec<_> = passages.map(peer::rows).collect();
    let (clock, before) = (Clock::start(), peak_mb());
    let peer = match ours {
        Some(ours) => Peer::build_with(&passages, LateIndex::open(ours)?.codec().centroids(), out)?,
        None => Peer::build(&passages, out)?,
    };
    println!("{} centroids", peer.0.num_partitions());
    report("next-plaid", &clock, out, n_tokens, before);
    Ok(())
}

fn add(who: &str, vectors: &Path, index: &Path) -> Result<()> {
    let passages: Vec<Vec<f32>> = Vectors::open(vectors, "passages")?.take(1000).collect();
    let clock = match who {
        "ours" => {
            let clock = Clock::start();
            let mut writer = Writer::append(index, "bench", &WriterConfig::default())?;
            for passage in &passages {
                writer.push(passage)?;
            }
            writer.finish()?;
            LateIndex::open(index)?;
            clock
        }
        _ => {
            let mut peer = Peer::open(index)?;
            let passages: Vec<_> = passages.into_iter().map(peer::rows).collect();
            let clock = Clock::start();
            peer.add(&passages)?;
            clock
        }
    };
    println!("{who}: CPU {:.3} s, wall {:.3} s to add 1,000 passages", clock.cpu(), clock.wall());
    Ok(())
}

/// `held_mb` is what the caller held before: next-plaid takes all vectors at once.
fn report(who: &str, clock: &Clock, out: &Path, n_tokens: u64, held_mb: f64) {
    println!(
        "{who}: CPU {:.1} s, wall {:.1} s, peak {:.0} MiB (of them {held_mb:.0} its input), {:.1} bytes a token",
        clock.cpu(),
        clock.wall(),
        peak_mb(),
        disk_bytes(out) as f64 / n_tokens as f64
    );
}

/// Passages found for each question, and CPU milliseconds a question.
struct Run {
    name: String,
    found: Vec<Vec<u32>>,
    cpu_ms: f64,
}

fn run(name: String, queries: &[Vec<f32>], mut search: impl FnMut(usize) -> Result<Vec<u32>>) -> Result<Run> {
    // Not counted: pages and caches get warm.
    for idx in 0..queries.len().min(20) {
        search(idx)?;
    }
    let clock = Clock::start();
    let found = (0..queries.len()).map(&mut search).collect::<Result<Vec<_>>>()?;
    Ok(Run { name, found, cpu_ms: 1e3 * clock.cpu() / queries.len() as f64 })
}

fn ours(index: &LateIndex, queries: &[Vec<f32>], name: &str, options: &SearchOptions) -> Result<Run> {
    let SearchOptions { n_probe, n_groups, n_candidates, n_exact, .. } = options;
    let name = format!("ours {name} {n_probe} probes {n_groups} groups {n_candidates} candidates {n_exact} exact");
    run(name, queries, |idx| Ok(index.search(&queries[idx], options)?.iter().map(|hit| hit.passage).collect()))
}

/// As much as could matter.
fn wide() -> SearchOptions {
    SearchOptions { n_probe: 128, n_groups: 256, n_candidates: 8192, n_exact: 8192, ..Default::default() }
}

fn search(vectors: &Path, ours_dir: &Path, peer_dir: &Path, exact: &Path) -> Result<()> {
    let Judged { queries, exact } = read_exact(vectors, exact)?;
    let index = LateIndex::open(ours_dir)?;
    println!("{:?}", index.info());
    let peer = Peer::open(peer_dir)?;
    let rows: Vec<_> = queries.iter().map(|query| peer::rows(query.clone())).collect();
    let with =
        |name: &str, setting| run(format!("next-plaid {name}"), &queries, |idx| peer.search(&rows[idx], setting));
    let mut runs = Vec::new();
    for _ in 0..2 {
        runs.push(with("default", peer::DEFAULT)?);
        runs.push(ours(&index, &queries, "default", &SearchOptions::default())?);
        runs.push(with("widest", peer::WIDEST)?);
    }
    runs.push(ours(&index, &queries, "wide", &wide())?);
    let (theirs, own) = (runs[runs.len() - 2].found.clone(), runs[runs.len() - 1].found.clone());
    println!(
        "{} queries, {} query vectors",
        queries.len(),
        queries.iter().map(|query| query.len() / DIM).sum::<usize>()
    );
    println!("{:<66} {:>8} {:>9} {:>9} {:>9}", "top-10 overlap with:", "CPU ms", "its wide", "our wide", "exact");
    for run in &runs {
        let overlaps = [&theirs, &own, &exact].map(|expected| overlap(&run.found, expected));
        println!("{:<66} {:>8.2} {:>9.4} {:>9.4} {:>9.4}", run.name, run.cpu_ms, overlaps[0], overlaps[1], overlaps[2]);
    }
    let least = |names: &str| {
        runs.iter().filter(|run| run.name.starts_with(names)).map(|run| run.cpu_ms).fold(f64::INFINITY, f64::min)
    };
    for setting in ["default", "widest"] {
        let ratio = least(&format!("next-plaid {setting}")) / least("ours default");
        println!("CPU a query: next-plaid {setting} takes {ratio:.1} times ours by default");
    }
    Ok(())
}

/// Passages that are compared with the queries together: 600 MB.
const BATCH: usize = 10_000;

/// Writes the ten best of each query, one after the other.
fn exact(vectors: &Path, out: &Path, n_passages: usize, n_queries: usize) -> Result<()> {
    let queries: Vec<Vec<f32>> = Vectors::open(vectors, "questions")?.take(n_queries).collect();
    let mut best: Vec<Vec<(f32, u32)>> = vec![Vec::new(); queries.len()];
    let mut batch: Vec<Vec<f32>> = Vec::new();
    let mut n_done = 0;
    splice::vectors(vectors, n_passages, |passage| {
        batch.push(passage);
        if batch.len() == BATCH || n_done + batch.len() == n_passages {
            for (query, best) in queries.iter().zip(&mut best) {
                let found = exact_search(query, &batch, DIM, 10);
                best.extend(found.iter().map(|hit| (hit.score, n_done as u32 + hit.passage)));
                best.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
                best.truncate(10);
            }
            n_done += batch.len();
            batch.clear();
        }
        Ok(())
    })?;
    let numbers = best.iter().flatten().flat_map(|(_, passage)| passage.to_le_bytes());
    Ok(fs::write(out, numbers.collect::<Vec<u8>>())?)
}

/// The queries that [`exact`] looked at, and the ten passages that it found for each.
struct Judged {
    queries: Vec<Vec<f32>>,
    exact: Vec<Vec<u32>>,
}

fn read_exact(vectors: &Path, path: &Path) -> Result<Judged> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let number = |word: &[u8]| u32::from_le_bytes(word.try_into().unwrap());
    let exact: Vec<Vec<u32>> = bytes.chunks_exact(40).map(|ten| ten.chunks_exact(4).map(number).collect()).collect();
    let queries = Vectors::open(vectors, "questions")?.take(exact.len()).collect();
    Ok(Judged { queries, exact })
}

/// Recall against exact MaxSim and against a wide search of the same index, by what is looked at.
fn curve(vectors: &Path, dir: &Path, exact: &Path) -> Result<()> {
    let Judged { queries, exact } = read_exact(vectors, exact)?;
    let index = LateIndex::open(dir)?;
    let widest = ours(&index, &queries, "", &wide())?;
    println!(
        "{:>7} {:>7} {:>10} {:>7} {:>8} {:>9} {:>9}",
        "probe", "groups", "candidates", "exact", "CPU ms", "own wide", "exact"
    );
    let print = |options: SearchOptions| -> Result<()> {
        let run = ours(&index, &queries, "", &options)?;
        let [own, exact] = [&widest.found, &exact].map(|expected| overlap(&run.found, expected));
        let SearchOptions { n_probe, n_groups, n_candidates, n_exact, .. } = options;
        println!(
            "{n_probe:>7} {n_groups:>7} {n_candidates:>10} {n_exact:>7} {:>8.2} {own:>9.4} {exact:>9.4}",
            run.cpu_ms
        );
        Ok(())
    };
    for n_probe in [4, 8, 16, 32, 64] {
        for n_candidates in [64, 128, 256, 512, 1024] {
            print(SearchOptions { n_probe, n_candidates, ..Default::default() })?;
        }
    }
    for n_groups in [8, 16, 24, 64, 1 << 20] {
        print(SearchOptions { n_groups, ..Default::default() })?;
    }
    for n_exact in [20, 24, 64, 256] {
        print(SearchOptions { n_exact, ..Default::default() })?;
    }
    println!("own wide search: CPU {:.2} ms, overlap with exact {:.4}", widest.cpu_ms, overlap(&widest.found, &exact));
    Ok(())
}
