//! A [`Student`] as the loop's [`Learner`]: one example after the other, their gradients added.
use crate::{Adamw, Learner, Measured, Student};
use exsearch_model::decoder::{BackwardWeights, Decoder, Gradients};
use exsearch_schema::Example;

pub(crate) struct OnCpu<'a> {
    student: Student<'a>,
    gradients: Gradients,
    /// AdamW's, for each of the gradients' slices.
    moments: Vec<[Vec<f32>; 2]>,
    /// Backward weights that follow the parameters; an adapter's decoder does not change and brings its own.
    own_backward: Option<BackwardWeights>,
}

impl<'a> OnCpu<'a> {
    pub(crate) fn new(student: Student<'a>) -> Self {
        let mut gradients = match &student {
            Student::Adapter { adapter, .. } => Gradients::of_adapter(adapter),
            Student::Full(decoder) => Gradients::of_parameters(decoder.parameters()),
        };
        let zeros = |slice: &mut [f32]| [vec![0.0; slice.len()], vec![0.0; slice.len()]];
        let moments = gradients.slices_mut().into_iter().map(zeros).collect();
        let own_backward = own_backward(&student);
        Self { student, gradients, moments, own_backward }
    }

    fn decoder(&self) -> &Decoder {
        match &self.student {
            Student::Adapter { decoder, .. } => decoder,
            Student::Full(decoder) => decoder,
        }
    }
}

fn own_backward(student: &Student<'_>) -> Option<BackwardWeights> {
    match student {
        Student::Adapter { .. } => None,
        Student::Full(decoder) => Some(BackwardWeights::new(decoder.parameters())),
    }
}

impl Learner for OnCpu<'_> {
    fn vocab_size(&self) -> usize {
        self.decoder().config().vocab_size
    }

    fn max_positions(&self) -> usize {
        self.decoder().max_positions()
    }

    fn learn(&mut self, batch: &[&Example], n_targets: usize, recompute_above_tokens: usize) -> Measured {
        self.gradients.clear();
        let (mut loss, mut nll) = (0.0, 0.0);
        for example in batch {
            let weight = example.weight / n_targets as f32;
            let weights: Vec<f32> = example.loss_mask.iter().map(|mask| f32::from(*mask) * weight).collect();
            let (decoder, adapter, backward) = match &self.student {
                Student::Adapter { decoder, backward, adapter } => (*decoder, Some(&**adapter), *backward),
                Student::Full(decoder) => {
                    (&**decoder, None, self.own_backward.as_ref().expect("made for full training"))
                }
            };
            let recompute = example.ids.len() > recompute_above_tokens;
            let learned = decoder.learn(adapter, backward, (&example.ids, &weights), &mut self.gradients, recompute);
            loss += learned.loss;
            nll += learned.nll;
        }
        Measured { loss, nll, grad_norm: self.gradients.norm() }
    }

    fn update(&mut self, settings: &Adamw, factor: f32) {
        let parameters = match &mut self.student {
            Student::Adapter { adapter, .. } => adapter.slices_mut(),
            Student::Full(decoder) => decoder.parameters_mut().slices_mut(),
        };
        let gradients = self.gradients.slices_mut();
        for ((parameters, gradient), [first, second]) in parameters.into_iter().zip(gradients).zip(&mut self.moments) {
            exsearch_kernels::adamw(settings, factor, parameters, gradient, first, second);
        }
        self.own_backward = own_backward(&self.student);
    }
}
