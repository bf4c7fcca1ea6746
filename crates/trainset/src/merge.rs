//! Equal trajectories of a question to one of them, which carries the weight of all.
//!
//! A peaked policy draws the same trajectory again and again: more than half of the M samples in the later iterations of the
//! quickstart. Equal trajectories have the same gradient, so one example with their summed weights and baselines is the same M-step
//! objective for a part of the cost.
use crate::Weight;
use exsearch_schema::{Segment, SegmentKind, Trajectory};
use std::collections::HashMap;

/// What each trajectory weighs after merging: the sum for the first of equal ones, `None` for the others. Equal are
/// trajectories of one question with the same tokens up to the answer, select turns included. `weights` are theirs, in order.
pub fn merge_equal(trajectories: &[Trajectory], weights: &[Weight]) -> Vec<Option<Weight>> {
    let mut firsts: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut merged: Vec<Option<Weight>> = Vec::with_capacity(weights.len());
    for (idx, (trajectory, weight)) in trajectories.iter().zip(weights).enumerate() {
        let firsts = firsts.entry(&trajectory.question_id).or_default();
        match firsts.iter().find(|first| is_equal(&trajectories[**first], trajectory)) {
            // Failed ones are counted as such, each.
            _ if weight.best_alias.is_none() => merged.push(Some(weight.clone())),
            Some(&first) => {
                let first = merged[first].as_mut().expect("a first one keeps its weight");
                first.weight += weight.weight;
                first.baseline += weight.baseline;
                merged.push(None);
            }
            None => {
                firsts.push(idx);
                merged.push(Some(weight.clone()));
            }
        }
    }
    merged
}

fn is_equal(a: &Trajectory, b: &Trajectory) -> bool {
    fn tokens(segments: &[Segment]) -> impl Iterator<Item = (SegmentKind, &[u32])> {
        let before_answer = segments.iter().take_while(|segment| segment.kind != SegmentKind::Answer);
        before_answer.map(|segment| (segment.kind, segment.ids.as_slice()))
    }
    fn selects(trajectory: &Trajectory) -> impl Iterator<Item = &[Segment]> {
        trajectory.steps.iter().filter_map(|step| step.select.as_ref()).map(|select| select.segments.as_slice())
    }
    tokens(&a.segments).eq(tokens(&b.segments))
        && selects(a).count() == selects(b).count()
        && selects(a).zip(selects(b)).all(|(a, b)| tokens(a).eq(tokens(b)))
}
