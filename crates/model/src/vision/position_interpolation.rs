//! Interpolation of position embeddings and relative position tables to another image size, as the linear maps of
//! `torch.nn.functional.interpolate(align_corners=False)`.

use burn::tensor::{Device, Tensor, TensorData};

/// How a grid of embeddings is interpolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// `mode="bilinear"`.
    Bilinear,
    /// `mode="bicubic"`.
    Bicubic,
    /// `mode="bicubic", antialias=True`: the filter widens when the grid shrinks.
    BicubicAntialias,
}

/// The points of the old line that one point of the new line is computed from, with their weights.
type Taps = Vec<(usize, f64)>;

impl Interpolation {
    /// The written form, for cache keys (see `form`).
    pub(crate) fn form(self) -> &'static str {
        match self {
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::BicubicAntialias => "bicubic-antialias",
        }
    }

    /// The matrix that interpolates an `old` grid `[rows, columns]` to a `new` one, on `device` and without gradients:
    /// `[new rows * new columns, old rows * old columns]`.
    pub(crate) fn matrix(self, old: [usize; 2], new: [usize; 2], device: &Device) -> Tensor<2> {
        let shape = [new[0] * new[1], old[0] * old[1]];
        let data = TensorData::new(self.weights(old, new), shape);
        Tensor::from_data(data, &device.clone().without_autodiff())
    }

    fn weights(self, old: [usize; 2], new: [usize; 2]) -> Vec<f32> {
        let (rows, columns) = (self.taps(old[0], new[0]), self.taps(old[1], new[1]));
        let area = old[0] * old[1];
        let mut matrix = vec![0.0; new[0] * new[1] * area];
        let points = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
        for (line, (row, column)) in matrix.chunks_exact_mut(area).zip(points) {
            for &(y, y_weight) in row {
                for &(x, x_weight) in column {
                    line[y * old[1] + x] += (y_weight * x_weight) as f32;
                }
            }
        }
        matrix
    }

    /// The taps of each of `new` points, on a line of `old` points.
    fn taps(self, old: usize, new: usize) -> Vec<Taps> {
        let scale = old as f64 / new as f64;
        let last = (old - 1) as f64;
        let clamp = |position: f64| position.clamp(0.0, last) as usize;
        let taps = |point: usize| -> Taps {
            let center = (point as f64 + 0.5) * scale;
            match self {
                Self::Bilinear => {
                    let source = (center - 0.5).max(0.0);
                    let (start, t) = (source.floor(), source.fract());
                    vec![(clamp(start), 1.0 - t), (clamp(start + 1.0), t)]
                }
                Self::Bicubic => {
                    let source = center - 0.5;
                    let (start, t) = (source.floor(), source - source.floor());
                    let tap = |offset: f64| (clamp(start + offset), cubic(t - offset, CUBIC));
                    [-1.0, 0.0, 1.0, 2.0].map(tap).to_vec()
                }
                Self::BicubicAntialias => {
                    let widening = scale.max(1.0);
                    let support = 2.0 * widening;
                    let first = (center - support + 0.5).max(0.0) as usize;
                    let end = ((center + support + 0.5) as usize).min(old);
                    let weight = |at: usize| cubic((at as f64 + 0.5 - center) / widening, CUBIC_ANTIALIAS);
                    let sum: f64 = (first..end).map(weight).sum();
                    (first..end).map(|at| (at, weight(at) / sum)).collect()
                }
            }
        };
        (0..new).map(taps).collect()
    }
}

/// PyTorch's cubic coefficient (`aten/native/UpSample.h`).
const CUBIC: f64 = -0.75;

/// The coefficient of its antialiasing filter, the same as Pillow's (`aten/native/cpu/UpSampleKernel.cpp`).
const CUBIC_ANTIALIAS: f64 = -0.5;

/// The cubic convolution kernel (Keys, 1981) with coefficient `a`, at distance `x`.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    match x {
        _ if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        _ if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}
