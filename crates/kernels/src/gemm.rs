//! Matrix products: `C[m, n] (+)= A[m, k] · B[k, n]`, cut into tiles and spread over threads.
mod backward;

pub use backward::{matmul_packed, matmul_transposed};

use crate::isa::{Isa, isa};
use crate::panels::{LANES, Panels};
use crate::tile::{self, ROWS, Tile};
use rayon::prelude::*;

/// A strided view of a matrix `[rows, columns]`.
#[derive(Clone, Copy)]
pub struct MatRef<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

/// A row-strided view of a matrix `[rows, columns]` to write.
pub struct MatMut<'a> {
    values: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

/// The right-hand side of a product.
#[derive(Clone, Copy)]
pub enum Operand<'a> {
    /// Packed.
    Panels(&'a Panels),
    /// Row-major as it lies; its columns must be contiguous.
    Rows(MatRef<'a>),
    /// The first `n` columns of panels `[k][32]` that lie one behind the other; `k` rows.
    PanelSlice {
        /// At least `ceil(n / 32)` panels.
        values: &'a [f32],
        /// Rows.
        k: usize,
        /// Columns.
        n: usize,
    },
}

impl<'a> MatRef<'a> {
    /// A row-major `[rows, columns]`.
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// Rows of `columns` values that start `row_stride` apart.
    pub fn strided(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * row_stride + columns <= values.len(), "the matrix lies within its values");
        Self { values, rows, columns, row_stride, column_stride: 1 }
    }

    /// How many rows it has.
    pub fn n_rows(&self) -> usize {
        self.rows
    }

    /// Some of its rows, one behind the other.
    pub fn rows(self, rows: std::ops::Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "no more rows than there are");
        let values = &self.values[(rows.start * self.row_stride).min(self.values.len())..];
        Self { values, rows: rows.len(), ..self }
    }

    /// The transpose.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

impl<'a> MatMut<'a> {
    /// A row-major `[rows, columns]`.
    pub fn new(values: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// Rows of `columns` values that start `row_stride` apart.
    pub fn strided(values: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * row_stride + columns <= values.len(), "the matrix lies within its values");
        assert!(row_stride >= columns || rows <= 1, "rows to write do not overlap");
        Self { values, rows, columns, row_stride }
    }
}

impl Operand<'_> {
    fn k(&self) -> usize {
        match self {
            Self::Panels(panels) => panels.k(),
            Self::Rows(rows) => rows.rows,
            Self::PanelSlice { k, .. } => *k,
        }
    }

    fn n(&self) -> usize {
        match self {
            Self::Panels(panels) => panels.n(),
            Self::Rows(rows) => rows.columns,
            Self::PanelSlice { n, .. } => *n,
        }
    }

    /// The panel's first value, the distance between its rows, and whether 32 columns may be read.
    fn panel(&self, panel_idx: usize) -> (*const f32, usize, bool) {
        match self {
            Self::Panels(panels) => (panels.values()[panel_idx * panels.k() * LANES..].as_ptr(), LANES, true),
            Self::Rows(rows) => (rows.values[panel_idx * LANES..].as_ptr(), rows.row_stride, false),
            Self::PanelSlice { values, k, .. } => (values[panel_idx * k * LANES..].as_ptr(), LANES, true),
        }
    }
}

/// `c = a · b`, or `c += a · b` with `accumulate`, on all threads of the current rayon pool.
pub fn matmul(a: MatRef<'_>, b: Operand<'_>, c: MatMut<'_>, accumulate: bool) {
    product(isa(), a, b, c, accumulate, true);
}

/// [`matmul`] on the calling thread alone, for callers that are parallel already.
pub fn matmul_serial(a: MatRef<'_>, b: Operand<'_>, c: MatMut<'_>, accumulate: bool) {
    product(isa(), a, b, c, accumulate, false);
}

/// Products below this many multiply-adds (about 20 us on a core) are not worth waking another thread for,
const MIN_PARALLEL_WORK: usize = 1 << 20;

/// unless they read as many values of B as this from memory, which takes as long.
const MIN_PARALLEL_VALUES: usize = 1 << 17;

/// Rows that a thread takes at a time: 16 tiles, so that a panel is read from the nearer cache 15 times of 16.
const ROWS_A_TASK: usize = 16 * ROWS;

fn product(isa: Isa, a: MatRef<'_>, b: Operand<'_>, c: MatMut<'_>, accumulate: bool, parallel: bool) {
    let (m, k, n) = (a.rows, a.columns, b.n());
    assert_eq!(k, b.k(), "the inner dimensions agree");
    assert_eq!((m, n), (c.rows, c.columns), "the product's shape is C's");
    if let Operand::Rows(rows) = b {
        assert_eq!(rows.column_stride, 1, "B's columns are contiguous");
    }
    if let Operand::PanelSlice { values, k, n } = b {
        assert!(values.len() >= n.div_ceil(LANES) * k * LANES, "the slice holds its panels");
    }
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            for row in c.values.chunks_mut(c.row_stride).take(m) {
                row[..n].fill(0.0);
            }
        }
        return;
    }
    let c = Output(c.values.as_mut_ptr(), c.row_stride);
    let n_panels = n.div_ceil(LANES);
    let n_row_tasks = m.div_ceil(ROWS_A_TASK);
    let task = |task_idx: usize| {
        let (panel_idx, row_task) = (task_idx / n_row_tasks, task_idx % n_row_tasks);
        let first_column = panel_idx * LANES;
        let (panel, b_k, b_padded) = b.panel(panel_idx);
        let last_row = m.min((row_task + 1) * ROWS_A_TASK);
        for row in (row_task * ROWS_A_TASK..last_row).step_by(ROWS) {
            #[expect(unsafe_code, reason = "tiles of C are written by different threads")]
            // SAFETY: A's and B's extents were checked when their views were made and above; this tile of C belongs to
            // this task alone; `isa` was detected.
            unsafe {
                let tile = Tile {
                    a: a.values.as_ptr().add(row * a.row_stride),
                    a_row: a.row_stride,
                    a_k: a.column_stride,
                    b: panel,
                    b_k,
                    c: c.at(row, first_column),
                    c_row: c.1,
                    m: ROWS.min(last_row - row),
                    k,
                    n: LANES.min(n - first_column),
                    b_padded,
                    accumulate,
                };
                tile::run(isa, &tile);
            }
        }
    };
    let n_tasks = n_panels * n_row_tasks;
    if parallel && n_tasks > 1 && (m * n * k >= MIN_PARALLEL_WORK || n * k >= MIN_PARALLEL_VALUES) {
        (0..n_tasks).into_par_iter().for_each(task);
    } else {
        (0..n_tasks).for_each(task);
    }
}

/// C's first value and the distance between its rows.
pub(crate) struct Output(pub(crate) *mut f32, pub(crate) usize);

#[expect(unsafe_code, reason = "shared by the tasks of one product")]
// SAFETY: tasks write disjoint tiles.
unsafe impl Sync for Output {}

impl Output {
    #[expect(unsafe_code, reason = "pointer arithmetic")]
    pub(crate) unsafe fn at(&self, row: usize, column: usize) -> *mut f32 {
        // SAFETY: the caller stays within C.
        unsafe { self.0.add(row * self.1 + column) }
    }
}

#[cfg(test)]
mod tests;
