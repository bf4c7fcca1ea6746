//! Our f32 product against the `gemm` crate's on the shapes of SmolLM2-135M, side by side in one run.
use exsearch_kernels::{MatMut, MatRef, Operand, Panels, isa, matmul};
use std::time::Instant;

fn main() {
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
