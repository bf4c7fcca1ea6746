//! Products against the definition, and the promise that their bits do not depend on circumstances.
use super::*;
use crate::testing::{instruction_sets, values};
use proptest::prelude::*;

/// The definition, in the order that the kernels promise.
fn naive(a: &[f32], b: &[f32], c: &[f32], (m, k, n): (usize, usize, usize)) -> Vec<f32> {
    let mut out = c.to_vec();
    for row in 0..m {
        for column in 0..n {
            for step in 0..k {
                out[row * n + column] = a[row * k + step].mul_add(b[step * n + column], out[row * n + column]);
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn every_instruction_set_and_layout_gives_the_same_bits(m in 1usize..30, k in 1usize..50, n in 1usize..90, seed: u32) {
        let (a, b, start) = (values(m * k, seed), values(k * n, seed ^ 7), values(m * n, seed ^ 9));
        let transposed_a: Vec<f32> = (0..k * m).map(|i| a[(i % m) * k + i / m]).collect();
        let panels = Panels::from_rows(&b, k, n);
        for accumulate in [false, true] {
            let expected = naive(&a, &b, &if accumulate { start.clone() } else { vec![0.0; m * n] }, (m, k, n));
            for isa in instruction_sets() {
                let operands = [
                    Operand::Panels(&panels),
                    Operand::Rows(MatRef::new(&b, k, n)),
                    Operand::PanelSlice { values: panels.values(), k, n },
                ];
                for operand in operands {
                    for view in [MatRef::new(&a, m, k), MatRef::new(&transposed_a, k, m).transposed()] {
                        let mut c = start.clone();
                        product(isa, view, operand, MatMut::new(&mut c, m, n), accumulate, true);
                        prop_assert_eq!(&c, &expected, "{:?}", isa);
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours_or_on_threads() {
    let (m, k, n) = (201, 300, 97);
    let (a, panels) = (values(m * k, 1), Panels::from_rows(&values(k * n, 2), k, n));
    let mut all = vec![0.0; m * n];
    matmul(MatRef::new(&a, m, k), Operand::Panels(&panels), MatMut::new(&mut all, m, n), false);
    for row in [0, 11, 12, 100, 200] {
        let mut alone = vec![0.0; n];
        matmul_serial(
            MatRef::new(&a[row * k..][..k], 1, k),
            Operand::Panels(&panels),
            MatMut::new(&mut alone, 1, n),
            false,
        );
        assert_eq!(alone, all[row * n..][..n]);
    }
}

#[test]
fn an_empty_inner_dimension_gives_zeros() {
    let mut c = vec![1.0; 6];
    matmul(MatRef::new(&[], 2, 0), Operand::Rows(MatRef::new(&[], 0, 3)), MatMut::new(&mut c, 2, 3), false);
    assert_eq!(c, [0.0; 6]);
}

proptest! {
    /// Sizes on both sides of a tile, a panel and a buffer of 1,024 steps.
    #[test]
    fn products_of_the_backward_pass_keep_the_order(m in 1usize..30, k in 1usize..80, n in 1usize..80, deep: bool, seed: u32) {
        let n = if deep { n + 1000 } else { n };
        // [m, n] times the transpose of [k, n].
        let (a, b, start) = (values(m * n, seed), values(k * n, seed ^ 7), values(m * k, seed ^ 9));
        let panels = Panels::from_rows(&b, k, n);
        let transposed: Vec<f32> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
        let zeros = vec![0.0; m * k];
        for (accumulate, from) in [(false, &zeros), (true, &start)] {
            let mut c = start.clone();
            matmul_transposed(MatRef::new(&a, m, n), &panels, MatMut::new(&mut c, m, k), accumulate);
            prop_assert_eq!(&c, &naive(&a, &transposed, from, (m, n, k)));
        }
        // The transpose of [n, m] times [n, k], into panels.
        let (a, b) = (values(n * m, seed), values(n * k, seed ^ 7));
        let transposed: Vec<f32> = (0..m * n).map(|i| a[(i % n) * m + i / n]).collect();
        for (accumulate, from) in [(false, &zeros), (true, &start)] {
            let mut c = Panels::from_rows(&start, m, k);
            matmul_packed(MatRef::new(&a, n, m).transposed(), MatRef::new(&b, n, k), &mut c, accumulate);
            prop_assert_eq!(c.to_rows(), naive(&transposed, &b, from, (m, n, k)));
            let padding: f32 = c.values().chunks(LANES).enumerate().map(|(line, values)| {
                values[LANES.min(k - line / m * LANES)..].iter().map(|value| value.abs()).sum::<f32>()
            }).sum();
            prop_assert_eq!(padding, 0.0);
        }
    }
}
