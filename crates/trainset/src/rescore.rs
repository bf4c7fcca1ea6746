//! log p(z | x) of trajectories under the model as it is, whatever they were sampled from: kept ones, and those of a hint.
use exsearch_schema::{Author, ScoreError, ScoreRequest, Scorer, Segment, SegmentKind, Trajectory};

/// For each trajectory log p(z | x) of its search and select turns as recorded, broken ones among them, in nats: what
/// [`Trajectory::path_logprob`] is where the same model sampled it.
pub fn score_paths(trajectories: &[&Trajectory], scorer: &mut dyn Scorer) -> Vec<Result<f64, ScoreError>> {
    let turns: Vec<Vec<ScoreRequest>> = trajectories.iter().map(|trajectory| turns_of(trajectory)).collect();
    let requests: Vec<ScoreRequest> = turns.iter().flatten().cloned().collect();
    let mut scores = if requests.is_empty() { Vec::new() } else { scorer.score(&requests) }.into_iter();
    let sum = |turns: &Vec<ScoreRequest>| {
        // All of them are taken, so that those of the next trajectory come next.
        let scores: Vec<Result<Vec<f32>, ScoreError>> = scores.by_ref().take(turns.len()).collect();
        if scores.len() < turns.len() {
            return Err(ScoreError("it returned no result for a turn".to_owned()));
        }
        let logprobs: Vec<Vec<f32>> = scores.into_iter().collect::<Result<_, _>>()?;
        let logprob = logprobs.into_iter().flatten().map(f64::from).sum::<f64>();
        if logprob.is_finite() { Ok(logprob) } else { Err(ScoreError("a log-prob of the path is not finite".into())) }
    };
    turns.iter().map(sum).collect()
}

/// Each turn of the model before its answer, behind everything before it.
fn turns_of(trajectory: &Trajectory) -> Vec<ScoreRequest> {
    let selects = trajectory.steps.iter().filter_map(|step| step.select.as_ref()).map(|select| &select.segments);
    std::iter::once(&trajectory.segments).chain(selects).flat_map(|segments| turns_in(segments)).collect()
}

fn turns_in(segments: &[Segment]) -> Vec<ScoreRequest> {
    let (mut context, mut turns) = (Vec::new(), Vec::new());
    for segment in segments {
        if segment.author == Author::Model && segment.kind != SegmentKind::Answer && !segment.ids.is_empty() {
            turns.push(ScoreRequest { context: context.clone(), continuations: vec![segment.ids.clone()] });
        }
        context.extend_from_slice(&segment.ids);
    }
    turns
}
