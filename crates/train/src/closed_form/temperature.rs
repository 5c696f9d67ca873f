//! `logit_scale` and `logit_bias` for heads that were fitted in closed form: those with the lowest contrastive loss on
//! pairs that the heads were not fitted to (temperature scaling, Guo et al., 2017, arXiv:1706.04599). Probabilities of
//! such a model are calibrated for choices among about as many answers as a pool has captions.

use std::collections::HashSet;

use dualenc_data::mix;
use rayon::prelude::*;

use crate::closed_form::held_out::{HeldOut, HeldOutEmbeds};

/// Pairs of a pool: that of the `loss` evaluation.
const POOL_SIZE: usize = 256;

/// Seed of the order of the pairs (ASCII `pool`).
const SEED: u64 = 0x706f_6f6c;

/// Steps of the golden-section search: each leaves 0.62 of the range, 30 of them 2e-6 of ln 100.
const SEARCH_STEPS: usize = 30;

/// Steps of Newton's method, which doubles the right digits each time.
const NEWTON_STEPS: usize = 40;

/// The cosines of some pairs, each image with each text.
pub(crate) struct Pools {
    /// Of each pool, `[images, texts]`, flat; NaN where a text belongs to the image of another pair.
    cosines: Vec<Vec<f64>>,
    /// Of each pool and text, whether its caption is one of an earlier text: equal captions are one answer.
    repeats: Vec<Vec<bool>>,
    size: usize,
}

impl Pools {
    /// Pools of the pairs that are held out, one caption an image. `None`: there are no two pairs.
    pub fn of(held_out: &HeldOut, embeds: &HeldOutEmbeds) -> Option<Self> {
        let mut text_of = vec![None; held_out.num_images];
        for (text, &image) in held_out.image_of_text.iter().enumerate() {
            text_of[image].get_or_insert(text);
        }
        let mut pairs: Vec<(usize, usize)> =
            text_of.iter().enumerate().filter_map(|(image, text)| text.map(|text| (image, text))).collect();
        pairs.sort_by_key(|&(image, _)| mix(SEED, &[image as u64]));
        let size = pairs.len().min(POOL_SIZE);
        if size < 2 {
            return None;
        }
        let (dim, answers) = (embeds.dim, held_out.right_answers());
        let cosine = |image: usize, text: usize| {
            let (image, text) = (&embeds.images[image * dim..][..dim], &embeds.texts[text * dim..][..dim]);
            image.iter().zip(text).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
        };
        let pool = |pool: &[(usize, usize)]| {
            let cells = pool.iter().flat_map(|&(image, own)| {
                let answers = answers.texts(image);
                pool.iter().map(move |&(_, text)| (image, text, text != own && answers.binary_search(&text).is_ok()))
            });
            cells.map(|(image, text, is_match)| if is_match { f64::NAN } else { cosine(image, text) }).collect()
        };
        let repeats = |pool: &[(usize, usize)]| {
            let mut seen = HashSet::new();
            pool.iter().map(|&(_, text)| !seen.insert(held_out.caption_ids[text])).collect()
        };
        let cosines = pairs.par_chunks_exact(size).map(pool).collect();
        Some(Self { cosines, repeats: pairs.chunks_exact(size).map(repeats).collect(), size })
    }

    /// The logarithm of the scale from 0 to `max` with the lowest softmax loss. The loss is convex in the scale.
    pub fn softmax_scale(&self, max: f64) -> f64 {
        let ratio = (5f64.sqrt() - 1.0) / 2.0;
        let (mut low, mut high) = (0.0, max.max(0.0));
        let (mut a, mut b) = (high - ratio * (high - low), low + ratio * (high - low));
        let (mut at_a, mut at_b) = (self.softmax_loss(a), self.softmax_loss(b));
        for _ in 0..SEARCH_STEPS {
            // Of losses that rounding makes equal, those of separated pairs, the sharpest is taken.
            if at_a < at_b {
                (high, b, at_b) = (b, a, at_a);
                a = high - ratio * (high - low);
                at_a = self.softmax_loss(a);
            } else {
                (low, a, at_a) = (a, b, at_b);
                b = low + ratio * (high - low);
                at_b = self.softmax_loss(b);
            }
        }
        f64::midpoint(low, high)
    }

    /// The mean InfoNCE loss of both directions with the scale `exp(logit_scale)`.
    pub fn softmax_loss(&self, logit_scale: f64) -> f64 {
        let (scale, size) = (logit_scale.exp(), self.size);
        let mut loss = 0.0;
        for (cosines, repeats) in self.cosines.iter().zip(&self.repeats) {
            let (mut of_images, mut of_texts) = (vec![0.0; size], vec![0.0; size]);
            for image in 0..size {
                for text in 0..size {
                    let cosine = cosines[image * size + text];
                    if !cosine.is_nan() {
                        // No cosine is above 1: nothing overflows, and the matching one is the smallest that counts.
                        let odds = (scale * (cosine - 1.0)).exp();
                        of_texts[text] += odds;
                        if image == text || !repeats[text] {
                            of_images[image] += odds;
                        }
                    }
                }
            }
            for pair in 0..size {
                let own = scale * (cosines[pair * size + pair] - 1.0);
                let sums = [of_images[pair], of_texts[pair]];
                loss += sums.iter().map(|sum| sum.max(f64::MIN_POSITIVE).ln() - own).sum::<f64>() / 2.0;
            }
        }
        loss / (self.cosines.len() * size) as f64
    }

    /// The logarithm of the scale from 0 to `max`, and the bias, with the lowest sigmoid loss: a logistic regression
    /// with one input, by Newton's method.
    pub fn sigmoid_scale_and_bias(&self, max: f64) -> (f64, f64) {
        let (low, high) = (1.0, max.max(0.0).exp());
        let (mut scale, mut bias) = (10f64.clamp(low, high), -(self.size as f64 - 1.0).ln());
        for _ in 0..NEWTON_STEPS {
            let [gradient, curvature] = self.sigmoid_slopes(scale, bias);
            let [[ss, sb], [_, bb]] = [[curvature[0], curvature[1]], [curvature[1], curvature[2]]];
            let determinant = ss * bb - sb * sb;
            let step = if determinant > 1e-12 * ss * bb {
                [
                    (bb * gradient[0] - sb * gradient[1]) / determinant,
                    (ss * gradient[1] - sb * gradient[0]) / determinant,
                ]
            } else {
                [0.0, gradient[1] / bb.max(f64::MIN_POSITIVE)]
            };
            // Far from the minimum, Newton's step may go beyond it.
            let length = (step[0] / scale).abs().max(step[1].abs() / 2.0).max(1.0);
            scale = (scale - step[0] / length).clamp(low, high);
            bias -= step[1] / length;
        }
        // At a limit of the scale, the bias alone is left to fit.
        for _ in 0..NEWTON_STEPS {
            let [gradient, curvature] = self.sigmoid_slopes(scale, bias);
            bias -= (gradient[1] / curvature[2].max(f64::MIN_POSITIVE)).clamp(-2.0, 2.0);
        }
        (scale.ln(), bias)
    }

    /// Gradient by scale and bias of the sigmoid loss, and its curvature by (scale, scale), (scale, bias) and (bias,
    /// bias).
    fn sigmoid_slopes(&self, scale: f64, bias: f64) -> [[f64; 3]; 2] {
        let (mut gradient, mut curvature) = ([0.0; 3], [0.0; 3]);
        for (cosines, repeats) in self.cosines.iter().zip(&self.repeats) {
            for (at, &cosine) in cosines.iter().enumerate().filter(|(_, cosine)| !cosine.is_nan()) {
                let is_own = at.is_multiple_of(self.size + 1);
                if !is_own && repeats[at % self.size] {
                    continue;
                }
                let target = if is_own { 1.0 } else { 0.0 };
                let probability = 1.0 / (1.0 + (-(scale * cosine + bias)).exp());
                let (error, spread) = (probability - target, probability * (1.0 - probability));
                gradient[0] += error * cosine;
                gradient[1] += error;
                curvature[0] += spread * cosine * cosine;
                curvature[1] += spread * cosine;
                curvature[2] += spread;
            }
        }
        [gradient, curvature]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_cosines(cosines: Vec<Vec<f64>>, size: usize) -> Pools {
        Pools { repeats: vec![vec![false; size]; cosines.len()], cosines, size }
    }

    fn pools(size: usize, own: f64, spread: f64) -> Pools {
        let cosine = |at: usize| {
            let noise = (mix(3, &[at as u64]) % 1000) as f64 / 1000.0 - 0.5;
            let base = if at.is_multiple_of(size + 1) { own } else { 0.0 };
            base + spread * noise
        };
        of_cosines(vec![(0..size * size).map(cosine).collect()], size)
    }

    #[test]
    fn softmax_scale_is_the_minimum() {
        let pools = pools(40, 0.3, 0.6);
        let found = pools.softmax_scale(4.6);
        let loss = pools.softmax_loss(found);
        assert!(found > 0.1 && found < 4.5, "{found}");
        for other in [-0.01, 0.01, -0.5, 0.5] {
            assert!(pools.softmax_loss(found + other) > loss, "{other}");
        }
        // Pairs without an error want the sharpest softmax, unrelated ones the flattest.
        assert!(Pools::softmax_scale(&self::pools(20, 0.9, 0.1), 4.6) > 4.59);
        assert!(Pools::softmax_scale(&self::pools(20, -0.2, 0.1), 4.6) < 0.01);
    }

    #[test]
    fn chance_is_the_logarithm_of_the_size() {
        let mut pools = of_cosines(vec![vec![0.5; 25]; 3], 5);
        assert!((pools.softmax_loss(2.0) - 5f64.ln()).abs() < 1e-12);
        // The texts 0, 2 and 4 are one caption: three answers for each image. Three images do not match these texts.
        pools.repeats = vec![vec![false, false, true, false, true]; 3];
        for (image, text) in [(0, 2), (0, 4), (2, 0), (2, 4), (4, 0), (4, 2)] {
            pools.cosines.iter_mut().for_each(|cosines| cosines[image * 5 + text] = f64::NAN);
        }
        let of_texts = 3.0 * 3f64.ln() + 2.0 * 5f64.ln();
        let expected = f64::midpoint(3f64.ln(), of_texts / 5.0);
        assert!((pools.softmax_loss(2.0) - expected).abs() < 1e-12, "{}", pools.softmax_loss(2.0));
    }

    #[test]
    fn masked_texts_do_not_count() {
        let mut pools = pools(3, 0.4, 0.5);
        let mut smaller = self::pools(3, 0.4, 0.5);
        pools.cosines[0][1] = f64::NAN;
        smaller.cosines[0][1] = -1e9;
        assert!((pools.softmax_loss(1.0) - smaller.softmax_loss(1.0)).abs() < 1e-12);
    }

    #[test]
    fn sigmoid_slopes_vanish() {
        let pools = pools(30, 0.35, 0.6);
        let (scale, bias) = pools.sigmoid_scale_and_bias(4.6);
        let [gradient, _] = pools.sigmoid_slopes(scale.exp(), bias);
        assert!(gradient[0].abs() < 1e-8 && gradient[1].abs() < 1e-8, "{gradient:?}, {scale}, {bias}");
        // Pairs that a threshold separates want the largest scale.
        let (scale, bias) = self::pools(30, 0.9, 0.1).sigmoid_scale_and_bias(4.6);
        assert!(scale > 4.5 && bias < 0.0, "{scale}, {bias}");
    }
}
