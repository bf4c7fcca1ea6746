//! Baselines of weights: a control variate on the path term of the M-step's gradient, after TRICE (arXiv 2312.02179) and VIMCO (arXiv
//! 1602.06725).
//!
//! The gradient for a question is `sum_m w_m [grad log p(z_m | x) + grad log p(y | x, z_m)]`. For z_m drawn from b(z | x) and
//! r_m = p(z_m | x) / b(z_m | x), `E[r_m grad log p(z_m | x)] = sum_z grad p(z | x) = 0`. A c_m that is made without z_m is independent of
//! it, so that `E[c_m r_m grad log p(z_m | x)] = 0`, and subtracting b_m = c_m r_m from the path's weight changes the gradient's variance
//! and not its mean. This holds whatever the w_m are: self-normalized weights keep their bias of O(1/M), neither more nor less.
//!
//! c_m is the weight that sample m would get if its p(y | x, z) were the mean of the others', by the same normalization. With r = 1 and
//! neither null trajectory nor cap that is 1/M exactly, whatever the others are: weights which sum to 1 are what they are in the mean,
//! 1/M, and a question whose trajectories are equally good has no gradient in its paths. TRICE takes its baseline from the other questions
//! of the batch, whose mean weight is 1/M here too.
//!
//! Where one trajectory takes all the weight whatever is drawn, as among hinted draws of a question that only it answers, the weights vary
//! little and the baseline adds what the path's gradient varies (docs/LOG.md).
//!
//! The mean is 0 at the model that drew the samples. As an M-step leads away from it, paths of negative weight go on to be pushed down, as far
//! as learning rate and epochs let them: `train.anchor_kl` holds them.
//!
//! Not exact, and therefore to be known: `max_log_ratio` truncates r_m in both places; questions that are left out have neither weights
//! nor baselines, though the samples themselves decide whether they are; examples that are too long to learn are lost with their
//! baselines; and where `em.adaptive_samples` is on, M depends on the first samples. Kept trajectories are not drawn: they have no
//! baseline.

/// A sample as its baseline sees it.
pub(crate) struct Draw {
    /// log of r p(y | x, z), or of what stands in for it; minus infinity where it failed.
    pub(crate) log_weight: f64,
    /// log r.
    pub(crate) log_ratio: f64,
    /// Whether it was drawn, from whatever distribution, and not kept.
    pub(crate) is_fresh: bool,
}

/// b_m of one question's samples. `weight_of` normalizes log weights and returns that of one position. A sample without others has
/// no baseline.
pub(crate) fn leave_one_out(draws: &[Draw], weight_of: impl Fn(&[f64], usize) -> f64) -> Vec<f64> {
    let baseline = |idx: usize| {
        let others = || draws.iter().enumerate().filter(|(at, draw)| *at != idx && draw.is_fresh).map(|(_, draw)| draw);
        if !draws[idx].is_fresh || others().next().is_none() {
            return 0.0;
        }
        let log_sum = |value: fn(&Draw) -> f64| crate::weigh::log_sum_exp(&others().map(value).collect::<Vec<_>>());
        let mut log_weights: Vec<f64> = draws.iter().map(|draw| draw.log_weight).collect();
        // The mean of p(y | x, z) over the others, each counted r times; its own r is 1 in the mean.
        log_weights[idx] = log_sum(|draw| draw.log_weight) - log_sum(|draw| draw.log_ratio);
        weight_of(&log_weights, idx) * draws[idx].log_ratio.exp()
    };
    (0..draws.len()).map(baseline).collect()
}
