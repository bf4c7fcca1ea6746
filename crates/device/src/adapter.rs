//! LoRA adapters on a device (arXiv 2106.09685), always in f32, and their way from and to `exsearch-model`'s.
use burn_tensor::{DType, Device, Tensor, TensorData};
use exsearch_kernels::Panels;
use exsearch_model::decoder::{Adapter, LoraConfig, LoraPair};

/// A `[r, in]` and B `[out, r]` for each projection of a layer that has them.
pub(crate) type Pairs = [Option<[Tensor<2>; 2]>; 7];

/// An adapter.
#[derive(Clone)]
pub(crate) struct DeviceAdapter {
    pub(crate) config: LoraConfig,
    pub(crate) layers: Vec<Pairs>,
}

impl DeviceAdapter {
    pub(crate) fn upload(adapter: &Adapter, device: &Device) -> Self {
        let tensor = |panels: &Panels| {
            let data = TensorData::new(panels.to_transposed_rows(), [panels.n(), panels.k()]);
            Tensor::from_data(data, (device, DType::F32))
        };
        let pair = |pair: &LoraPair| [tensor(&pair.a), tensor(&pair.b)];
        let layers = adapter.layers.iter().map(|layer| layer.each_ref().map(|it| it.as_ref().map(pair))).collect();
        Self { config: adapter.config().clone(), layers }
    }

    pub(crate) fn download(&self) -> Adapter {
        let panels = |tensor: &Tensor<2>| {
            let [n, k] = tensor.dims();
            Panels::from_transposed(&crate::decoder::numbers(tensor.clone()), n, k)
        };
        let pair = |[a, b]: &[Tensor<2>; 2]| LoraPair { a: panels(a), b: panels(b) };
        let layers = self.layers.iter().map(|layer| layer.each_ref().map(|it| it.as_ref().map(pair))).collect();
        Adapter::from_pairs(self.config.clone(), layers)
    }

    /// s = α / r.
    pub(crate) fn scale(&self) -> f32 {
        self.config.alpha / self.config.rank as f32
    }
}

/// The tensors of a layer's pairs, in a fixed order.
pub(crate) fn all(pairs: &Pairs) -> impl Iterator<Item = &Tensor<2>> {
    pairs.iter().flatten().flatten()
}

/// The same, to change.
pub(crate) fn all_mut(pairs: &mut Pairs) -> impl Iterator<Item = &mut Tensor<2>> {
    pairs.iter_mut().flatten().flatten()
}
