//! The kinds of weights: what each gives on given scores, and what learning from it does to a model small enough that
//! log p(y | x) and its gradient are sums over all trajectories.
use exsearch_trainset::{RewardKind, Rewards, ScoreFailure, Scored, TrainsetError, WeightKind, WeightsConfig, weigh};
use proptest::prelude::*;

/// A trajectory with log p(y | x, z) and the score of its own answer.
fn sample(question_id: &str, sample_idx: u32, logprob: f64, reward: f64) -> Scored {
    Scored {
        question_id: question_id.to_owned(),
        sample_idx,
        alias_logprobs: vec![logprob as f32],
        log_importance_ratio: Some(0.0),
        path_logprob: Some(0.0),
        n_path_tokens: 0,
        n_answer_tokens: 1,
        rewards: Some(Rewards { exact_match: reward.floor(), f1: reward, accuracy: reward.ceil() }),
        failure: None,
    }
}

fn failed(question_id: &str, sample_idx: u32) -> Scored {
    let failure = Some(ScoreFailure::NoAnswerContext);
    Scored { alias_logprobs: Vec::new(), rewards: None, failure, ..sample(question_id, sample_idx, 0.0, 0.0) }
}

fn weights(scored: &[Scored], config: &WeightsConfig) -> Vec<f64> {
    weigh(scored, config).expect("valid").weights.iter().map(|weight| weight.weight).collect()
}

#[track_caller]
fn assert_close(found: &[f64], expect: &[f64]) {
    let is_close = found.len() == expect.len() && found.iter().zip(expect).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(is_close, "{found:?} are not {expect:?}");
}

fn of(kind: WeightKind) -> WeightsConfig {
    WeightsConfig { kind, ..WeightsConfig::default() }
}

#[test]
fn each_kind_gives_what_its_definition_says() {
    let ln = f64::ln;
    let samples = [
        sample("q", 0, ln(0.1), 0.5),
        sample("q", 1, ln(0.4), 0.0),
        sample("q", 2, ln(0.3), 1.0),
        failed("q", 3),
        sample("r", 0, ln(0.2), 0.0),
    ];
    assert_close(&weights(&samples, &of(WeightKind::Posterior)), &[0.125, 0.5, 0.375, 0.0, 1.0]);
    assert_close(&weights(&samples, &of(WeightKind::Uniform)), &[0.25, 0.25, 0.25, 0.0, 1.0]);
    assert_close(&weights(&samples, &of(WeightKind::BestOf)), &[0.0, 1.0, 0.0, 0.0, 1.0]);
    assert_close(&weights(&samples, &of(WeightKind::Rejection)), &[0.0, 0.0, 1.0, 0.0, 0.0]);
    assert_close(&weights(&samples, &of(WeightKind::Reward)), &[0.0, 0.0, 1.0, 0.0, 0.0]);
    let by = |reward| WeightsConfig { reward, ..of(WeightKind::Reward) };
    assert_close(&weights(&samples, &by(RewardKind::F1)), &[1.0 / 3.0, 0.0, 2.0 / 3.0, 0.0, 0.0]);
    assert_close(&weights(&samples, &by(RewardKind::Accuracy)), &[0.5, 0.0, 0.5, 0.0, 0.0]);
}

#[test]
fn equally_good_best_trajectories_leave_it_to_the_first_and_failed_ones_to_none() {
    let samples = [sample("q", 0, -3.0, 0.0), sample("q", 1, -2.0, 0.0), sample("q", 2, -2.0, 0.0), failed("r", 0)];
    assert_close(&weights(&samples, &of(WeightKind::BestOf)), &[0.0, 1.0, 0.0, 0.0]);
}

/// The published trainer: `probs` is the mean cross-entropy, divided by its sum over the micro-batch.
#[test]
fn defect_1_the_references_weights_grow_with_the_loss_over_unrelated_trajectories() {
    let with_path =
        |scored: Scored, path_logprob: f64| Scored { path_logprob: Some(path_logprob), n_path_tokens: 3, ..scored };
    let samples = [
        with_path(sample("q", 0, -1.0, 0.0), -3.0),
        with_path(sample("q", 1, -3.0, 0.0), -9.0),
        with_path(sample("r", 0, -4.0, 0.0), -8.0),
        with_path(sample("r", 1, -2.0, 0.0), -2.0),
    ];
    // Mean cross-entropies 1, 3, 3 and 1.
    let config = WeightsConfig { reference_batch: 3, ..of(WeightKind::Reference) };
    assert_close(&weights(&samples, &config), &[1.0 / 7.0, 3.0 / 7.0, 3.0 / 7.0, 1.0]);
    let posterior = weights(&samples, &of(WeightKind::Posterior));
    assert!(posterior[0] > posterior[1], "the posterior prefers what gives the answer");
}

#[test]
fn a_null_trajectory_takes_from_questions_without_support_and_a_cap_from_single_ones() {
    let samples = [sample("q", 0, 0.5f64.ln(), 0.0), sample("r", 0, -20.0, 0.0), sample("r", 1, -20.0, 0.0)];
    let null = WeightsConfig { null_logprob: Some(0.5f64.ln()), ..of(WeightKind::Posterior) };
    let found = weights(&samples, &null);
    assert_close(&found[..1], &[0.5]);
    assert!(found[1] < 1e-8 && found[1] == found[2], "{found:?}");
    let capped = WeightsConfig { max_weight: Some(0.6), ..of(WeightKind::Posterior) };
    assert_close(&weights(&samples, &capped), &[0.6, 0.5, 0.5]);
}

#[test]
fn questions_that_teach_nothing_can_be_dropped_and_are_counted() {
    let samples = [
        sample("right", 0, -1.0, 1.0),
        sample("right", 1, -1.0, 1.0),
        sample("wrong", 0, -1.0, 0.0),
        failed("wrong", 1),
        sample("mixed", 0, -1.0, 1.0),
        failed("mixed", 1),
    ];
    let check = |drop_all_right, drop_all_wrong, expect: &[f64], n_dropped| {
        let config = WeightsConfig { drop_all_right, drop_all_wrong, ..WeightsConfig::default() };
        let weighed = weigh(&samples, &config).expect("valid");
        assert_close(&weighed.weights.iter().map(|weight| weight.weight).collect::<Vec<_>>(), expect);
        assert_eq!(weighed.diagnostics.n_dropped, n_dropped);
    };
    check(false, false, &[0.5, 0.5, 1.0, 0.0, 1.0, 0.0], 0);
    check(true, false, &[0.0, 0.0, 1.0, 0.0, 1.0, 0.0], 1);
    check(false, true, &[0.5, 0.5, 0.0, 0.0, 1.0, 0.0], 1);
    check(true, true, &[0.0, 0.0, 0.0, 0.0, 1.0, 0.0], 2);
}

#[test]
fn settings_and_scores_that_do_not_go_together_are_errors() {
    let mut old = sample("q", 0, -1.0, 1.0);
    old.rewards = None;
    let error = weigh(&[old.clone()], &of(WeightKind::Rejection)).expect_err("no reward is known");
    assert!(matches!(&error, TrainsetError::NoReward { question_id } if question_id == "q"), "{error}");
    assert_close(&weights(&[old], &of(WeightKind::Posterior)), &[1.0]);
    let bad = |config: WeightsConfig, name: &str| {
        let error = weigh(&[], &config).expect_err("refused").to_string();
        assert!(error.contains(name), "{error}");
    };
    bad(
        WeightsConfig { min_effective_sample_size: Some(0.5), ..WeightsConfig::default() },
        "min_effective_sample_size",
    );
    bad(WeightsConfig { max_weight: Some(0.0), ..WeightsConfig::default() }, "max_weight");
    bad(WeightsConfig { null_logprob: Some(f64::NAN), ..WeightsConfig::default() }, "null_logprob");
    bad(WeightsConfig { reference_batch: 0, ..WeightsConfig::default() }, "reference_batch");
}

fn effective_sample_size(weights: &[f64]) -> f64 {
    weights.iter().sum::<f64>().powi(2) / weights.iter().map(|weight| weight * weight).sum::<f64>()
}

proptest! {
    #[test]
    fn tempering_reaches_its_floor_keeps_the_order_and_changes_no_more_than_it_must(
        logprobs in prop::collection::vec(-400f64..0.0, 1..9), floor in 1f64..8.0,
    ) {
        let samples: Vec<Scored> =
            (0..).zip(&logprobs).map(|(sample_idx, logprob)| sample("q", sample_idx, *logprob, 0.0)).collect();
        let config = WeightsConfig { min_effective_sample_size: Some(floor), ..WeightsConfig::default() };
        let weighed = weigh(&samples, &config).expect("valid");
        let found: Vec<f64> = weighed.weights.iter().map(|weight| weight.weight).collect();
        prop_assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let reached = effective_sample_size(&found);
        prop_assert!(reached >= floor.min(samples.len() as f64) - 1e-6, "{reached}");
        let plain = weights(&samples, &WeightsConfig::default());
        for (a, b) in (0..found.len()).flat_map(|a| (0..found.len()).map(move |b| (a, b))) {
            prop_assert!(plain[a] <= plain[b] || found[a] >= found[b]);
        }
        if effective_sample_size(&plain) >= floor {
            prop_assert_eq!(weighed.questions[0].temper, 1.0);
            prop_assert_eq!(found, plain);
        } else if floor < samples.len() as f64 - 0.01 && plain.iter().all(|weight| *weight > 0.0) {
            prop_assert!(reached < floor + 1e-3, "more than was asked for: {reached}");
        }
    }
}

/// A model that all questions share: it draws one of four trajectories by a table p(z), which is learned, and gives the answer y
/// with p(y | z), which is not. log p(y | x) is a sum over four.
#[derive(Clone)]
struct Model {
    path: Vec<f64>,
}

const N_PATHS: usize = 4;
/// p(y | z): a row for each trajectory.
const ANSWER: [[f64; 3]; N_PATHS] = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.1, 0.6], [0.2, 0.2, 0.6]];
/// The gold answers of six questions.
const GOLD: [usize; 6] = [0, 0, 0, 1, 1, 2];

impl Model {
    fn new() -> Self {
        Self { path: vec![0.1, 0.2, 0.3, 0.4] }
    }

    /// p(y | x) of a gold answer.
    fn likelihood(&self, y: usize) -> f64 {
        self.path.iter().zip(&ANSWER).map(|(path, answer)| path * answer[y]).sum()
    }

    /// Mean log p(y | x) over the questions.
    fn log_likelihood(&self) -> f64 {
        GOLD.iter().map(|&y| self.likelihood(y).ln()).sum::<f64>() / GOLD.len() as f64
    }

    /// Trajectory `z` of a question, drawn with probability b(z).
    fn scored(&self, question: usize, sample_idx: usize, z: usize, b: f64) -> Scored {
        Scored {
            log_importance_ratio: Some((self.path[z] / b).ln()),
            path_logprob: Some(self.path[z].ln()),
            n_path_tokens: 1,
            ..sample(&question.to_string(), sample_idx as u32, ANSWER[z][GOLD[question]].ln(), 0.0)
        }
    }

    /// log p(y | x) at the start and after each iteration. Every trajectory of every question is weighed once, as if drawn from
    /// the uniform distribution; the M-step, `sum w log p(z)` at its greatest, is the mean of the weights.
    fn climb(&mut self, config: &WeightsConfig, n_iterations: usize) -> Vec<f64> {
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

#[test]
fn posterior_em_never_lowers_the_likelihood_and_the_references_weights_do() {
    let mut model = Model::new();
    let posterior = WeightsConfig { correct_sampling: true, ..WeightsConfig::default() };
    let curve = model.climb(&posterior, 3000);
    assert!(curve.windows(2).all(|pair| pair[1] >= pair[0] - 1e-9), "EM is monotone (Dempster et al. 1977)");
    // At the maximum no trajectory would add anything: mean p(y | z) / p(y | x) is at most 1 for each (Karush, Kuhn, Tucker).
    let gain = |z: usize| GOLD.iter().map(|&y| ANSWER[z][y] / model.likelihood(y)).sum::<f64>() / GOLD.len() as f64;
    assert!((0..N_PATHS).all(|z| gain(z) < 1.0 + 1e-3), "{:?} is not the maximum", model.path);
    let curve = Model { path: model.path.clone() }.climb(&of(WeightKind::Reference), 5);
    assert!(curve[1] < curve[0] - 0.01, "from the maximum it falls at once: {curve:?}");
    let curve = Model::new().climb(&of(WeightKind::Reference), 5);
    assert!(curve.windows(2).any(|pair| pair[1] < pair[0]), "and from the start: {curve:?}");
}

/// Mean and variance, over everything that M draws from b can be, of the gradient `sum w_m d log p(z_m)` with respect to the logits
/// of p(z), against that of log p(y | x), which is p(z | x, y) - p(z): the length of the bias and the trace of the covariance.
fn bias_and_variance(config: &WeightsConfig, m: u32, b: &[f64]) -> (f64, f64) {
    let (model, question) = (Model::new(), 3);
    let y = GOLD[question];
    let posterior = |z: usize| model.path[z] * ANSWER[z][y] / model.likelihood(y);
    let (mut mean, mut second_moment) = ([0.0; N_PATHS], 0.0);
    for draw in 0..N_PATHS.pow(m) {
        let paths: Vec<usize> = (0..m).map(|idx| draw / N_PATHS.pow(idx) % N_PATHS).collect();
        let probability: f64 = paths.iter().map(|&z| b[z]).product();
        let all: Vec<Scored> = paths.iter().enumerate().map(|(idx, &z)| model.scored(question, idx, z, b[z])).collect();
        let mut gradient: Vec<f64> = model.path.iter().map(|path| -path).collect();
        for (&z, weight) in paths.iter().zip(weights(&all, config)) {
            gradient[z] += weight;
        }
        for (mean, value) in mean.iter_mut().zip(&gradient) {
            *mean += probability * value;
        }
        second_moment += probability * gradient.iter().map(|value| value * value).sum::<f64>();
    }
    let bias = (0..N_PATHS).map(|z| (mean[z] - (posterior(z) - model.path[z])).powi(2)).sum::<f64>().sqrt();
    (bias, second_moment - mean.iter().map(|mean| mean * mean).sum::<f64>())
}

/// `cargo test -p exsearch-trainset --test weights -- --nocapture bias` prints the table.
#[test]
#[expect(clippy::print_stdout, reason = "the measured table is what the test is also for")]
fn the_bias_and_the_variance_of_posterior_weights_fall_with_m_and_others_stay() {
    let own = Model::new().path;
    let posterior = WeightsConfig::default();
    let table: Vec<(f64, f64)> = [1, 2, 4, 6].map(|m| bias_and_variance(&posterior, m, &own)).to_vec();
    println!("posterior, M = 1, 2, 4, 6: (bias, variance) {table:.4?}");
    assert!(table.windows(2).all(|pair| pair[1].0 < 0.75 * pair[0].0), "self-normalized: bias O(1/M)");
    assert!(table.windows(2).all(|pair| pair[1].1 < pair[0].1));
    let uniform = [1, 6].map(|m| bias_and_variance(&of(WeightKind::Uniform), m, &own));
    println!("uniform, M = 1, 6: {uniform:.4?}");
    assert!((uniform[1].0 - uniform[0].0).abs() < 1e-12, "uniform weights learn nothing about the answer");
    // Drawn from another distribution, the rare ones most often.
    let other: Vec<f64> = own.iter().rev().copied().collect();
    let corrected = WeightsConfig { correct_sampling: true, ..WeightsConfig::default() };
    let [plain, corrected] = [&posterior, &corrected].map(|config| bias_and_variance(config, 6, &other));
    println!("drawn from another distribution, M = 6: {plain:.4?}, corrected {corrected:.4?}");
    assert!(corrected.0 < 0.7 * plain.0, "{corrected:?} {plain:?}");
}
