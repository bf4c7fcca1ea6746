//! A [`Student`] as the loop's [`Learner`]: several short examples in a pass, their gradients added.
use crate::{Adamw, Learner, Lesson, Measured, Student};
use exsearch_model::decoder::{Decoder, Gradients, Learned, Reweigh, Sequence, Tape};

pub(crate) struct OnCpu<'a> {
    student: Student<'a>,
    gradients: Gradients,
    /// Whether the gradients are all 0, as an update leaves them.
    is_clear: bool,
    tape: Tape,
    /// AdamW's, for each of the gradients' slices.
    moments: Vec<[Vec<f32>; 2]>,
}

/// Tokens of short examples that are computed in one pass: what a pass costs beside its tokens, such as reading all weights,
/// is then nothing.
const PASS_TOKENS: usize = 512;

impl<'a> OnCpu<'a> {
    /// `activation_bytes` are for what layers keep for the backward pass.
    pub(crate) fn new(student: Student<'a>, activation_bytes: usize) -> Self {
        let mut gradients = match &student {
            Student::Adapter { adapter, .. } => Gradients::of_adapter(adapter),
            Student::Full(decoder) => Gradients::of_parameters(decoder.parameters()),
        };
        let zeros = |slice: &mut [f32]| [vec![0.0; slice.len()], vec![0.0; slice.len()]];
        let moments = gradients.slices_mut().into_iter().map(zeros).collect();
        Self { student, gradients, is_clear: true, tape: Tape::new(activation_bytes), moments }
    }

    /// Adds the gradients of lessons to none.
    fn pass_over(&mut self, batch: &[Lesson<'_>], mut reweigh: Option<Reweigh<'_>>) -> Vec<Learned> {
        let Self { student, gradients, is_clear, tape, .. } = self;
        if !std::mem::take(is_clear) {
            gradients.clear();
        }
        let sequences: Vec<Sequence<'_>> =
            batch.iter().map(|Lesson { ids, weights, .. }| Sequence { ids, weights }).collect();
        let mut n_done = 0;
        let mut learn = |sequences: &[Sequence<'_>]| {
            let first = n_done;
            n_done += sequences.len();
            let mut of_pass;
            let reweigh: Option<Reweigh<'_>> = match &mut reweigh {
                None => None,
                Some(reweigh) => {
                    of_pass = |idx, logprobs: &[f32]| reweigh(first + idx, logprobs);
                    Some(&mut of_pass)
                }
            };
            match student {
                Student::Adapter { decoder, adapter } => {
                    decoder.learn_reweighed(Some(adapter), sequences, reweigh, gradients, tape)
                }
                Student::Full(decoder) => decoder.learn_reweighed(None, sequences, reweigh, gradients, tape),
            }
        };
        passes(&sequences).map(&mut learn).collect()
    }

    fn decoder(&self) -> &Decoder {
        match &self.student {
            Student::Adapter { decoder, .. } => decoder,
            Student::Full(decoder) => decoder,
        }
    }
}

impl Learner for OnCpu<'_> {
    fn vocab_size(&self) -> usize {
        self.decoder().config().vocab_size
    }

    fn max_positions(&self) -> usize {
        self.decoder().max_positions()
    }

    fn learn(&mut self, batch: &[Lesson<'_>]) -> Measured {
        let (mut loss, mut nll) = (0.0, 0.0);
        if batch.iter().any(Lesson::is_penalized) {
            self.pass_over(
                batch,
                Some(&mut |idx, logprobs| {
                    let settled = batch[idx].settle(logprobs);
                    loss += settled.loss;
                    nll -= logprobs.iter().copied().map(f64::from).sum::<f64>();
                    settled.weights
                }),
            );
        } else {
            for learned in self.pass_over(batch, None) {
                loss += learned.loss;
                nll += learned.nll;
            }
        }
        Measured { loss, nll, grad_norm: self.gradients.norm() }
    }

    fn logprobs(&mut self, batch: &[Lesson<'_>]) -> Vec<Vec<f32>> {
        let mut found = vec![Vec::new(); batch.len()];
        self.pass_over(
            batch,
            Some(&mut |idx, logprobs| {
                found[idx] = logprobs.to_vec();
                vec![0.0; logprobs.len()]
            }),
        );
        found
    }

    fn update(&mut self, settings: &Adamw, factor: f32) {
        let parameters = match &mut self.student {
            Student::Adapter { adapter, .. } => adapter.slices_mut(),
            Student::Full(decoder) => decoder.parameters_mut().slices_mut(),
        };
        let gradients = self.gradients.slices_mut();
        for ((parameters, gradient), [first, second]) in parameters.into_iter().zip(gradients).zip(&mut self.moments) {
            settings.update(factor, parameters, gradient, [first, second]);
        }
        self.is_clear = true;
    }
}

/// Cuts a step's sequences into passes: as many neighbours as [`PASS_TOKENS`] holds, or one that is longer.
fn passes<'s, 'a>(sequences: &'s [Sequence<'a>]) -> impl Iterator<Item = &'s [Sequence<'a>]> {
    let mut rest = sequences;
    std::iter::from_fn(move || {
        let ends = rest.iter().scan(0, |n_tokens, sequence| {
            *n_tokens += sequence.ids.len();
            Some(*n_tokens)
        });
        let n_fit = ends.take_while(|n_tokens| *n_tokens <= PASS_TOKENS).count();
        let (pass, later) = rest.split_at(n_fit.max(1).min(rest.len()));
        rest = later;
        (!pass.is_empty()).then_some(pass)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_neighbours_share_a_pass_and_a_long_one_has_its_own() {
        let ids = vec![0; 3 * PASS_TOKENS];
        let weights = vec![0.0; ids.len()];
        let check = |lengths: &[usize], expected: &[usize]| {
            let sequences: Vec<Sequence<'_>> =
                lengths.iter().map(|&n| Sequence { ids: &ids[..n], weights: &weights[..n] }).collect();
            let sizes: Vec<usize> = passes(&sequences).map(<[_]>::len).collect();
            assert_eq!(sizes, expected, "{lengths:?}");
        };
        check(&[], &[]);
        check(&[100, 200, 212, 1], &[3, 1]);
        check(&[513, 10, 1500, 512], &[1, 1, 1, 1]);
    }
}
