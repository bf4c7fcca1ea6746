//! Two reports of the same questions to the difference of their scores, paired by question.
//!
//! Pairing takes the difficulty of the questions out of the interval: it is narrower than two intervals side by side.
use crate::report::QuestionScores;
use crate::{Estimate, EvalConfig, EvaluationError, Report, bootstrap_means};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt::Write as _;

/// The second report minus the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedDifference {
    /// How many questions both answer.
    pub n_questions: usize,
    /// The coverage of the intervals, as the first report's.
    pub confidence: f64,
    /// Of exact match.
    pub exact_match: Difference,
    /// Of token F1.
    pub f1: Difference,
    /// Of cover-EM by substring.
    pub accuracy: Difference,
    /// Of cover-EM on whole tokens.
    pub accuracy_boundary: Difference,
    /// Of equality of the raw strings.
    pub kilt_accuracy: Difference,
}

/// The difference in one metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Mean over questions, and its interval; between -1 and 1.
    pub estimate: Estimate,
    /// Questions on which the second report scores higher.
    pub n_better: usize,
    /// Questions on which it scores lower.
    pub n_worse: usize,
    /// [`sign_test`] of the two counts: McNemar's exact test where a question is right or wrong.
    pub p: f64,
}

/// `after` minus `before`, with the number of resamples, the coverage and the seed of `before`. Errors when the two are not
/// about the same questions; their order does not matter.
pub fn compare(before: &Report, after: &Report) -> Result<PairedDifference, EvaluationError> {
    compare_questions(&before.questions, &after.questions, &before.config)
}

/// [`compare`] of the scores of questions, with the number of resamples, the coverage and the seed of `config`.
pub fn compare_questions(
    before: &QuestionScores,
    after: &QuestionScores,
    config: &EvalConfig,
) -> Result<PairedDifference, EvaluationError> {
    let n_questions = before.n_rows().ok_or(EvaluationError::MalformedReport)?;
    after.n_rows().ok_or(EvaluationError::MalformedReport)?;
    let after_rows = rows_by_id(after);
    let mut rows = Vec::with_capacity(n_questions);
    for (idx, id) in before.id.iter().enumerate() {
        let only_before = || EvaluationError::QuestionsDiffer { question_id: id.clone() };
        let &after_idx = after_rows.get(id.as_str()).ok_or_else(only_before)?;
        let (old, new) = (before.row(idx), after.row(after_idx));
        rows.push(std::array::from_fn(|column| new[column] - old[column]));
    }
    let before_rows = rows_by_id(before);
    if let Some(id) = after.id.iter().find(|id| !before_rows.contains_key(id.as_str())) {
        return Err(EvaluationError::QuestionsDiffer { question_id: id.clone() });
    }
    Ok(PairedDifference::from_rows(&rows, config))
}

/// The probability that `n_better` of `n_better + n_worse` fair coins, or a count further from the half, fall on one side: the exact
/// two-sided binomial test that McNemar's test of paired right or wrong answers is (McNemar 1947). 1 where nothing differs.
pub fn sign_test(n_better: usize, n_worse: usize) -> f64 {
    let n = n_better + n_worse;
    let mut log_choose = 0.0;
    let mut tail = 0.0;
    for k in 0..=n_better.min(n_worse) {
        if k > 0 {
            log_choose += ((n - k + 1) as f64).ln() - (k as f64).ln();
        }
        tail += (log_choose - n as f64 * std::f64::consts::LN_2).exp();
    }
    (2.0 * tail).min(1.0)
}

fn rows_by_id(questions: &QuestionScores) -> HashMap<&str, usize> {
    questions.id.iter().enumerate().map(|(idx, id)| (id.as_str(), idx)).collect()
}

impl PairedDifference {
    /// The differences by metric, in the order of tables.
    pub fn named(&self) -> [(&'static str, Difference); 5] {
        [
            ("exact_match", self.exact_match),
            ("f1", self.f1),
            ("accuracy", self.accuracy),
            ("accuracy_boundary", self.accuracy_boundary),
            ("kilt_accuracy", self.kilt_accuracy),
        ]
    }

    /// The differences as a table for a terminal, in percentage points, ASCII only.
    pub fn table(&self) -> String {
        let mut text = format!("second minus first, {} questions\n\n", self.n_questions);
        let interval = format!("{}% interval", 100.0 * self.confidence);
        let _ = writeln!(text, "{:<22}{:>7}   {interval:<20}{:>8}{:>8}{:>8}", "points", "mean", "better", "worse", "p");
        for (name, Difference { estimate, n_better, n_worse, p }) in self.named() {
            let interval = format!("[{:+.2}, {:+.2}]", 100.0 * estimate.low, 100.0 * estimate.high);
            let mean = 100.0 * estimate.mean;
            let _ = writeln!(text, "{name:<22}{mean:>+7.2}   {interval:<20}{n_better:>8}{n_worse:>8}{p:>8.4}");
        }
        text
    }

    fn from_rows(rows: &[[f64; 5]], config: &EvalConfig) -> Self {
        let estimates = bootstrap_means(rows, config.n_resamples, config.confidence, config.seed);
        let [exact_match, f1, accuracy, accuracy_boundary, kilt_accuracy] = std::array::from_fn(|column| {
            let n_better = rows.iter().filter(|row| row[column] > 0.0).count();
            let n_worse = rows.iter().filter(|row| row[column] < 0.0).count();
            Difference { estimate: estimates[column], n_better, n_worse, p: sign_test(n_better, n_worse) }
        });
        let (n_questions, confidence) = (rows.len(), config.confidence);
        Self { n_questions, confidence, exact_match, f1, accuracy, accuracy_boundary, kilt_accuracy }
    }
}

impl Difference {
    /// Whether the interval lies on one side of 0.
    pub fn is_significant(&self) -> bool {
        self.estimate.low > 0.0 || self.estimate.high < 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::tests::{answered, gold, report};

    /// Question i is right in the first report when bit 0 of the byte is set, in the second when bit 1 is.
    fn pair(bits: &[u8]) -> (Report, Report) {
        let records: Vec<_> = (0..bits.len()).map(|idx| gold(&format!("q{idx}"), "yes sir")).collect();
        let run = |bit: u8| {
            let answer = |byte: &u8| if byte >> bit & 1 == 1 { "yes sir" } else { "wrong" };
            let trajectories: Vec<_> =
                bits.iter().enumerate().map(|(idx, byte)| answered(&format!("q{idx}"), 0, answer(byte))).collect();
            report(&trajectories, &records)
        };
        (run(0), run(1))
    }

    #[test]
    fn counts_and_means_are_those_of_the_pairs() {
        let (before, after) = pair(&[0, 1, 2, 2, 3, 3, 0, 2]);
        let difference = compare(&before, &after).expect("same questions");
        assert_eq!((difference.exact_match.n_better, difference.exact_match.n_worse), (3, 1));
        assert!((difference.exact_match.estimate.mean - 0.25).abs() < 1e-12);
        assert!(!difference.exact_match.is_significant());
    }

    #[test]
    fn pairing_narrows_the_interval() {
        let bits: Vec<u8> = (0..200).map(|idx| if idx % 20 == 0 { 2 } else { 3 * (idx % 2) }).collect();
        let (before, after) = pair(&bits);
        let paired = compare(&before, &after).expect("same questions").exact_match;
        let width = |estimate: Estimate| estimate.high - estimate.low;
        assert!(width(paired.estimate) < 0.6 * width(before.scores.exact_match));
        assert!(paired.is_significant());
    }

    #[test]
    fn order_does_not_matter_and_swapping_flips_the_sign() {
        let (before, after) = pair(&[0, 1, 2, 2, 3]);
        let mut reversed = after.clone();
        let columns = &mut reversed.questions;
        columns.id.reverse();
        for column in [&mut columns.exact_match, &mut columns.f1, &mut columns.accuracy] {
            column.reverse();
        }
        columns.accuracy_boundary.reverse();
        columns.kilt_accuracy.reverse();
        assert_eq!(compare(&before, &after).expect("same"), compare(&before, &reversed).expect("same"));
        let (forth, back) = (compare(&before, &after).expect("same"), compare(&after, &before).expect("same"));
        assert_eq!(forth.f1.estimate.mean, -back.f1.estimate.mean);
        assert!((forth.f1.estimate.low + back.f1.estimate.high).abs() < 1e-12);
    }

    #[test]
    fn other_questions_are_named() {
        let (before, _) = pair(&[0, 1]);
        let (_, after) = pair(&[0, 1, 2]);
        for error in [compare(&before, &after), compare(&after, &before)] {
            let error = error.expect_err("q2 is in one only");
            assert!(error.to_string().contains("q2"), "{error}");
        }
    }

    /// Values of R's binom.test(k, n)$p.value.
    #[test]
    fn the_sign_test_is_the_exact_binomial_one() {
        let check = |n_better, n_worse, expect: f64| {
            let p = sign_test(n_better, n_worse);
            assert!((p - expect).abs() < 1e-9 * expect.max(1e-3), "{n_better} {n_worse}: {p}");
            assert_eq!(p, sign_test(n_worse, n_better));
        };
        check(0, 0, 1.0);
        check(1, 1, 1.0);
        check(5, 0, 0.0625);
        check(9, 2, 0.065_429_687_5);
        // Powers of a half below the least f64: summed in logs.
        assert!(sign_test(2000, 0) < 1e-300 && sign_test(1000, 1000) == 1.0);
        assert!((sign_test(1040, 960) - 0.077_286_9).abs() < 1e-6);
    }

    #[test]
    fn table_shows_signs_and_counts() {
        let (before, after) = pair(&[0, 1, 2, 2, 3, 3, 0, 2]);
        let table = compare(&before, &after).expect("same questions").table();
        let line = table.lines().find(|line| line.starts_with("exact_match")).expect("a line for it");
        assert!(line.contains("+25.00") && line.ends_with("       3       1  0.6250"), "{table}");
    }
}
