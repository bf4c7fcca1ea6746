//! A decoder's parameters in the order and shapes of its files, for any kind of content: names, tensors, gradients.
use exsearch_model::config::DecoderConfig;
use exsearch_model::decoder::{Norm, Projection};

/// One layer.
#[derive(Clone)]
pub(crate) struct Layer<T> {
    /// `[1, h]`, those of heads `[1, d]`, where the model has them.
    pub(crate) norms: [Option<T>; 6],
    /// `[out, in]`.
    pub(crate) linears: [T; 7],
    /// `[1, out]`, where the model has them.
    pub(crate) biases: [Option<T>; 7],
}

/// All of them.
#[derive(Clone)]
pub(crate) struct Parameters<T> {
    /// `[v, h]`.
    pub(crate) embedding: T,
    /// First to last.
    pub(crate) layers: Vec<Layer<T>>,
    /// The last RMSNorm `[1, h]`.
    pub(crate) norm: T,
    /// `[v, h]`, of a model that does not tie it to the embedding.
    pub(crate) head: Option<T>,
}

/// A tensor of a file: its name and shape.
pub(crate) type Place = (String, Vec<usize>);

impl<T> Layer<T> {
    /// The weight of a norm, where the layer has it.
    pub(crate) fn norm(&self, norm: Norm) -> Option<&T> {
        self.norms[norm as usize].as_ref()
    }

    /// The same with other contents, made in the order of [`Layer::all`].
    pub(crate) fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Layer<U> {
        Layer {
            norms: self.norms.each_ref().map(|it| it.as_ref().map(&mut *f)),
            linears: self.linears.each_ref().map(&mut *f),
            biases: self.biases.each_ref().map(|it| it.as_ref().map(&mut *f)),
        }
    }

    /// Its contents.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.norms.iter().flatten().chain(&self.linears).chain(self.biases.iter().flatten())
    }

    /// Its contents, to change, in the same order.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.norms.iter_mut().flatten().chain(&mut self.linears).chain(self.biases.iter_mut().flatten())
    }
}

impl Parameters<Place> {
    /// What a model of this configuration has in files.
    pub(crate) fn of(config: &DecoderConfig) -> Self {
        let (h, v) = (config.hidden_size, config.vocab_size);
        let layer = |layer_idx: usize| {
            let name = |path: &str, kind: &str| format!("model.layers.{layer_idx}.{path}.{kind}");
            Layer {
                norms: Norm::ALL.map(|norm| {
                    norm.size(config).map(|size| (name(norm.path(config.output_norms), "weight"), vec![size]))
                }),
                linears: Projection::ALL.map(|projection| {
                    let (k, n) = projection.sizes(config);
                    (name(projection.path(), "weight"), vec![n, k])
                }),
                biases: Projection::ALL.map(|projection| {
                    let (_, n) = projection.sizes(config);
                    projection.has_bias(config).then(|| (name(projection.path(), "bias"), vec![n]))
                }),
            }
        };
        Self {
            embedding: ("model.embed_tokens.weight".into(), vec![v, h]),
            layers: (0..config.layers.len()).map(layer).collect(),
            norm: ("model.norm.weight".into(), vec![h]),
            head: (!config.tie_word_embeddings).then(|| ("lm_head.weight".into(), vec![v, h])),
        }
    }
}

impl<T> Parameters<T> {
    /// The same with other contents, made in the order of [`Parameters::all`].
    pub(crate) fn map<U>(&self, mut f: impl FnMut(&T) -> U) -> Parameters<U> {
        Parameters {
            embedding: f(&self.embedding),
            layers: self.layers.iter().map(|layer| layer.map(&mut f)).collect(),
            norm: f(&self.norm),
            head: self.head.as_ref().map(f),
        }
    }

    /// Its contents.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.embedding)
            .chain(self.layers.iter().flat_map(Layer::all))
            .chain([&self.norm])
            .chain(&self.head)
    }

    /// Its contents, to change, in the same order.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut T> {
        std::iter::once(&mut self.embedding)
            .chain(self.layers.iter_mut().flat_map(Layer::all_mut))
            .chain([&mut self.norm])
            .chain(&mut self.head)
    }

    /// What gives the logits.
    pub(crate) fn head(&self) -> &T {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}
