//! Rotary position embeddings (RoPE, Su et al., 2021): queries and keys are rotated by angles proportional to position.

use std::f64::consts::TAU;

use burn::tensor::{Device, Tensor, TensorData};

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
            Tensor::from_data(TensorData::new(values, [1, 1, seq, dim]), &device.clone().without_autodiff())
        };
        Self {
            cos: tensor(&|angle, _| angle.cos()),
            signed_sin: tensor(&|angle, first| if first { -angle.sin() } else { angle.sin() }),
        }
    }

    /// For the tokens of a text: channel `c < dim / 2` rotates by `theta^(-2c / dim)` per token (Su et al., 2021, sec.
    /// 3.2.2).
    pub fn of_tokens(seq: usize, dim: usize, theta: f64, device: &Device) -> Self {
        let frequencies: Vec<f64> = (0..dim / 2).map(|n| theta.powf(-2.0 * n as f64 / dim as f64)).collect();
        let angles: Vec<f64> =
            (0..seq).flat_map(|token| frequencies.iter().map(move |frequency| token as f64 * frequency)).collect();
        Self::new(&angles, dim, device)
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
