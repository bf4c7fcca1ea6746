//! Keys and values of many sequences in one pool of rows. A sequence is a list of row numbers, so that sequences with a common
//! beginning share its rows and nothing is moved when one ends.
use crate::decoder::DeviceDecoder;
use burn_tensor::{DType, Device, IndexingUpdateOp, Int, Tensor};

/// The pool.
pub struct KvPool {
    /// By layer, keys and values: `[rows, kv heads · d]`. Empty only while a row is being written.
    layers: Vec<[Option<Tensor<2>>; 2]>,
    /// How many sequences use each row. Row 0 belongs to nobody: padding is written to it and read from it.
    users: Vec<u32>,
    free: Vec<u32>,
    width: usize,
    dtype: DType,
    device: Device,
}

/// Rows of a pool that was just made: 30 layers x 2 x 192 floats = 46 KB a row for SmolLM2-135M.
const FIRST_ROWS: usize = 1024;

impl KvPool {
    /// A small pool; it grows.
    pub fn new(decoder: &DeviceDecoder) -> Self {
        let config = decoder.config();
        let mut pool = Self {
            layers: vec![[None, None]; config.layers.len()],
            users: Vec::new(),
            free: Vec::new(),
            width: config.n_kv_heads * config.head_dim,
            dtype: decoder.precision().dtype(),
            device: decoder.device().clone(),
        };
        pool.grow(FIRST_ROWS);
        pool.free.retain(|row| *row != 0);
        pool
    }

    /// Rows that exist, in use or not.
    pub(crate) fn n_rows(&self) -> usize {
        self.users.len()
    }

    /// Rows that nobody uses.
    pub(crate) fn n_free(&self) -> usize {
        self.free.len()
    }

    /// Makes it `n_rows` large.
    pub(crate) fn grow(&mut self, n_rows: usize) {
        let n_more = n_rows - self.users.len();
        let more = || Tensor::<2>::zeros([n_more, self.width], (&self.device, self.dtype));
        for side in self.layers.iter_mut().flatten() {
            *side = Some(match side.take() {
                Some(rows) => Tensor::cat(vec![rows, more()], 0),
                None => more(),
            });
        }
        self.free.extend((self.users.len() as u32..n_rows as u32).rev());
        self.users.resize(n_rows, 0);
    }

    /// Takes `n` free rows, of which there must be as many, and appends them to a sequence.
    pub(crate) fn take(&mut self, n: usize, rows: &mut Vec<u32>) {
        assert!(n <= self.free.len(), "{n} rows of {} free ones", self.free.len());
        for row in self.free.drain(self.free.len() - n..).rev() {
            self.users[row as usize] = 1;
            rows.push(row);
        }
    }

    /// Another user of the rows.
    pub(crate) fn share(&mut self, rows: &[u32]) -> Vec<u32> {
        for row in rows {
            self.users[*row as usize] += 1;
        }
        rows.to_vec()
    }

    /// A user of the rows leaves.
    pub(crate) fn release(&mut self, rows: &[u32]) {
        for row in rows {
            let users = &mut self.users[*row as usize];
            *users -= 1;
            if *users == 0 {
                self.free.push(*row);
            }
        }
    }

    /// Writes a layer's new keys and values `[m, kv heads · d]` to rows `[m]`.
    pub(crate) fn write(&mut self, layer_idx: usize, rows: &Tensor<1, Int>, keys: Tensor<2>, values: Tensor<2>) {
        for (side, new) in self.layers[layer_idx].iter_mut().zip([keys, values]) {
            let old = side.take().expect("every layer has rows");
            let new = crate::layer::cast(new, self.dtype);
            *side = Some(old.select_assign(0, rows.clone(), new, IndexingUpdateOp::Assign));
        }
    }

    /// A layer's keys and values in the rows `[b · k]`: each `[b · k, kv heads · d]`.
    pub(crate) fn read(&self, layer_idx: usize, rows: &Tensor<1, Int>) -> [Tensor<2>; 2] {
        self.layers[layer_idx].each_ref().map(|side| {
            let side = side.as_ref().expect("every layer has rows");
            side.clone().select(0, rows.clone())
        })
    }
}
