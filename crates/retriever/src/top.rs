//! The best of many scored passages, whatever the order in which they come.
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A passage's number and score.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scored {
    pub(crate) number: u32,
    pub(crate) score: f32,
}

/// The greater is the worse: lower score, then later in the corpus.
impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scored {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scored {}

/// The best so far, the worst of them on top of the heap.
#[derive(Clone)]
pub(crate) struct Top {
    best: BinaryHeap<Scored>,
    top_k: usize,
}

impl Top {
    pub(crate) fn new(top_k: usize) -> Self {
        Self { best: BinaryHeap::with_capacity(top_k), top_k }
    }

    pub(crate) fn offer(&mut self, scored: Scored) {
        if self.best.len() < self.top_k {
            self.best.push(scored);
        } else if let Some(mut worst) = self.best.peek_mut()
            && scored < *worst
        {
            *worst = scored;
        }
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        other.best.into_iter().for_each(|scored| self.offer(scored));
        self
    }

    /// Best first.
    pub(crate) fn into_sorted(self) -> Vec<Scored> {
        self.best.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_best_are_those_of_sorting(scores in prop::collection::vec(-3i8..3, 0..60), top_k in 0usize..20, cut in 0usize..60) {
            let all: Vec<Scored> = (0..).zip(&scores).map(|(number, score)| Scored { number, score: f32::from(*score) }).collect();
            let (left, right) = all.split_at(cut.min(all.len()));
            let fill = |part: &[Scored]| {
                let mut top = Top::new(top_k);
                part.iter().rev().for_each(|scored| top.offer(*scored));
                top
            };
            let mut expected = all.clone();
            expected.sort();
            expected.truncate(top_k);
            prop_assert_eq!(fill(right).merge(fill(left)).into_sorted(), expected);
        }
    }
}
