//! The rotary part of a config.json: its base and how it is stretched, as old and new transformers write it.
use super::Fields;
use crate::ModelError;

/// A rotary embedding (arXiv 2104.09864).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f32,
    /// How the frequencies are stretched.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are stretched for contexts longer than those of pre-training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions are divided by `factor`.
    Linear {
        /// How many times longer.
        factor: f32,
    },
    /// Llama 3.1's: long wavelengths are divided by `factor`, short ones kept, those between interpolated.
    Llama3 {
        /// How many times longer.
        factor: f32,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are divided.
        low_freq_factor: f32,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// The context of pre-training.
        original_max_position_embeddings: usize,
    },
    /// YaRN (arXiv 2309.00071): as `Llama3`, but the bounds are numbers of rotations, between which the dimensions, not the
    /// wavelengths, are interpolated; and what is rotated is stretched.
    Yarn {
        /// How many times longer.
        factor: f32,
        /// Dimensions that turn more often than this within the original context are kept.
        beta_fast: f32,
        /// Dimensions that turn less often than this are divided.
        beta_slow: f32,
        /// The context of pre-training.
        original_max_position_embeddings: usize,
        /// Whether the bounds are whole dimensions.
        truncate: bool,
        /// Queries and keys are multiplied with it.
        attention_factor: f32,
    },
}

impl Rope {
    /// Reads `rope`, where there is one, of the configuration `all`; `theta` is what holds when `rope` names none.
    pub(super) fn read(all: &Fields, rope: Option<&Fields>, theta: f32) -> Result<Self, ModelError> {
        let Some(rope) = rope else { return Ok(Self { theta, scaling: RopeScaling::None }) };
        if let Some(factor) = rope.number("partial_rotary_factor")?.filter(|&factor| factor != 1.0) {
            return Err(rope.unsupported(format!("`partial_rotary_factor` {factor}")));
        }
        let theta = rope.number("rope_theta")?.unwrap_or(theta);
        Ok(Self { theta, scaling: RopeScaling::read(all, rope)? })
    }
}

impl RopeScaling {
    fn read(all: &Fields, rope: &Fields) -> Result<Self, ModelError> {
        let kind = rope.text("rope_type")?.or(rope.text("type")?).unwrap_or("default");
        let required = |name: &str| {
            rope.number(name)?.ok_or_else(|| rope.invalid(format!("rope scaling `{kind}` lacks `{name}`")))
        };
        let original_max_position_embeddings = match all.count("original_max_position_embeddings")? {
            Some(count) => count,
            None => match rope.count("original_max_position_embeddings")? {
                Some(count) => count,
                None => all.count("max_position_embeddings")?.unwrap_or(super::DEFAULT_MAX_POSITIONS),
            },
        };
        let scaling = match kind {
            "default" => Self::None,
            // Stretches only sequences longer than max_position_embeddings, and those are not computed.
            "dynamic" => Self::None,
            "linear" => Self::Linear { factor: required("factor")? },
            "llama3" => Self::Llama3 {
                factor: required("factor")?,
                low_freq_factor: required("low_freq_factor")?,
                high_freq_factor: required("high_freq_factor")?,
                original_max_position_embeddings,
            },
            "yarn" => {
                let factor = required("factor")?;
                // transformers takes 0 for an absent value.
                let or = |name: &str, default: f32| -> Result<f32, ModelError> {
                    Ok(rope.number(name)?.filter(|number| *number != 0.0).unwrap_or(default))
                };
                Self::Yarn {
                    factor,
                    beta_fast: or("beta_fast", 32.0)?,
                    beta_slow: or("beta_slow", 1.0)?,
                    original_max_position_embeddings,
                    truncate: rope.get("truncate").is_none() || rope.flag("truncate")?,
                    attention_factor: yarn_attention_factor(rope, factor)?,
                }
            }
            _ => return Err(rope.unsupported(format!("rope scaling `{kind}`"))),
        };
        match scaling {
            Self::Linear { factor } | Self::Llama3 { factor, .. } | Self::Yarn { factor, .. }
                if factor.is_nan() || factor <= 0.0 =>
            {
                Err(rope.invalid(format!("rope scaling factor is {factor}")))
            }
            Self::Llama3 { low_freq_factor, high_freq_factor, .. } if low_freq_factor >= high_freq_factor => {
                Err(rope.invalid(format!("low_freq_factor {low_freq_factor} >= high_freq_factor {high_freq_factor}")))
            }
            Self::Yarn { beta_fast, beta_slow, attention_factor, .. }
                if !(beta_slow > 0.0 && beta_fast >= beta_slow && attention_factor > 0.0) =>
            {
                let reason =
                    format!("beta_fast {beta_fast}, beta_slow {beta_slow}, attention_factor {attention_factor}");
                Err(rope.invalid(format!("no YaRN has {reason}")))
            }
            _ => Ok(scaling),
        }
    }
}

/// What the configuration says, else `0.1 ln(factor) + 1` (arXiv 2309.00071, equation 22), which DeepSeek's `mscale` and
/// `mscale_all_dim` make a quotient of two.
fn yarn_attention_factor(rope: &Fields, factor: f32) -> Result<f32, ModelError> {
    if let Some(attention_factor) = rope.number("attention_factor")? {
        return Ok(attention_factor);
    }
    let logarithm = if factor <= 1.0 { 0.0 } else { f64::from(factor).ln() };
    let scale = |mscale: f32| 0.1 * f64::from(mscale) * logarithm + 1.0;
    let given = |name: &str| Ok::<_, ModelError>(rope.number(name)?.filter(|mscale| *mscale != 0.0));
    Ok(match (given("mscale")?, given("mscale_all_dim")?) {
        (Some(mscale), Some(all_dim)) => scale(mscale) / scale(all_dim),
        _ => scale(1.0),
    } as f32)
}
