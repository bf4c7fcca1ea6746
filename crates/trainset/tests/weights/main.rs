//! The kinds of weights: what each gives on given scores, and what learning from it does to an enumerable model.
mod estimators;
mod model;

use exsearch_trainset::{RewardKind, Rewards, ScoreFailure, Scored, TrainsetError, WeightKind, WeightsConfig, weigh};
use model::{ANSWER, GOLD, Model, N_PATHS};
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
        source: None,
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
