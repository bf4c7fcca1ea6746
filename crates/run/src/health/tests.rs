//! Each alarm rings for what it is about, and for nothing else.
use super::*;
use exsearch_schema::{Incident, Segment, Step};
use exsearch_trainset::{Diagnostics, PackStats};

/// A trajectory of some steps, with a turn of 10 tokens for each and an answer of 3, each token at -1 nat.
fn trajectory(n_steps: usize) -> Trajectory {
    let turn = |kind, n_tokens| Segment {
        author: Author::Model,
        kind,
        logprobs: vec![-1.0; n_tokens],
        behaviour_logprobs: Vec::new(),
        ids: vec![7; n_tokens],
        finish: None,
        n_cut: 0,
    };
    let mut segments = vec![Segment::prompt(vec![1; 50])];
    segments.extend((0..n_steps).map(|_| turn(SegmentKind::Search, 10)));
    segments.push(turn(SegmentKind::Answer, 3));
    Trajectory {
        question_id: "q".into(),
        question: "who?".into(),
        sample_idx: 0,
        seed: 0,
        source: None,
        steps: (0..n_steps).map(|_| Step { query: "x".into(), hits: Vec::new(), select: None, record: None }).collect(),
        prediction: Some("a".into()),
        outcome: Outcome::Answered,
        incidents: Vec::new(),
        segments,
        messages: Vec::new(),
        secs: 0.0,
    }
}

fn steps(changes: &dyn Fn(usize, &mut StepReport)) -> Vec<StepReport> {
    let step = |idx: usize| {
        let mut step = StepReport {
            step: idx + 1,
            n_steps: 16,
            loss: 1.0,
            nll: 1.0,
            grad_norm: 2.0,
            learning_rate: 1e-3,
            n_target_tokens: 10,
            n_tokens: 100,
            skipped: false,
        };
        changes(idx, &mut step);
        step
    };
    (0..16).map(step).collect()
}

fn e_step(sizes: Vec<f64>, zero_support_rate: f64) -> EStep {
    let diagnostics = Diagnostics { n_questions: 20, n_trajectories: 80, zero_support_rate, ..Diagnostics::default() };
    EStep { diagnostics, pack: PackStats::default(), effective_sample_sizes: sizes }
}

/// A healthy stage.
fn measures() -> Measures {
    let behaviour = Behaviour::of(&vec![trajectory(2); 20]);
    Measures {
        training: Some(TrainingMeasures::of(&steps(&|_, _| ()), false)),
        weights: Some(WeightMeasures::of(&e_step(vec![2.0; 20], 0.1), &WeightsConfig::default())),
        sampling: Some(behaviour.clone()),
        dev: behaviour,
        dev_f1: 0.5,
    }
}

/// Asserts which alarms ring when `change` happens to the second stage.
#[track_caller]
fn check(change: impl Fn(&mut Measures), expect: &[(AlarmKind, Source)]) {
    let mut now = measures();
    change(&mut now);
    let alarms = alarms(&now, &[measures()], Some(0.5), &HealthConfig::default());
    let names: Vec<(AlarmKind, Source)> = alarms.iter().map(|alarm| (alarm.name, alarm.of)).collect();
    assert_eq!(names, expect, "{alarms:?}");
    assert!(alarms.iter().all(|alarm| alarm.look_at.contains("look") || alarm.look_at.contains("go on from")));
}

/// As [`check`], where the 20 trajectories of dev and of sampling are other ones.
#[track_caller]
fn check_both(trajectory_of: impl Fn(usize) -> Trajectory, expect: &[AlarmKind]) {
    let behaviour = Behaviour::of(&(0..20).map(trajectory_of).collect::<Vec<_>>());
    let both = [Source::Sampling, Source::Dev];
    let expect: Vec<_> = both.iter().flat_map(|of| expect.iter().map(|name| (*name, *of))).collect();
    check(
        |now| {
            now.sampling = Some(behaviour.clone());
            now.dev = behaviour.clone();
        },
        &expect,
    );
}

#[test]
fn a_healthy_stage_rings_nothing() {
    check(|_| (), &[]);
    assert!(alarms(&measures(), &[], None, &HealthConfig::default()).is_empty());
}

#[test]
fn training_alarms() {
    let trained = |changes: &dyn Fn(usize, &mut StepReport), expect| {
        let training = TrainingMeasures::of(&steps(changes), false);
        check(|now| now.training = Some(training.clone()), &[(expect, Source::Training)]);
    };
    trained(&|idx, step| step.skipped = idx == 3, AlarmKind::SkippedSteps);
    trained(&|idx, step| step.nll = 1.0 + 0.05 * idx as f64, AlarmKind::LossGrowth);
    trained(&|idx, step| step.grad_norm = if idx == 9 { 100.0 } else { 2.0 }, AlarmKind::GradNorm);
    let given_up = TrainingMeasures::of(&steps(&|_, _| ()), true);
    check(|now| now.training = Some(given_up.clone()), &[(AlarmKind::Divergence, Source::Training)]);
    // A loss that is not finite is a skipped step's, and does not hide the others.
    let broken = TrainingMeasures::of(
        &steps(&|idx, step| {
            if idx == 3 {
                (step.skipped, step.nll, step.grad_norm) = (true, f64::NAN, f64::NAN);
            }
        }),
        false,
    );
    assert_eq!((broken.n_skipped, broken.loss_growth, broken.grad_norm_ratio), (1, Some(0.0), Some(1.0)));
}

#[test]
fn weight_alarms() {
    let weighed = |sizes: Vec<f64>, zero_support_rate, config: &WeightsConfig, expect: &[AlarmKind]| {
        let measured = WeightMeasures::of(&e_step(sizes, zero_support_rate), config);
        let expect: Vec<_> = expect.iter().map(|name| (*name, Source::Sampling)).collect();
        check(|now| now.weights = Some(measured.clone()), &expect);
    };
    let config = WeightsConfig::default();
    weighed(vec![1.0; 20], 0.1, &config, &[AlarmKind::EffectiveSampleSize]);
    weighed([vec![1.0; 18], vec![2.0; 2]].concat(), 0.1, &config, &[]);
    weighed(vec![2.0; 20], 0.95, &config, &[AlarmKind::ZeroSupport]);
    let tempered = WeightsConfig { min_effective_sample_size: Some(2.0), ..config.clone() };
    weighed(vec![2.0; 20], 0.1, &tempered, &[AlarmKind::EffectiveSampleSize]);
    let best_of = WeightsConfig { kind: WeightKind::BestOf, ..config };
    weighed(vec![1.0; 20], 0.1, &best_of, &[]);
}

#[test]
fn behaviour_alarms() {
    let with_incident = |boundary| {
        let incident = Incident { boundary, step_idx: 0, detail: String::new() };
        Trajectory { incidents: vec![incident.clone(), incident], ..trajectory(2) }
    };
    check_both(
        |idx| if idx < 9 { with_incident(Boundary::RepeatedQuery) } else { trajectory(2) },
        &[AlarmKind::RepeatedQueries],
    );
    check_both(
        |idx| if idx < 12 { with_incident(Boundary::EmptyRecord) } else { trajectory(2) },
        &[AlarmKind::EmptyRecords],
    );
    check_both(|_| with_incident(Boundary::TurnTooLong), &[]);
    check_both(|_| trajectory(4), &[AlarmKind::OverSearch]);
    check_both(|idx| trajectory(usize::from(idx < 8)), &[AlarmKind::UnderSearch]);
    let failed = || Trajectory { outcome: Outcome::Failed(Boundary::Generator), ..trajectory(2) };
    check_both(|idx| if idx < 5 { failed() } else { trajectory(2) }, &[AlarmKind::Failures]);
    let silent = || Trajectory { prediction: Some(" ".into()), ..trajectory(2) };
    check_both(|idx| if idx < 5 { silent() } else { trajectory(2) }, &[AlarmKind::Failures]);
}

#[test]
fn length_and_entropy_alarms() {
    let stretched = |kind: SegmentKind, n_tokens: usize| {
        let mut trajectory = trajectory(2);
        for segment in trajectory.segments.iter_mut().filter(|segment| segment.kind == kind) {
            (segment.ids, segment.logprobs) = (vec![7; n_tokens], vec![-1.0; n_tokens]);
        }
        trajectory
    };
    for n_tokens in [3, 26] {
        check_both(|_| stretched(SegmentKind::Search, n_tokens), &[AlarmKind::TurnLength]);
    }
    for n_tokens in [1, 8] {
        check_both(|_| stretched(SegmentKind::Answer, n_tokens), &[AlarmKind::AnswerLength]);
    }
    let mut sure = trajectory(2);
    sure.segments.iter_mut().for_each(|segment| segment.logprobs.fill(-0.2));
    let sure = Behaviour::of(&vec![sure; 20]);
    // Greedy turns on dev are sure of themselves; only samples tell.
    check(|now| now.dev = sure.clone(), &[]);
    check(|now| now.sampling = Some(sure.clone()), &[(AlarmKind::Entropy, Source::Sampling)]);
}

#[test]
fn a_fall_on_dev_is_an_alarm() {
    check(|now| now.dev_f1 = 0.2, &[(AlarmKind::Score, Source::Dev)]);
    check(|now| now.dev_f1 = 0.3, &[]);
}

#[test]
fn a_few_trajectories_tell_nothing() {
    let few = Behaviour::of(&vec![Trajectory { outcome: Outcome::Failed(Boundary::Generator), ..trajectory(9) }; 15]);
    check(
        |now| {
            now.dev = few.clone();
            now.dev_f1 = 0.0;
        },
        &[],
    );
}

#[test]
fn drift_is_against_the_first_trained_stage_and_single_signs_are_no_collapse() {
    let stage = |n_steps| Measures { dev: Behaviour::of(&vec![trajectory(n_steps); 20]), ..measures() };
    let alarms = |now: &Measures, before: &[Measures]| alarms(now, before, None, &HealthConfig::default());
    assert!(alarms(&stage(3), &[stage(2)]).is_empty());
    let found = alarms(&stage(4), &[stage(2), stage(3)]);
    assert_eq!((found[0].name, found[0].value), (AlarmKind::OverSearch, 2.0));
    let health = |alarms| Health { alarms, measures: measures() };
    assert!(health(found).has_collapsed());
    let mut jumpy = measures();
    jumpy.training = Some(TrainingMeasures { grad_norm_ratio: Some(99.0), ..TrainingMeasures::default() });
    let found = alarms(&jumpy, &[]);
    assert!(found.len() == 1 && !health(found).has_collapsed());
}
