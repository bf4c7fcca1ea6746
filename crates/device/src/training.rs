//! Training steps on a device: burn's autodiff through one layer at a time, so that what it keeps is bounded by hand.
//!
//! A layer's output is multiplied with the gradient that came from above and summed; the gradient of that sum is the layer's
//! share of the whole. Either every layer keeps what autodiff recorded, or only its input, and is computed again. The head
//! goes in blocks of targets: `[tokens, v]` never exists.
use crate::adapter::{self, DeviceAdapter};
use crate::decoder::{DeviceDecoder, Places, numbers};
use crate::layer::{cast, product};
use crate::parameters::Parameters;
use burn_tensor::{DType, IndexingUpdateOp, Int, Tensor, TensorData, activation};
use exsearch_trainer::{Adamw, Learner, Lesson, Measured};

/// A model under training.
pub(crate) struct OnDevice<'a> {
    decoder: &'a mut DeviceDecoder,
    trained: Trained<'a>,
    /// Where the trained tensors of each layer begin among all that are trained.
    starts: Vec<usize>,
    /// By trained tensor, in f32; `None` until something was added.
    gradients: Vec<Option<Tensor<2>>>,
    /// AdamW's, likewise.
    moments: Vec<[Tensor<2>; 2]>,
    /// Padded tokens of a batch whose layers may keep everything.
    kept_tokens: usize,
}

/// What is trained.
pub(crate) enum Trained<'a> {
    /// An adapter beside the frozen decoder.
    Adapter(&'a mut DeviceAdapter),
    /// Every parameter. Where the decoder's are not f32, the second ones are, and are what is updated.
    Full(Option<&'a mut Parameters<Tensor<2>>>),
}

/// Sequences that are computed together.
struct Batch<'a> {
    lessons: Vec<&'a Lesson<'a>>,
    places: Places,
    b: usize,
    t: usize,
    /// `[m]`.
    tokens: Tensor<1, Int>,
    targets: Vec<Target>,
    recompute: bool,
}

/// A token to learn.
struct Target {
    /// The row that predicts it.
    row: usize,
    id: u32,
    weight: f32,
}

/// A layer that was computed with autodiff.
struct Recorded {
    x: Tensor<2>,
    leaves: Vec<Tensor<2>>,
    out: Tensor<2>,
}

/// Padded tokens of examples whose layers are computed again, in one batch; a longer example goes alone.
const RECOMPUTED_TOKENS: usize = 4096;
/// Rows of a layer's input, and of its MLP, that autodiff records of a token, about.
const RECORDED_ROWS: [usize; 2] = [16, 5];
/// Numbers in a block of logits: 256 MB, four of which exist at a time.
const HEAD_NUMBERS: usize = 1 << 26;

impl<'a> OnDevice<'a> {
    /// `activation_bytes` are for what layers keep for the backward pass, about.
    pub(crate) fn new(decoder: &'a mut DeviceDecoder, trained: Trained<'a>, activation_bytes: usize) -> Self {
        let config = decoder.config();
        let [inputs, mlps] = RECORDED_ROWS;
        let bytes_a_layer = 4 * (inputs * config.hidden_size + mlps * config.intermediate_size);
        let kept_tokens = activation_bytes / (bytes_a_layer * config.layers.len());
        let (mut starts, mut sizes) = (Vec::new(), Vec::new());
        match &trained {
            Trained::Adapter(adapter) => {
                for pairs in &adapter.layers {
                    starts.push(sizes.len());
                    sizes.extend(adapter::all(pairs).map(Tensor::dims));
                }
            }
            Trained::Full(_) => {
                let first = 1;
                let each = decoder.parameters.layers[0].all().count();
                starts.extend((0..decoder.parameters.layers.len()).map(|layer_idx| first + layer_idx * each));
                sizes.extend(decoder.parameters.all().map(Tensor::dims));
            }
        }
        let zeros = |size: &[usize; 2]| [(); 2].map(|()| Tensor::zeros(*size, (decoder.device(), DType::F32)));
        let moments = sizes.iter().map(zeros).collect();
        let gradients = vec![None; sizes.len()];
        Self { decoder, trained, starts, gradients, moments, kept_tokens }
    }

    fn batch<'l>(&self, lessons: &[&'l Lesson<'l>], recompute: bool) -> Batch<'l> {
        // The tokens behind the last target are not needed.
        let length = |lesson: &Lesson<'_>| lesson.targets().last().unwrap_or(0);
        let (b, t) = (lessons.len(), lessons.iter().map(|lesson| length(lesson)).max().unwrap_or(0));
        let (mut tokens, mut targets) = (vec![0; b * t], Vec::new());
        for (idx, lesson) in lessons.iter().enumerate() {
            for (token, id) in tokens[idx * t..].iter_mut().zip(&lesson.ids[..length(lesson)]) {
                *token = *id as i32;
            }
            targets.extend(lesson.targets().map(|position| Target {
                row: idx * t + position - 1,
                id: lesson.ids[position],
                weight: lesson.weights[position],
            }));
        }
        let places = self.decoder.places(1, t, t, (0..t as i32).collect()).repeated(b);
        let tokens = self.decoder.indices(tokens);
        Batch { lessons: lessons.to_vec(), places, b, t, tokens, targets, recompute }
    }

    /// Which lessons are computed together, longest first, and whether their layers are computed again.
    fn together(&self, lessons: &[Lesson<'_>]) -> Vec<(Vec<usize>, bool)> {
        let mut order: Vec<usize> = (0..lessons.len()).collect();
        // Stable, so that lessons of one length keep their order.
        order.sort_by_key(|idx| std::cmp::Reverse(lessons[*idx].ids.len()));
        let (mut rest, mut batches) = (order.as_slice(), Vec::new());
        while let Some(longest) = rest.first().map(|idx| lessons[*idx].ids.len()) {
            // What is kept is bounded by the tokens of a batch, not of a lesson.
            let recompute = longest > self.kept_tokens;
            let n_tokens = if recompute { RECOMPUTED_TOKENS } else { self.kept_tokens };
            let (together, others) = rest.split_at((n_tokens / longest).clamp(1, rest.len()));
            batches.push((together.to_vec(), recompute));
            rest = others;
        }
        batches
    }

    /// Adds the gradients of a batch and returns its loss and the sum of -log p.
    fn learn_batch(&mut self, mut batch: Batch<'_>) -> (f64, f64) {
        let n_layers = self.decoder.config().layers.len();
        let mut x = self.decoder.embed(&batch.tokens);
        let (mut inputs, mut recorded) = (Vec::new(), Vec::new());
        for layer_idx in 0..n_layers {
            if batch.recompute {
                inputs.push(x.clone());
                x = self.infer(layer_idx, x, &batch);
            } else {
                let layer = self.record(layer_idx, x, &batch);
                x = layer.out.clone().without_autodiff();
                recorded.push(layer);
            }
        }
        let penalty = self.settle(&x, &mut batch);
        let (loss, nll, mut d_x) = self.head(x, &batch.targets);
        for layer_idx in (0..n_layers).rev() {
            let layer = recorded
                .pop()
                .unwrap_or_else(|| self.record(layer_idx, inputs.pop().expect("one input a layer"), &batch));
            let mut gradients = (layer.out * d_x).sum().backward();
            d_x = layer.x.grad_remove(&mut gradients).expect("the input is tracked");
            for (offset, leaf) in layer.leaves.iter().enumerate() {
                if let Some(gradient) = leaf.grad_remove(&mut gradients) {
                    self.add(self.starts[layer_idx] + offset, gradient);
                }
            }
        }
        if let Trained::Full(_) = self.trained {
            let d_x = d_x * self.decoder.config().embedding_scale;
            let size = self.decoder.parameters.embedding.dims();
            let so_far = self.gradients[0].take();
            let so_far = so_far.unwrap_or_else(|| Tensor::zeros(size, (self.decoder.device(), DType::F32)));
            self.gradients[0] = Some(so_far.select_assign(0, batch.tokens.clone(), d_x, IndexingUpdateOp::Add));
        }
        (loss + penalty, nll)
    }

    /// Gives the targets of penalized lessons the weights of their log-probs. Returns by how much their loss is more than that of
    /// the weights.
    fn settle(&self, x: &Tensor<2>, batch: &mut Batch<'_>) -> f64 {
        if !batch.lessons.iter().any(|lesson| lesson.is_penalized()) {
            return 0.0;
        }
        let (logprobs, mut penalty, mut first) = (self.target_logprobs(x, &batch.targets), 0.0, 0);
        for lesson in &batch.lessons {
            let of_lesson = first..first + lesson.targets().count();
            first = of_lesson.end;
            let settled = lesson.settle(&logprobs[of_lesson.clone()]);
            penalty += settled.loss;
            for (target, weight) in batch.targets[of_lesson.clone()].iter_mut().zip(settled.weights) {
                target.weight = weight;
            }
            let counted = batch.targets[of_lesson.clone()].iter().zip(&logprobs[of_lesson]);
            penalty += counted.map(|(target, logprob)| f64::from(target.weight) * f64::from(*logprob)).sum::<f64>();
        }
        penalty
    }

    /// log p of each target, after the last layer's output `x [m, h]`.
    fn target_logprobs(&self, x: &Tensor<2>, targets: &[Target]) -> Vec<f32> {
        let of_block = |targets: &[Target]| {
            let rows = self.decoder.indices(targets.iter().map(|target| target.row as i32).collect());
            let ids = self.decoder.indices(targets.iter().map(|target| target.id as i32).collect());
            let hidden = self.decoder.normalize(x.clone().select(0, rows), Some(&self.decoder.parameters.norm));
            let logits = product(hidden, self.decoder.parameters.head());
            numbers(activation::log_softmax(logits, 1).gather(1, ids.reshape([targets.len(), 1])))
        };
        targets.chunks(self.head_rows()).flat_map(of_block).collect()
    }

    /// Targets in a block of logits.
    fn head_rows(&self) -> usize {
        (HEAD_NUMBERS / self.decoder.config().vocab_size).max(16)
    }

    /// A layer without autodiff.
    fn infer(&self, layer_idx: usize, x: Tensor<2>, batch: &Batch<'_>) -> Tensor<2> {
        let weights = self.decoder.weights(layer_idx, self.adapter());
        self.decoder.layer(layer_idx, &weights, x, &batch.places, &mut batch.own_context())
    }

    /// A layer with autodiff.
    fn record(&self, layer_idx: usize, x: Tensor<2>, batch: &Batch<'_>) -> Recorded {
        let mut weights = self.decoder.weights(layer_idx, self.adapter());
        let leaves = match &mut weights.lora {
            Some((pairs, _)) => {
                adapter::all_mut(pairs).for_each(|tensor| *tensor = leaf(tensor));
                adapter::all(pairs).cloned().collect()
            }
            None => {
                weights.base = weights.base.map(&mut leaf);
                weights.base.all().cloned().collect()
            }
        };
        let x = leaf(&x);
        let out = self.decoder.layer(layer_idx, &weights, x.clone(), &batch.places, &mut batch.own_context());
        Recorded { x, leaves, out }
    }

    fn adapter(&self) -> Option<&DeviceAdapter> {
        match &self.trained {
            Trained::Adapter(adapter) => Some(adapter),
            Trained::Full(_) => None,
        }
    }

    /// Loss, sum of -log p, and the gradient with respect to the last layer's output `x [m, h]`.
    fn head(&mut self, x: Tensor<2>, targets: &[Target]) -> (f64, f64, Tensor<2>) {
        let (mut loss, mut nll) = (0.0, 0.0);
        let mut d_x = x.zeros_like();
        let is_full = matches!(self.trained, Trained::Full(_));
        let place_of_norm = self.starts.len() * self.decoder.parameters.layers[0].all().count() + 1;
        let place_of_head = if self.decoder.parameters.head.is_some() { place_of_norm + 1 } else { 0 };
        for targets in targets.chunks(self.head_rows()) {
            let n = targets.len();
            let rows = self.decoder.indices(targets.iter().map(|target| target.row as i32).collect());
            let ids = self.decoder.indices(targets.iter().map(|target| target.id as i32).collect());
            let weights = targets.iter().map(|target| target.weight).collect::<Vec<_>>();
            let weights = Tensor::<2>::from_data(TensorData::new(weights, [n, 1]), (self.decoder.device(), DType::F32));
            let hidden = leaf(&x.clone().select(0, rows.clone()));
            let [mut norm, mut head] =
                [&self.decoder.parameters.norm, self.decoder.parameters.head()].map(Tensor::clone);
            if is_full {
                [norm, head] = [leaf(&norm), leaf(&head)];
            }
            let logits = product(self.decoder.normalize(hidden.clone(), Some(&norm)), &head);
            let logprobs = activation::log_softmax(logits, 1).gather(1, ids.reshape([n, 1]));
            let mut gradients = (logprobs.clone() * weights).sum().neg().backward();
            for (logprob, target) in numbers(logprobs.without_autodiff()).into_iter().zip(targets) {
                loss -= f64::from(target.weight) * f64::from(logprob);
                nll -= f64::from(logprob);
            }
            let d_hidden = hidden.grad_remove(&mut gradients).expect("the input is tracked");
            d_x = d_x.select_assign(0, rows, d_hidden, IndexingUpdateOp::Add);
            for (place, leaf) in [(place_of_norm, norm), (place_of_head, head)] {
                if let Some(gradient) = leaf.grad_remove(&mut gradients) {
                    self.add(place, gradient);
                }
            }
        }
        (loss, nll, d_x)
    }

    fn add(&mut self, place: usize, gradient: Tensor<2>) {
        let gradient = cast(gradient, DType::F32);
        self.gradients[place] = Some(match self.gradients[place].take() {
            Some(so_far) => so_far + gradient,
            None => gradient,
        });
    }
}

/// A tensor whose gradient is wanted.
fn leaf(tensor: &Tensor<2>) -> Tensor<2> {
    tensor.clone().autodiff().require_grad()
}

impl Batch<'_> {
    /// Attention over the sequences themselves.
    fn own_context(&self) -> impl FnMut(Tensor<2>, Tensor<2>) -> [Tensor<3>; 2] + use<> {
        let (b, t) = (self.b, self.t);
        move |keys, values| {
            [keys, values].map(|rows| {
                let [_, width] = rows.dims();
                rows.reshape([b, t, width])
            })
        }
    }
}

impl Learner for OnDevice<'_> {
    fn vocab_size(&self) -> usize {
        self.decoder.config().vocab_size
    }

    fn max_positions(&self) -> usize {
        self.decoder.max_positions()
    }

    fn learn(&mut self, batch: &[Lesson<'_>]) -> Measured {
        self.gradients.fill(None);
        let (mut loss, mut nll) = (0.0, 0.0);
        for (lessons, recompute) in self.together(batch) {
            let lessons: Vec<&Lesson<'_>> = lessons.into_iter().map(|idx| &batch[idx]).collect();
            let learned = self.learn_batch(self.batch(&lessons, recompute));
            loss += learned.0;
            nll += learned.1;
        }
        let squares: Vec<Tensor<1>> =
            self.gradients.iter().flatten().map(|gradient| (gradient.clone() * gradient.clone()).sum()).collect();
        let grad_norm = numbers(Tensor::cat(squares, 0)).into_iter().map(f64::from).sum::<f64>().sqrt();
        Measured { loss, nll, grad_norm }
    }

    fn logprobs(&mut self, batch: &[Lesson<'_>]) -> Vec<Vec<f32>> {
        let mut found = vec![Vec::new(); batch.len()];
        for (lessons, _) in self.together(batch) {
            let together = self.batch(&lessons.iter().map(|idx| &batch[*idx]).collect::<Vec<_>>(), true);
            let mut x = self.decoder.embed(&together.tokens);
            for layer_idx in 0..self.decoder.config().layers.len() {
                x = self.infer(layer_idx, x, &together);
            }
            let mut logprobs = self.target_logprobs(&x, &together.targets).into_iter();
            for idx in lessons {
                found[idx] = logprobs.by_ref().take(batch[idx].targets().count()).collect();
            }
        }
        found
    }

    fn update(&mut self, settings: &Adamw, factor: f32) {
        let parameters: Vec<&mut Tensor<2>> = match &mut self.trained {
            Trained::Adapter(adapter) => adapter.layers.iter_mut().flat_map(adapter::all_mut).collect(),
            Trained::Full(Some(masters)) => masters.all_mut().collect(),
            Trained::Full(None) => self.decoder.parameters.all_mut().collect(),
        };
        for ((parameter, gradient), moments) in parameters.into_iter().zip(&self.gradients).zip(&mut self.moments) {
            if let Some(gradient) = gradient {
                adamw(settings, parameter, gradient.clone() * factor, moments);
            }
        }
        if let Trained::Full(Some(masters)) = &self.trained {
            for (parameter, master) in self.decoder.parameters.all_mut().zip(masters.all()) {
                *parameter = cast(master.clone(), parameter.dtype());
            }
        }
    }
}

/// One update as `exsearch-kernels` computes it (arXiv 1711.05101).
fn adamw(settings: &Adamw, parameter: &mut Tensor<2>, gradient: Tensor<2>, [first, second]: &mut [Tensor<2>; 2]) {
    let Adamw { learning_rate, beta1, beta2, epsilon, weight_decay, step } = *settings;
    let correction1 = 1.0 - beta1.powi(step);
    let correction2 = (1.0 - beta2.powi(step)).sqrt();
    *first = first.clone() * beta1 + gradient.clone() * (1.0 - beta1);
    *second = second.clone() * beta2 + gradient.clone() * gradient * (1.0 - beta2);
    let step = first.clone() / (second.clone().sqrt() / correction2 + epsilon) * (learning_rate / correction1);
    *parameter = parameter.clone() * (1.0 - learning_rate * weight_decay) - step;
}
