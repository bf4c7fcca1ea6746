//! The right-hand side of a matrix product, packed so that a kernel reads it front to back.
//!
//! Layout of B `[k, n]`: panels of 32 columns, each `[k][32]`, columns past n filled with zeros.

/// Columns a panel: two AVX-512 registers.
pub const LANES: usize = 32;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A packed matrix B `[k, n]`.
#[derive(Clone)]
pub struct Panels {
    lines: Vec<Line>,
    k: usize,
    n: usize,
}

impl Panels {
    /// A matrix of zeros `[k, n]`.
    pub fn zeros(k: usize, n: usize) -> Self {
        let n_lines = n.div_ceil(LANES) * k * (LANES / 16);
        Self { lines: vec![Line([0.0; 16]); n_lines], k, n }
    }

    /// Packs `rows`, a row-major `[k, n]`.
    pub fn from_rows(rows: &[f32], k: usize, n: usize) -> Self {
        assert_eq!(rows.len(), k * n, "a [k, n] matrix");
        let mut panels = Self::zeros(k, n);
        for (panel_idx, panel) in panels.values_mut().chunks_exact_mut(k.max(1) * LANES).enumerate() {
            let first = panel_idx * LANES;
            let width = LANES.min(n - first);
            for (row_idx, line) in panel.chunks_exact_mut(LANES).enumerate() {
                line[..width].copy_from_slice(&rows[row_idx * n + first..][..width]);
            }
        }
        panels
    }

    /// Packs the transpose of `rows`, a row-major `[n, k]`: the layout of a linear layer's weight `[out, in]`.
    pub fn from_transposed(rows: &[f32], n: usize, k: usize) -> Self {
        assert_eq!(rows.len(), k * n, "an [n, k] matrix");
        use rayon::prelude::*;
        let mut panels = Self::zeros(k, n);
        panels.values_mut().par_chunks_exact_mut(k.max(1) * LANES).enumerate().for_each(|(panel_idx, panel)| {
            let first = panel_idx * LANES;
            for column in 0..LANES.min(n - first) {
                let row = &rows[(first + column) * k..][..k];
                for (line, value) in panel.chunks_exact_mut(LANES).zip(row) {
                    line[column] = *value;
                }
            }
        });
        panels
    }

    /// The transpose `[n, k]`, packed.
    pub fn transposed(&self) -> Self {
        // The row-major [k, n] form is the [n, k] matrix's transpose.
        Self::from_transposed(&self.to_rows(), self.k, self.n)
    }

    /// The matrix row-major `[k, n]`.
    pub fn to_rows(&self) -> Vec<f32> {
        let mut rows = vec![0.0; self.k * self.n];
        for (panel_idx, panel) in self.values().chunks_exact(self.k.max(1) * LANES).enumerate() {
            let first = panel_idx * LANES;
            let width = LANES.min(self.n - first);
            for (row_idx, line) in panel.chunks_exact(LANES).enumerate() {
                rows[row_idx * self.n + first..][..width].copy_from_slice(&line[..width]);
            }
        }
        rows
    }

    /// The transpose row-major `[n, k]`: a linear layer's weight as files hold it.
    pub fn to_transposed_rows(&self) -> Vec<f32> {
        let mut rows = vec![0.0; self.k * self.n];
        for (panel_idx, panel) in self.values().chunks_exact(self.k.max(1) * LANES).enumerate() {
            let first = panel_idx * LANES;
            for column in 0..LANES.min(self.n - first) {
                let row = &mut rows[(first + column) * self.k..][..self.k];
                for (value, line) in row.iter_mut().zip(panel.chunks_exact(LANES)) {
                    *value = line[column];
                }
            }
        }
        rows
    }

    /// Rows of B.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of B.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Every stored value in the packed order, the padding included (it is zero and must stay so).
    #[expect(unsafe_code, reason = "a slice of lines is a slice of sixteen times as many floats")]
    pub fn values(&self) -> &[f32] {
        // SAFETY: Line is repr(C) around [f32; 16] with size 64, so the lines are contiguous floats.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 16) }
    }

    /// As [`Panels::values`], to change: elementwise updates do not depend on the order.
    #[expect(unsafe_code, reason = "a slice of lines is a slice of sixteen times as many floats")]
    pub fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `values`, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * 16) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_round_trips(k in 1usize..40, n in 1usize..80) {
            let rows: Vec<f32> = (0..k * n).map(|value| value as f32).collect();
            let panels = Panels::from_rows(&rows, k, n);
            prop_assert_eq!(panels.to_rows(), rows.clone());
            prop_assert_eq!(Panels::from_transposed(&panels.to_transposed_rows(), n, k).to_rows(), rows.clone());
            prop_assert_eq!(panels.transposed().to_transposed_rows(), rows);
        }
    }
}
