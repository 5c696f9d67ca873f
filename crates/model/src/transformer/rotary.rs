//! Rotary position embeddings (RoPE, Su et al., 2021): queries and keys are rotated by angles proportional to position.

use std::f64::consts::TAU;

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_kernels::upload;

/// How rotary frequencies are stretched to texts that are longer than those of the pretraining.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RotaryScaling {
    /// Every frequency is divided by the factor (Chen et al., 2023, arXiv:2306.15595).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Frequencies with a wavelength above `length / low` are divided by the factor, those with one below
    /// `length / high` are not, and those between are interpolated (Llama 3.1, Grattafiori et al., 2024).
    Llama3 {
        /// The factor.
        factor: f64,
        /// `low_freq_factor`.
        low: f64,
        /// `high_freq_factor`.
        high: f64,
        /// `original_max_position_embeddings`, in tokens.
        length: f64,
    },
    /// The base is multiplied by the factor, and every frequency is divided by `factor^(2 / dim)` (GTE, Zhang et al.,
    /// 2024).
    Ntk {
        /// The factor.
        factor: f64,
    },
}

impl RotaryScaling {
    /// The written form, for cache keys (see `form`).
    pub(crate) fn form(self) -> String {
        match self {
            Self::Linear { factor } => format!(" linear={factor}"),
            Self::Llama3 { factor, low, high, length } => format!(" llama3={factor},{low},{high},{length}"),
            Self::Ntk { factor } => format!(" ntk={factor}"),
        }
    }
}

/// The rotation per token of each of `dim / 2` channels, in radians: `theta^(-2c / dim)` (Su et al., 2021, sec. 3.2.2),
/// scaled.
pub(crate) fn rotary_frequencies(dim: usize, theta: f64, scaling: Option<RotaryScaling>) -> Vec<f64> {
    let theta = match scaling {
        Some(RotaryScaling::Ntk { factor }) => theta * factor,
        _ => theta,
    };
    let scaled = |frequency: f64| match scaling {
        None => frequency,
        Some(RotaryScaling::Linear { factor }) => frequency / factor,
        Some(RotaryScaling::Ntk { factor }) => frequency / factor.powf(2.0 / dim as f64),
        Some(RotaryScaling::Llama3 { factor, low, high, length }) => {
            let wavelengths = length * frequency / TAU;
            let kept = ((wavelengths - low) / (high - low)).clamp(0.0, 1.0);
            frequency * (kept + (1.0 - kept) / factor)
        }
    };
    (0..dim / 2).map(|n| scaled(theta.powf(-2.0 * n as f64 / dim as f64))).collect()
}

/// Cosine and sine of one angle per position and channel.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    /// `[1, 1, seq, dim]`, without gradients.
    cos: Tensor<4>,
    /// `[1, 1, seq, dim]`, negated in the first half of the channels.
    signed_sin: Tensor<4>,
}

impl Rotary {
    /// `angles` are `[seq, dim / 2]`, in radians. Channel `c` is paired with channel `c + dim / 2` (the reference's
    /// `rotate_half`).
    pub fn new(angles: &[f64], dim: usize, device: &Device) -> Self {
        let half = dim / 2;
        let seq = angles.len() / half.max(1);
        let tensor = |value: &dyn Fn(f64, bool) -> f64| {
            let row = |angles: &[f64]| -> Vec<f32> {
                let channel = |channel: usize| value(angles[channel % half], channel < half) as f32;
                (0..dim).map(channel).collect()
            };
            let values: Vec<f32> = angles.chunks_exact(half).flat_map(row).collect();
            upload(TensorData::new(values, [1, 1, seq, dim]), &device.clone().without_autodiff())
        };
        Self {
            cos: tensor(&|angle, _| angle.cos()),
            signed_sin: tensor(&|angle, first| if first { -angle.sin() } else { angle.sin() }),
        }
    }

    /// For the tokens of a text: channel `c < dim / 2` rotates by `frequencies[c]` per token, in radians.
    pub fn of_tokens(seq: usize, frequencies: &[f64], device: &Device) -> Self {
        let angles: Vec<f64> =
            (0..seq).flat_map(|token| frequencies.iter().map(move |frequency| token as f64 * frequency)).collect();
        Self::new(&angles, 2 * frequencies.len(), device)
    }

    /// For `special` tokens, which are not rotated, then a `grid` of patches `[rows, columns]`. Half of a patch's
    /// angles depend on its row and half on its column, both from -1 to 1 over the image (DINOv3, Siméoni et al.,
    /// 2025, sec. 3.2).
    pub fn of_patches(grid: [usize; 2], special: usize, dim: usize, theta: f64, device: &Device) -> Self {
        let center = |at: usize, count: usize| 2.0 * (at as f64 + 0.5) / count as f64 - 1.0;
        let frequencies: Vec<f64> = (0..dim / 4).map(|n| TAU * theta.powf(-4.0 * n as f64 / dim as f64)).collect();
        let mut angles = vec![0.0; special * (dim / 2)];
        for row in 0..grid[0] {
            for column in 0..grid[1] {
                for place in [center(row, grid[0]), center(column, grid[1])] {
                    angles.extend(frequencies.iter().map(|frequency| place * frequency));
                }
            }
        }
        Self::new(&angles, dim, device)
    }

    /// Rotates `[batch, heads, seq, dim]`.
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, _, dim] = x.dims();
        let (first, second) = (x.clone().narrow(3, 0, dim / 2), x.clone().narrow(3, dim / 2, dim / 2));
        let [cos, sin] = [&self.cos, &self.signed_sin].map(|table| table.clone().cast(x.dtype()));
        x * cos + Tensor::cat(vec![second, first], 3) * sin
    }
}
