//! Our f32 product against the `gemm` crate's on the shapes of SmolLM2-135M, and MaxSim in floats against bytes, side by
//! side in one run.
use exsearch_kernels::{
    ByteQuery, ByteRows, ByteTable, MatMut, MatRef, Operand, Panels, ResidualTable, SplitMix64, isa, matmul, max_sim,
};
use std::hint::black_box;
use std::time::Instant;

fn main() {
    late_interaction();
    products();
}

/// 256 passages of 115 tokens, 128 dimensions and 2 bits, with centroids anywhere in the table.
fn late_interaction() {
    const DIM: usize = 128;
    const N_TOKENS: usize = 115;
    println!("late interaction: us a passage of {N_TOKENS} tokens, best of 7");
    println!("{:>9} {:>8} {:>8} {:>8} {:>8}", "centroids", "vectors", "decode", "floats", "bytes");
    let mut random = SplitMix64(1);
    for n_centroids in [16_384, 65_536] {
        let mut value = || random.below(1 << 16) as f32 / (1 << 15) as f32 - 1.0;
        let centroids: Vec<f32> = (0..n_centroids * DIM).map(|_| 0.15 * value()).collect();
        let table = ResidualTable::new(2, &[-1.5, -0.45, 0.45, 1.5], &[0.03; DIM]);
        let bytes = ByteTable::new(&table, &centroids);
        let passages: Vec<(Vec<u32>, Vec<u8>)> = (0..256)
            .map(|_| {
                let numbers = (0..N_TOKENS).map(|_| random.below(n_centroids as u64) as u32).collect();
                (numbers, (0..N_TOKENS * table.n_bytes()).map(|_| random.below(256) as u8).collect())
            })
            .collect();
        for n_vectors in [8, 22, 32] {
            let query: Vec<f32> = (0..n_vectors * DIM).map(|_| random.below(99) as f32 - 49.0).collect();
            let (panels, packed) = (Panels::from_transposed(&query, n_vectors, DIM), ByteQuery::new(&query, DIM));
            let (mut vectors, mut rows) = (vec![0.0; N_TOKENS * DIM], ByteRows::default());
            let mut best = [f64::INFINITY; 3];
            for _ in 0..7 {
                let time = |best: &mut f64, score: &mut dyn FnMut(&[u32], &[u8]) -> f32| {
                    let start = Instant::now();
                    for (numbers, codes) in &passages {
                        black_box(score(numbers, codes));
                    }
                    *best = best.min(1e6 * start.elapsed().as_secs_f64() / passages.len() as f64);
                };
                time(&mut best[0], &mut |numbers, codes| {
                    table.decode(&centroids, numbers, codes, &mut vectors);
                    vectors[0]
                });
                time(&mut best[1], &mut |numbers, codes| {
                    table.decode(&centroids, numbers, codes, &mut vectors);
                    max_sim(&panels, &vectors)
                });
                time(&mut best[2], &mut |numbers, codes| bytes.max_sim(&packed, numbers, codes, &mut rows));
            }
            let [decode, floats, bytes] = best;
            println!("{n_centroids:>9} {n_vectors:>8} {decode:>8.2} {floats:>8.2} {bytes:>8.2}");
        }
    }
}

fn products() {
    println!("{:?}, {} threads; GFLOP/s, best of 7", isa(), rayon::current_num_threads());
    println!("{:>5} {:>5} {:>6} {:>8} {:>8} {:>6}", "m", "k", "n", "ours", "gemm", "ratio");
    for (k, n) in [(576, 576), (576, 1536), (1536, 576), (576, 49152)] {
        for m in [1, 8, 32, 64, 345] {
            let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
            let panels = Panels::from_rows(&b, k, n);
            let (mut ours, mut theirs) = (vec![0f32; m * n], vec![0f32; m * n]);
            let flops = 2.0 * (m * k * n) as f64;
            let repeats = ((2e9 / flops) as usize).clamp(1, 400);
            let mut best = [f64::INFINITY; 2];
            for _ in 0..7 {
                let start = Instant::now();
                for _ in 0..repeats {
                    matmul(MatRef::new(&a, m, k), Operand::Panels(&panels), MatMut::new(&mut ours, m, n), false);
                }
                best[0] = best[0].min(start.elapsed().as_secs_f64() / repeats as f64);
                let start = Instant::now();
                for _ in 0..repeats {
                    // SAFETY: the strides describe the row-major slices above.
                    unsafe {
                        gemm::gemm(
                            m, n, k, theirs.as_mut_ptr(), 1, n as isize, false, a.as_ptr(), 1, k as isize, b.as_ptr(), 1,
                            n as isize, 0.0f32, 1.0, false, false, false, gemm::Parallelism::Rayon(0),
                        );
                    }
                }
                best[1] = best[1].min(start.elapsed().as_secs_f64() / repeats as f64);
            }
            assert!((ours[0] - theirs[0]).abs() < 1e-2);
            let [ours, theirs] = best.map(|secs| flops / secs / 1e9);
            println!("{m:>5} {k:>5} {n:>6} {ours:>8.0} {theirs:>8.0} {:>6.2}", ours / theirs);
        }
    }
}
