//! A model small enough that log p(y | x), its gradient and everything that M draws can be are sums over all trajectories.
use crate::{sample, weights};
use exsearch_trainset::{Scored, WeightsConfig};

/// A model that all questions share: it draws one of four trajectories by a table p(z), which is learned, and gives the answer y
/// with p(y | z), which is not. log p(y | x) is a sum over four.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) path: Vec<f64>,
}

pub(crate) const N_PATHS: usize = 4;
/// p(y | z): a row for each trajectory.
pub(crate) const ANSWER: [[f64; 3]; N_PATHS] = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.1, 0.6], [0.2, 0.2, 0.6]];
/// The gold answers of six questions.
pub(crate) const GOLD: [usize; 6] = [0, 0, 0, 1, 1, 2];

impl Model {
    pub(crate) fn new() -> Self {
        Self { path: vec![0.1, 0.2, 0.3, 0.4] }
    }

    /// p(y | x) of a gold answer.
    pub(crate) fn likelihood(&self, y: usize) -> f64 {
        self.path.iter().zip(&ANSWER).map(|(path, answer)| path * answer[y]).sum()
    }

    /// Mean log p(y | x) over the questions.
    pub(crate) fn log_likelihood(&self) -> f64 {
        GOLD.iter().map(|&y| self.likelihood(y).ln()).sum::<f64>() / GOLD.len() as f64
    }

    /// Trajectory `z` of a question, drawn with probability b(z).
    pub(crate) fn scored(&self, question: usize, sample_idx: usize, z: usize, b: f64) -> Scored {
        Scored {
            log_importance_ratio: Some((self.path[z] / b).ln()),
            path_logprob: Some(self.path[z].ln()),
            n_path_tokens: 1,
            ..sample(&question.to_string(), sample_idx as u32, ANSWER[z][GOLD[question]].ln(), 0.0)
        }
    }

    /// log p(y | x) at the start and after each iteration. Every trajectory of every question is weighed once, as if drawn from
    /// the uniform distribution; the M-step, `sum w log p(z)` at its greatest, is the mean of the weights.
    pub(crate) fn climb(&mut self, config: &WeightsConfig, n_iterations: usize) -> Vec<f64> {
        let mut curve = vec![self.log_likelihood()];
        for _ in 0..n_iterations {
            let all: Vec<Scored> = (0..GOLD.len())
                .flat_map(|question| (0..N_PATHS).map(move |z| (question, z)))
                .map(|(question, z)| self.scored(question, z, z, 1.0 / N_PATHS as f64))
                .collect();
            let weights = weights(&all, config);
            let total: f64 = weights.iter().sum();
            self.path = (0..N_PATHS).map(|z| weights.iter().skip(z).step_by(N_PATHS).sum::<f64>() / total).collect();
            curve.push(self.log_likelihood());
        }
        curve
    }
}
