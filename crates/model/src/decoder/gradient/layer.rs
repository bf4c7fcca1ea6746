//! A layer of a pass, forward and backward.
use super::attend::AttentionBuffers;
use super::tape::{LayerSaved, Normed, Scratch};
use super::{Gradients, Pass};
use crate::config::Activation;
use crate::decoder::{Base, Norm, Projection, infer::MIN_ROWS};
use exsearch_kernels::{
    MatMut, MatRef, add, geglu_backward, matmul_packed, matmul_transposed, rms_norm, rms_norm_backward,
    rms_norm_weight_backward, scale, swiglu_backward,
};
use rayon::prelude::*;

type Saved<'a> = LayerSaved<&'a mut [f32]>;

impl Pass<'_> {
    /// Runs a layer on `x` `[t, h]` in place and keeps what its backward pass needs.
    pub(super) fn layer(&self, layer_idx: usize, saved: &mut Saved<'_>, x: &mut [f32], scratch: &mut Scratch<'_>) {
        self.attention(layer_idx, saved, x, scratch);
        self.gates(layer_idx, saved, x, scratch);
        self.mlp_output(layer_idx, saved, x, scratch);
    }

    /// What [`Pass::layer`] keeps, from the layer's input, which it destroys.
    pub(super) fn layer_again(
        &self,
        layer_idx: usize,
        saved: &mut Saved<'_>,
        x: &mut [f32],
        scratch: &mut Scratch<'_>,
    ) {
        self.attention(layer_idx, saved, x, scratch);
        self.gates(layer_idx, saved, x, scratch);
        if self.norm(layer_idx, Norm::MlpOutput).is_some() {
            return self.mlp_output(layer_idx, saved, x, scratch);
        }
        // Without this norm the backward pass needs nothing of what the MLP gives but what went into the adapter's B.
        let down = self.decoder.linear(layer_idx, Projection::Down, self.adapter);
        if down.lora.is_some() {
            let [_, _, _, active, ..] = scratch.take(self.mlp_lengths());
            self.decoder.activate(saved.gate, saved.up, active);
            let active = MatRef::new(active, self.positions.len(), self.decoder.config.intermediate_size);
            down.inner_into(active, saved.inner[Projection::Down as usize]);
        }
    }

    /// Buffers of the attention, forward and backward.
    pub(super) fn attention_lengths(&self) -> [usize; 13] {
        let config = &self.decoder.config;
        let (t, panels) = (self.positions.len(), self.panels_length());
        let (width, kv_width) = (t * config.n_heads * config.head_dim, t * config.n_kv_heads * config.head_dim);
        let stream = t * config.hidden_size;
        let before = stream.max(width);
        [
            stream,
            stream,
            before,
            width,
            width,
            kv_width,
            kv_width,
            self.inner_length(),
            width,
            width,
            width,
            panels,
            panels,
        ]
    }

    /// Buffers of the MLP, forward and backward.
    pub(super) fn mlp_lengths(&self) -> [usize; 6] {
        let config = &self.decoder.config;
        let t = self.positions.len();
        let (stream, wide) = (t * config.hidden_size, t * config.intermediate_size);
        [stream, stream, stream, wide, wide, self.inner_length()]
    }

    fn inner_length(&self) -> usize {
        self.positions.len() * Projection::ALL.map(|projection| self.rank(projection)).into_iter().max().unwrap_or(0)
    }

    /// `x += norm?(output(attention(rope(norm?(query(n))), rope(norm?(key(n))), value(n))))`, n = norm(x)
    fn attention(&self, layer_idx: usize, saved: &mut Saved<'_>, x: &mut [f32], scratch: &mut Scratch<'_>) {
        let [normed, out, .., part_a, part_b, part_c, key_panels, value_panels] =
            scratch.take(self.attention_lengths());
        saved.norms[Norm::Attention as usize].x.copy_from_slice(x);
        self.normalize(layer_idx, Norm::Attention, &mut saved.norms, normed);
        let Saved { norms, queries, keys, values, inner, .. } = saved;
        self.linear_normed(layer_idx, (Projection::Query, Norm::Query), normed, norms, inner, queries);
        self.linear_normed(layer_idx, (Projection::Key, Norm::Key), normed, norms, inner, keys);
        self.linear(layer_idx, Projection::Value, normed, inner, values);
        self.decoder.rotate(layer_idx, queries, &self.positions);
        self.decoder.rotate(layer_idx, keys, &self.positions);
        let buffers = AttentionBuffers { by_head: [part_a, part_b, part_c], panels: [key_panels, value_panels] };
        self.attend(layer_idx, saved, buffers);
        let Saved { norms, attended, inner, .. } = saved;
        self.linear_normed(layer_idx, (Projection::Output, Norm::AttentionOutput), attended, norms, inner, out);
        add(x, out);
    }

    /// Gate and up of norm(x).
    fn gates(&self, layer_idx: usize, saved: &mut Saved<'_>, x: &[f32], scratch: &mut Scratch<'_>) {
        let [normed, ..] = scratch.take(self.mlp_lengths());
        saved.norms[Norm::Mlp as usize].x.copy_from_slice(x);
        self.normalize(layer_idx, Norm::Mlp, &mut saved.norms, normed);
        self.linear(layer_idx, Projection::Gate, normed, &mut saved.inner, saved.gate);
        self.linear(layer_idx, Projection::Up, normed, &mut saved.inner, saved.up);
    }

    /// `x += norm?(down(act(gate) · up))`
    fn mlp_output(&self, layer_idx: usize, saved: &mut Saved<'_>, x: &mut [f32], scratch: &mut Scratch<'_>) {
        let [out, _, _, active, ..] = scratch.take(self.mlp_lengths());
        self.decoder.activate(saved.gate, saved.up, active);
        let (down, norm) = (Projection::Down, Norm::MlpOutput);
        self.linear_normed(layer_idx, (down, norm), active, &mut saved.norms, &mut saved.inner, out);
        add(x, out);
    }

    /// The weight of a norm, where the layer has it.
    fn norm(&self, layer_idx: usize, norm: Norm) -> Option<&[f32]> {
        self.decoder.parameters.layers[layer_idx].norm(norm)
    }

    fn linear(
        &self,
        layer_idx: usize,
        projection: Projection,
        input: &[f32],
        inner: &mut [&mut [f32]; 7],
        out: &mut [f32],
    ) {
        let linear = self.decoder.linear(layer_idx, projection, self.adapter);
        linear.forward_into(Base::F32(linear.base), input, self.positions.len(), out, inner[projection as usize]);
    }

    /// A projection and, where the layer has it, the norm of what comes out of it.
    fn linear_normed(
        &self,
        layer_idx: usize,
        (projection, norm): (Projection, Norm),
        input: &[f32],
        norms: &mut [Normed<&mut [f32]>; 6],
        inner: &mut [&mut [f32]; 7],
        out: &mut [f32],
    ) {
        if self.norm(layer_idx, norm).is_none() {
            return self.linear(layer_idx, projection, input, inner, out);
        }
        self.linear(layer_idx, projection, input, inner, norms[norm as usize].x);
        self.normalize(layer_idx, norm, norms, out);
    }

    /// RMSNorm of what is kept for it.
    fn normalize(&self, layer_idx: usize, norm: Norm, norms: &mut [Normed<&mut [f32]>; 6], out: &mut [f32]) {
        let weight = self.norm(layer_idx, norm).expect("a norm that the layer has");
        let Normed { x, inverses } = &mut norms[norm as usize];
        let (offset, epsilon) = (self.decoder.config.norm_offset, self.decoder.config.rms_norm_eps);
        let width = weight.len();
        let rows = out.par_chunks_exact_mut(width).zip(x.par_chunks_exact(width)).zip(&mut **inverses);
        let one = |((out, x), inverse): ((&mut [f32], &[f32]), &mut f32)| {
            *inverse = rms_norm(x, weight, offset, epsilon, out);
        };
        rows.with_min_len(MIN_ROWS).for_each(one);
    }

    /// Replaces the gradient with respect to a layer's output by the one with respect to its input.
    pub(super) fn layer_backward(
        &mut self,
        layer_idx: usize,
        saved: &mut Saved<'_>,
        d_x: &mut [f32],
        scratch: &mut Scratch<'_>,
    ) {
        self.mlp_backward(layer_idx, saved, d_x, scratch);
        self.attention_backward(layer_idx, saved, d_x, scratch);
    }

    /// Through [`Pass::mlp_output`] and [`Pass::gates`].
    fn mlp_backward(&mut self, layer_idx: usize, saved: &mut Saved<'_>, d_x: &mut [f32], scratch: &mut Scratch<'_>) {
        let [normed, d_normed, before, active, d_active, d_inner] = scratch.take(self.mlp_lengths());
        let i = self.decoder.config.intermediate_size;
        self.decoder.activate(saved.gate, saved.up, active);
        let d_output = self.before_norm(layer_idx, Norm::MlpOutput, saved, d_x, before);
        let down = Projection::Down;
        self.linear_backward(layer_idx, down, saved, (active, d_output), d_inner, (d_active, false));
        let activation_backward = match self.decoder.config.activation {
            Activation::Silu => swiglu_backward,
            Activation::GeluTanh => geglu_backward,
        };
        let gates = saved.gate.par_chunks_exact_mut(i).zip(saved.up.par_chunks_exact_mut(i));
        let rows = d_active.par_chunks_exact(i).zip(gates).with_min_len(MIN_ROWS);
        rows.for_each(|(d_active, (gate, up))| activation_backward(d_active, gate, up));
        self.normalize(layer_idx, Norm::Mlp, &mut saved.norms, normed);
        let (d_gate, d_up) = (&*saved.gate, &*saved.up);
        self.linear_backward(layer_idx, Projection::Gate, saved, (normed, d_gate), d_inner, (d_normed, false));
        self.linear_backward(layer_idx, Projection::Up, saved, (normed, d_up), d_inner, (d_normed, true));
        self.norm_backward(layer_idx, Norm::Mlp, saved, d_normed, d_x);
    }

    /// Through [`Pass::attention`].
    fn attention_backward(
        &mut self,
        layer_idx: usize,
        saved: &mut Saved<'_>,
        d_x: &mut [f32],
        scratch: &mut Scratch<'_>,
    ) {
        let [normed, d_normed, before, d_attended, d_queries, d_keys, d_values, d_inner, buffers @ ..] =
            scratch.take(self.attention_lengths());
        let d_output = self.before_norm(layer_idx, Norm::AttentionOutput, saved, d_x, before);
        let output = Projection::Output;
        self.linear_backward(layer_idx, output, saved, (saved.attended, d_output), d_inner, (d_attended, false));
        let [part_a, part_b, part_c, key_panels, value_panels] = buffers;
        let buffers = AttentionBuffers { by_head: [part_a, part_b, part_c], panels: [key_panels, value_panels] };
        self.attend_backward(layer_idx, saved, d_attended, [d_queries, d_keys, d_values], buffers);
        self.decoder.rotate_back(layer_idx, d_queries, &self.positions);
        self.decoder.rotate_back(layer_idx, d_keys, &self.positions);
        self.normalize(layer_idx, Norm::Attention, &mut saved.norms, normed);
        let d_queries = self.before_norm(layer_idx, Norm::Query, saved, d_queries, before);
        self.linear_backward(layer_idx, Projection::Query, saved, (normed, d_queries), d_inner, (d_normed, false));
        let d_keys = self.before_norm(layer_idx, Norm::Key, saved, d_keys, before);
        self.linear_backward(layer_idx, Projection::Key, saved, (normed, d_keys), d_inner, (d_normed, true));
        self.linear_backward(layer_idx, Projection::Value, saved, (normed, d_values), d_inner, (d_normed, true));
        self.norm_backward(layer_idx, Norm::Attention, saved, d_normed, d_x);
    }

    /// The gradient before a norm that [`Pass::linear_normed`] did, in `buffer`, given the one behind it; the same where it did
    /// nothing.
    fn before_norm<'d>(
        &mut self,
        layer_idx: usize,
        norm: Norm,
        saved: &Saved<'_>,
        d_out: &'d [f32],
        buffer: &'d mut [f32],
    ) -> &'d [f32] {
        if self.norm(layer_idx, norm).is_none() {
            return d_out;
        }
        let d_x = &mut buffer[..d_out.len()];
        d_x.fill(0.0);
        self.norm_backward(layer_idx, norm, saved, d_out, d_x);
        d_x
    }

    /// Adds the gradient through a norm to `d_x`, and to the gradients that of its weight.
    fn norm_backward(&mut self, layer_idx: usize, norm: Norm, saved: &Saved<'_>, d_out: &[f32], d_x: &mut [f32]) {
        let weight = self.norm(layer_idx, norm).expect("what was normalized has a norm");
        let (offset, width) = (self.decoder.config.norm_offset, weight.len());
        let Normed { x, inverses } = &saved.norms[norm as usize];
        let rows = d_out.par_chunks_exact(width).zip(x.par_chunks_exact(width)).zip(&**inverses);
        rows.zip(d_x.par_chunks_exact_mut(width))
            .with_min_len(MIN_ROWS)
            .for_each(|(((d_out, x), inverse), d_x)| rms_norm_backward(d_out, x, weight, offset, *inverse, d_x));
        if let Gradients::Full(gradients) = self.gradients {
            let gradient = gradients.layers[layer_idx].norms[norm as usize].as_mut();
            let d_weight = gradient.expect("a gradient for each weight");
            let rows = d_out.chunks_exact(width).zip(x.chunks_exact(width)).zip(&**inverses);
            rows.for_each(|((d_out, x), inverse)| rms_norm_weight_backward(d_out, x, *inverse, d_weight));
        }
    }

    /// Adds a projection's gradients, given its input `x` and the gradient `d_y` with respect to its output, and writes the
    /// gradient with respect to its input to `d_x`, or adds it there with `accumulate`.
    fn linear_backward(
        &mut self,
        layer_idx: usize,
        projection: Projection,
        saved: &Saved<'_>,
        (x, d_y): (&[f32], &[f32]),
        d_inner: &mut [f32],
        (d_x, accumulate): (&mut [f32], bool),
    ) {
        let (t, slot) = (self.positions.len(), projection as usize);
        let (n_in, n_out) = projection.sizes(&self.decoder.config);
        if let Gradients::Full(gradients) = self.gradients
            && let Some(d_bias) = &mut gradients.layers[layer_idx].biases[slot]
        {
            d_y.chunks_exact(n_out).for_each(|row| add(d_bias, row));
        }
        let (x, d_y) = (MatRef::new(x, t, n_in), MatRef::new(d_y, t, n_out));
        let base = &self.decoder.parameters.layers[layer_idx].linears[slot];
        matmul_transposed(d_y, base, MatMut::new(d_x, t, n_in), accumulate);
        match self.gradients {
            Gradients::Full(gradients) => {
                matmul_packed(x.transposed(), d_y, &mut gradients.layers[layer_idx].linears[slot], true);
            }
            Gradients::Adapter(gradients) => {
                let Some(gradient) = &mut gradients.layers[layer_idx][slot] else { return };
                let adapter = self.adapter.expect("an adapter is trained");
                let pair = adapter.layers[layer_idx][slot].as_ref().expect("a pair for each gradient");
                let rank = pair.a.n();
                let inner = MatRef::new(&saved.inner[slot][..t * rank], t, rank);
                matmul_packed(inner.transposed(), d_y, &mut gradient.b, true);
                let d_inner = &mut d_inner[..t * rank];
                matmul_transposed(d_y, &pair.b, MatMut::new(d_inner, t, rank), false);
                scale(d_inner, adapter.scale());
                let d_inner = MatRef::new(d_inner, t, rank);
                matmul_packed(x.transposed(), d_inner, &mut gradient.a, true);
                matmul_transposed(d_inner, &pair.a, MatMut::new(d_x, t, n_in), true);
            }
        }
    }
}
