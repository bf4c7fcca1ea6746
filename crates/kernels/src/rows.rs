//! The operations of a transformer on rows: norms, rotations, activations, softmax, and the optimizer's update.
//!
//! Each body is compiled once for every instruction set and chosen at run time; it keeps the order of its sums.
//! Legend: d = row length. Gradients are named after what they are the gradient of.
use crate::optimizer::Adamw;

/// Compiles a function's body for each instruction set behind one safe function.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $kind:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $kind),*) $(-> $ret)? {
            #[inline(always)]
            fn portable($($arg: $kind),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $kind),*) $(-> $ret)? { portable($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,fma")]
            fn avx512($($arg: $kind),*) $(-> $ret)? { portable($($arg),*) }
            match $crate::isa::isa() {
                #[cfg(target_arch = "x86_64")]
                #[expect(unsafe_code, reason = "the instruction set was detected")]
                // SAFETY: `isa` returns only what this CPU has.
                $crate::isa::Isa::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                #[expect(unsafe_code, reason = "the instruction set was detected")]
                // SAFETY: `isa` returns only what this CPU has.
                $crate::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                _ => portable($($arg),*),
            }
        }
    };
}

pub(crate) use multiversion;

/// Partial sums of a reduction: one AVX-512 register, two of AVX2.
const PARTIALS: usize = 16;

/// Sums `f` over pairs in sixteen interleaved chains, then folds those in halves.
#[inline(always)]
fn reduce(a: &[f32], b: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    assert_eq!(a.len(), b.len(), "rows have equal lengths");
    let mut sums = [0f32; PARTIALS];
    let (a_chunks, b_chunks) = (a.chunks_exact(PARTIALS), b.chunks_exact(PARTIALS));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..PARTIALS {
            sums[lane] = f(a[lane], b[lane], sums[lane]);
        }
    }
    for (lane, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[lane] = f(a, b, sums[lane]);
    }
    fold(sums)
}

#[inline(always)]
pub(crate) fn fold(mut sums: [f32; PARTIALS]) -> f32 {
    let mut width = PARTIALS / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// e^x to within 2 units in the last place, without a table or a branch: 2^n · e^r with |r| <= ln 2 / 2 and a polynomial of
/// degree 6 (the coefficients of Cephes' expf). Below -87.3 it gives 0.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.33, 88.37);
    let n = (clamped * std::f32::consts::LOG2_E).round_ties_even();
    let r = n.mul_add(-0.693_359_4, clamped);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let value = (p * r).mul_add(r, r + 1.0);
    let power = f32::from_bits((((n as i32) + 127) << 23) as u32);
    if x < -87.33 { 0.0 } else { value * power }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// 2 · sqrt(2 / π)
const GELU_FACTOR: f32 = 2.0 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;

/// What GELU's approximation by tanh multiplies x with.
#[inline(always)]
fn gelu_gate(x: f32) -> f32 {
    let cubic = (x * x * x).mul_add(0.044_715, x);
    sigmoid(GELU_FACTOR * cubic)
}

/// erf(x) to within 5e-7: an odd rational function of degree 13 over 8 between -4 and 4 (the coefficients of Eigen's
/// `generic_fast_erf_float`); beyond them erf is 1 in f32.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let z = x * x;
    let mut p = -2.726_142_3e-10f32;
    p = p.mul_add(z, 2.770_681_4e-8);
    p = p.mul_add(z, -2.101_024e-6);
    p = p.mul_add(z, -5.692_506_4e-5);
    p = p.mul_add(z, -7.349_906e-4);
    p = p.mul_add(z, -2.954_6e-3);
    p = p.mul_add(z, -1.609_603_3e-2);
    let mut q = -1.456_607_2e-5f32;
    q = q.mul_add(z, -2.133_740_6e-4);
    q = q.mul_add(z, -1.682_827e-3);
    q = q.mul_add(z, -7.373_329e-3);
    q = q.mul_add(z, -1.426_474e-2);
    x * p / q
}

#[inline(always)]
fn max_of(row: &[f32]) -> f32 {
    let mut best = [f32::NEG_INFINITY; PARTIALS];
    let chunks = row.chunks_exact(PARTIALS);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..PARTIALS {
            best[lane] = if chunk[lane] > best[lane] { chunk[lane] } else { best[lane] };
        }
    }
    best.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, f32::max)
}

/// Replaces x by e^(x - shift) and returns the sum.
#[inline(always)]
fn exp_shifted(row: &mut [f32], shift: f32) -> f32 {
    let mut sums = [0f32; PARTIALS];
    let mut chunks = row.chunks_exact_mut(PARTIALS);
    for chunk in &mut chunks {
        for lane in 0..PARTIALS {
            chunk[lane] = exp(chunk[lane] - shift);
            sums[lane] += chunk[lane];
        }
    }
    for (lane, value) in chunks.into_remainder().iter_mut().enumerate() {
        *value = exp(*value - shift);
        sums[lane] += *value;
    }
    fold(sums)
}

/// log sum e^x of a row with its maximum.
#[inline(always)]
fn log_sum_exp(row: &[f32], max: f32) -> f32 {
    max + reduce(row, row, |x, _, sum| sum + exp(x - max)).ln()
}

multiversion! {
    /// The inner product of two rows.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 {
        reduce(a, b, |x, y, sum| x.mul_add(y, sum))
    }
}

multiversion! {
    /// The sum of a row's squares, for gradient norms; rows of 4,096 are summed in f32 and those sums in f64.
    pub fn sum_of_squares(row: &[f32]) -> f64 {
        row.chunks(4096).map(|part| f64::from(reduce(part, part, |x, y, sum| x.mul_add(y, sum)))).sum()
    }
}

multiversion! {
    /// The largest value of a row; minus infinity when it is empty.
    pub fn max(row: &[f32]) -> f32 {
        max_of(row)
    }
}

multiversion! {
    /// `x += y`.
    pub fn add(x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "rows have equal lengths");
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

multiversion! {
    /// `x *= factor`.
    pub fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}

multiversion! {
    /// Replaces x by e^(x - shift).
    pub fn exp_in_place(row: &mut [f32], shift: f32) {
        for x in row {
            *x = exp(*x - shift);
        }
    }
}

multiversion! {
    /// Replaces a row of scores by its softmax and returns log sum e^x.
    pub fn softmax(row: &mut [f32]) -> f32 {
        let max = max_of(row);
        let sum = exp_shifted(row, max);
        let factor = 1.0 / sum;
        for x in row {
            *x *= factor;
        }
        max + sum.ln()
    }
}

multiversion! {
    /// log softmax(row)[idx], in nats.
    pub fn log_softmax_at(row: &[f32], idx: usize) -> f32 {
        row[idx] - log_sum_exp(row, max_of(row))
    }
}

multiversion! {
    /// Replaces a row of logits by weight · d(-log p(target)) / d(logits) and returns log p(target).
    pub fn softmax_cross_entropy_backward(row: &mut [f32], target: usize, weight: f32) -> f32 {
        let max = max_of(row);
        let target_logit = row[target];
        let sum = exp_shifted(row, max);
        let factor = weight / sum;
        for x in row.iter_mut() {
            *x *= factor;
        }
        row[target] -= weight;
        target_logit - max - sum.ln()
    }
}

multiversion! {
    /// RMSNorm (arXiv 1910.07467): `out = x / rms(x) · (weight + offset)`; returns 1 / rms(x) for the backward pass.
    pub fn rms_norm(x: &[f32], weight: &[f32], offset: f32, epsilon: f32, out: &mut [f32]) -> f32 {
        let mean = reduce(x, x, |x, y, sum| x.mul_add(y, sum)) / x.len() as f32;
        let inverse = 1.0 / (mean + epsilon).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * inverse * (weight + offset);
        }
        inverse
    }
}

multiversion! {
    /// Adds RMSNorm's gradient with respect to x to `d_x`, given 1 / rms(x):
    /// `d_x += inverse · (g - x · inverse² · mean(g · x))` with g = d_out · (weight + offset).
    pub fn rms_norm_backward(d_out: &[f32], x: &[f32], weight: &[f32], offset: f32, inverse: f32, d_x: &mut [f32]) {
        assert!(x.len() == d_out.len() && x.len() == weight.len(), "rows have equal lengths");
        let mut sums = [0f32; PARTIALS];
        let whole = x.len() / PARTIALS * PARTIALS;
        for first in (0..whole).step_by(PARTIALS) {
            let (d_out, x, weight) = (&d_out[first..][..PARTIALS], &x[first..][..PARTIALS], &weight[first..][..PARTIALS]);
            for lane in 0..PARTIALS {
                sums[lane] = (d_out[lane] * (weight[lane] + offset)).mul_add(x[lane], sums[lane]);
            }
        }
        for (lane, position) in (whole..x.len()).enumerate() {
            sums[lane] = (d_out[position] * (weight[position] + offset)).mul_add(x[position], sums[lane]);
        }
        let shift = fold(sums) / x.len() as f32 * inverse * inverse;
        for (((d_x, d), x), weight) in d_x.iter_mut().zip(d_out).zip(x).zip(weight) {
            *d_x += inverse * (d * (weight + offset) - x * shift);
        }
    }
}

multiversion! {
    /// Adds RMSNorm's gradient with respect to its weight to `d_weight`, given 1 / rms(x).
    pub fn rms_norm_weight_backward(d_out: &[f32], x: &[f32], inverse: f32, d_weight: &mut [f32]) {
        for ((d_weight, d), x) in d_weight.iter_mut().zip(d_out).zip(x) {
            *d_weight += d * x * inverse;
        }
    }
}

multiversion! {
    /// Replaces the gradient with respect to probabilities by the one with respect to the scores that they are the softmax of
    /// after a multiplication with `factor`: `d = p · (d - shift) · factor`, shift = sum of p · d.
    pub fn softmax_backward(probabilities: &[f32], shift: f32, factor: f32, d: &mut [f32]) {
        for (d, p) in d.iter_mut().zip(probabilities) {
            *d = p * (*d - shift) * factor;
        }
    }
}

multiversion! {
    /// LayerNorm (arXiv 1607.06450) in place: `x = (x - mean) / sqrt(var + ε) · weight + bias`, var the population's.
    pub fn layer_norm(x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
        assert!(x.len() == weight.len() && x.len() == bias.len(), "rows have equal lengths");
        let d = x.len() as f32;
        let mean = reduce(x, x, |x, _, sum| sum + x) / d;
        for x in x.iter_mut() {
            *x -= mean;
        }
        let variance = reduce(x, x, |x, y, sum| x.mul_add(y, sum)) / d;
        let inverse = 1.0 / (variance + epsilon).sqrt();
        for ((x, weight), bias) in x.iter_mut().zip(weight).zip(bias) {
            *x = (*x * inverse).mul_add(*weight, *bias);
        }
    }
}

multiversion! {
    /// GELU (arXiv 1606.08415) in place: `x · Φ(x)`, with Φ by the error function.
    pub fn gelu(row: &mut [f32]) {
        for x in row {
            let half = 0.5 * *x;
            *x = half.mul_add(erf(*x * std::f32::consts::FRAC_1_SQRT_2), half);
        }
    }
}

multiversion! {
    /// GELU's approximation by tanh in place: `x · sigmoid(2 · sqrt(2 / π) · (x + 0.044715 x³))`.
    pub fn gelu_tanh(row: &mut [f32]) {
        for x in row {
            *x *= gelu_gate(*x);
        }
    }
}

multiversion! {
    /// Rotates every head of a row by its position (arXiv 2104.09864, halves paired as Hugging Face does):
    /// `cos` and `sin` hold head_dim / 2 values. The inverse rotation is the one with `sin` negated.
    pub fn rope(row: &mut [f32], cos: &[f32], sin: &[f32]) {
        let half = cos.len();
        for head in row.chunks_exact_mut(2 * half) {
            let (low, high) = head.split_at_mut(half);
            for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                let (a, b) = (*low, *high);
                *low = a * cos - b * sin;
                *high = b * cos + a * sin;
            }
        }
    }
}

multiversion! {
    /// SwiGLU (arXiv 2002.05202): `out = silu(gate) · up`.
    pub fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * sigmoid(*gate) * up;
        }
    }
}

multiversion! {
    /// Replaces gate and up by the gradients with respect to them.
    pub fn swiglu_backward(d_out: &[f32], gate: &mut [f32], up: &mut [f32]) {
        for ((d, gate), up) in d_out.iter().zip(gate).zip(up) {
            let s = sigmoid(*gate);
            let d_gate = d * *up * s * (1.0 + *gate * (1.0 - s));
            *up = d * *gate * s;
            *gate = d_gate;
        }
    }
}

multiversion! {
    /// GeGLU (arXiv 2002.05202): `out = gelu(gate) · up`, gelu by tanh.
    pub fn geglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * gelu_gate(*gate) * up;
        }
    }
}

multiversion! {
    /// [`swiglu_backward`] for [`geglu`].
    pub fn geglu_backward(d_out: &[f32], gate: &mut [f32], up: &mut [f32]) {
        for ((d, gate), up) in d_out.iter().zip(gate).zip(up) {
            let s = gelu_gate(*gate);
            let slope = GELU_FACTOR * (*gate * *gate).mul_add(3.0 * 0.044_715, 1.0);
            let d_gate = d * *up * s * (1.0 + *gate * (1.0 - s) * slope);
            *up = d * *gate * s;
            *gate = d_gate;
        }
    }
}

multiversion! {
    /// Updates parameters and both moments by a gradient that is multiplied with `factor` first (for clipping).
    pub(crate) fn adamw(
        settings: &Adamw,
        factor: f32,
        parameters: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let correction1 = 1.0 - settings.beta1.powi(settings.step);
        let correction2 = (1.0 - settings.beta2.powi(settings.step)).sqrt();
        let step_size = settings.learning_rate / correction1;
        let decay = 1.0 - settings.learning_rate * settings.weight_decay;
        let (beta1, beta2) = (settings.beta1, settings.beta2);
        for (((p, g), m), v) in parameters.iter_mut().zip(gradient).zip(first).zip(second) {
            let g = g * factor;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *p = *p * decay - step_size * *m / (v.sqrt() / correction2 + settings.epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(actual: f32, expected: f64, tolerance: f64) {
        assert!((f64::from(actual) - expected).abs() <= tolerance * (1.0 + expected.abs()), "{actual} != {expected}");
    }

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + 13) % 1009) as f32 / 252.0 - 2.0).collect()
    }

    /// d f / d x_i by central differences in f64.
    fn numeric(x: &[f32], idx: usize, f: impl Fn(&[f64]) -> f64) -> f64 {
        let mut wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let step = 1e-5;
        wide[idx] += step;
        let above = f(&wide);
        wide[idx] -= 2.0 * step;
        (above - f(&wide)) / (2.0 * step)
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let mut row = [x];
            exp_in_place(&mut row, 0.0);
            close(row[0] / x.exp(), 1.0, 1.3e-7);
        }
        let mut row = [-1000.0, f32::NEG_INFINITY];
        exp_in_place(&mut row, 0.0);
        assert_eq!(row, [0.0, 0.0]);
    }

    #[test]
    fn softmax_sums_to_one_and_agrees_with_its_log() {
        let row = values(77);
        let mut probabilities = row.clone();
        let lse = softmax(&mut probabilities);
        close(probabilities.iter().sum::<f32>(), 1.0, 1e-6);
        close(lse, row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln(), 1e-6);
        close(log_softmax_at(&row, 5), f64::from(probabilities[5]).ln(), 1e-6);
    }

    #[test]
    fn cross_entropy_gradient_is_probability_minus_target() {
        let row = values(40);
        let mut gradient = row.clone();
        let logprob = softmax_cross_entropy_backward(&mut gradient, 3, 0.5);
        close(logprob, f64::from(log_softmax_at(&row, 3)), 1e-6);
        for idx in [0, 3, 39] {
            let expected = numeric(&row, idx, |x| 0.5 * (x.iter().map(|x| x.exp()).sum::<f64>().ln() - x[3]));
            close(gradient[idx], expected, 1e-5);
        }
    }

    #[test]
    fn rms_norm_and_its_gradient() {
        for offset in [0.0, 1.0] {
            check_rms_norm(offset);
        }
    }

    fn check_rms_norm(offset: f32) {
        let (x, weight, d_out) = (values(37), values(74)[37..].to_vec(), values(111)[74..].to_vec());
        let mut out = vec![0.0; 37];
        let inverse = rms_norm(&x, &weight, offset, 1e-5, &mut out);
        let loss = |x: &[f64]| {
            let rms = (x.iter().map(|x| x * x).sum::<f64>() / 37.0 + 1e-5).sqrt();
            (0..37).map(|i| f64::from(d_out[i]) * x[i] / rms * f64::from(weight[i] + offset)).sum::<f64>()
        };
        let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        close(dot(&out, &d_out), loss(&wide), 1e-5);
        let mut d_x = vec![1.0; 37];
        rms_norm_backward(&d_out, &x, &weight, offset, inverse, &mut d_x);
        for idx in [0, 17, 36] {
            close(d_x[idx], 1.0 + numeric(&x, idx, loss), 1e-4);
        }
    }

    #[test]
    fn gated_activations_and_their_gradients() {
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let gelu = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh());
        check_gated(swiglu, swiglu_backward, silu);
        check_gated(geglu, geglu_backward, gelu);
    }

    fn check_gated(
        forward: fn(&[f32], &[f32], &mut [f32]),
        backward: fn(&[f32], &mut [f32], &mut [f32]),
        activation: fn(f64) -> f64,
    ) {
        let (gate, up, d_out) = (values(33), values(66)[33..].to_vec(), values(99)[66..].to_vec());
        let (mut d_gate, mut d_up) = (gate.clone(), up.clone());
        backward(&d_out, &mut d_gate, &mut d_up);
        for idx in [0, 4, 16, 32] {
            let by_gate = numeric(&gate, idx, |g| f64::from(d_out[idx]) * activation(g[idx]) * f64::from(up[idx]));
            let by_up = numeric(&up, idx, |u| f64::from(d_out[idx]) * activation(f64::from(gate[idx])) * u[idx]);
            close(d_gate[idx], by_gate, 1e-4);
            close(d_up[idx], by_up, 1e-4);
        }
        let mut out = vec![0.0; 33];
        forward(&gate, &up, &mut out);
        for idx in 0..33 {
            close(out[idx], activation(f64::from(gate[idx])) * f64::from(up[idx]), 1e-5);
        }
    }

    #[test]
    fn layer_norm_centres_and_scales() {
        let (row, weight, bias) = (values(37), values(74)[37..].to_vec(), values(111)[74..].to_vec());
        let mut normed = row.clone();
        layer_norm(&mut normed, &weight, &bias, 1e-5);
        let wide: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let mean = wide.iter().sum::<f64>() / 37.0;
        let variance = wide.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 37.0;
        for idx in 0..37 {
            let expected =
                (wide[idx] - mean) / (variance + 1e-5).sqrt() * f64::from(weight[idx]) + f64::from(bias[idx]);
            close(normed[idx], expected, 1e-6);
        }
    }

    #[test]
    fn gelu_and_its_approximation() {
        // torch.nn.functional.gelu in f64, without and with approximate="tanh".
        let inputs = [-6.0, -3.0, -1.0, -0.5, 0.0, 0.1, 0.7, 2.0, 5.0];
        let exact =
            [-6e-09, -0.004049694, -0.158655254, -0.154268769, 0.0, 0.053982784, 0.530625443, 1.954499736, 4.999998567];
        let tanh =
            [-0.0, -0.003637392, -0.158808009, -0.15428599, 0.0, 0.053982751, 0.530570135, 1.954597694, 4.999999771];
        let (mut a, mut b) = (inputs, inputs);
        gelu(&mut a);
        gelu_tanh(&mut b);
        for idx in 0..inputs.len() {
            close(a[idx], exact[idx], 2e-6);
            close(b[idx], tanh[idx], 1e-6);
        }
        // The clamped tail must stay negligible: -x · Φ(-x) at most x · 5e-7 / 2.
        let mut far = [-40.0, 40.0];
        gelu(&mut far);
        assert!(far[0].abs() <= 1e-5 && (far[1] - 40.0).abs() <= 1e-5, "{far:?}");
    }

    #[test]
    fn rope_is_undone_by_the_negated_sine() {
        let row = values(24);
        let angles = [0.3f32, 1.1, 2.9, 4.0];
        let (cos, sin) = (angles.map(f32::cos), angles.map(f32::sin));
        let mut turned = row.clone();
        rope(&mut turned, &cos, &sin);
        close(turned[0], f64::from(row[0] * cos[0] - row[4] * sin[0]), 1e-6);
        rope(&mut turned, &cos, &sin.map(|x| -x));
        for (turned, row) in turned.iter().zip(&row) {
            close(*turned, f64::from(*row), 1e-5);
        }
    }

    #[test]
    fn adamw_takes_the_first_step_of_torch() {
        // torch.optim.AdamW([1.0], lr=0.1, weight_decay=0.01), gradient 0.5: 1 - 0.1*0.01 - 0.1*0.5/(0.5 + 1e-8).
        let settings =
            Adamw { learning_rate: 0.1, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, step: 1 };
        let (mut p, mut m, mut v) = ([1.0], [0.0], [0.0]);
        adamw(&settings, 0.5, &mut p, &[1.0], &mut m, &mut v);
        close(p[0], 0.899, 1e-6);
        close(m[0], 0.05, 1e-6);
        close(v[0], 0.00025, 1e-6);
    }
}
