//! Elementary functions and reductions that the compiler can vectorise, and run-time dispatch to the widest vector
//! extension of the processor.

/// Number of partial sums: one AVX-512 register of `f32`. It is the same on every processor, and so are the sums.
pub(crate) const LANES: usize = 16;

/// Defines a function that is compiled once per vector extension (AVX2 with FMA, AVX-512, NEON, ...); a call runs the
/// widest form that the processor supports.
///
/// Borrowed arguments have the lifetime `'a`, borrowed results `'o`. Everything that the body calls must be marked
/// `#[inline(always)]`: what is not inlined is compiled for the baseline of the architecture. For the same reason the
/// body becomes a method: the inlining of a closure or of a nested function cannot be relied on.
macro_rules! vectorised {
    (
        $(#[$doc:meta])*
        $visibility:vis fn $name:ident($($argument:ident: $of:ty),* $(,)?) $(-> $output:ty)? $body:block
    ) => {
        $(#[$doc])*
        $visibility fn $name<'a, 'o>($($argument: $of),*) $(-> $output)? {
            struct Call<'a, 'o>($($of,)* std::marker::PhantomData<(&'a (), &'o ())>);
            impl<'a, 'o> pulp::NullaryFnOnce for Call<'a, 'o> {
                type Output = vectorised!(@output $($output)?);

                #[inline(always)]
                fn call(self) -> Self::Output {
                    let Self($($argument,)* _) = self;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Call($($argument,)* std::marker::PhantomData))
        }
    };
    (@output $output:ty) => { $output };
    (@output) => { () };
}
pub(crate) use vectorised;

/// `e^x` within 2 units in the last place for x between -87 and 88.
///
/// Overflows to infinity above 88.4, a little before e^x leaves the range of `f32` at 88.72, and to 0 below -87.7. NaN
/// stays NaN. With x = n ln 2 + r and |r| <= ln 2 / 2, e^r is its Taylor series up to r^7 / 7!, with a remainder
/// below 6e-9.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it rounds to the nearest integer, which is then in the lowest bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts; the first has few enough bits that its product with |n| <= 128 is exact (Cody and Waite,
    /// 1980).
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // At the ends n is -127 and 128: the bits of 2^n below are then those of 0 and of infinity.
    let x = x.clamp(-88.0, 89.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2[1], n.mul_add(-LN_2[0], x));
    let series: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let power = series.into_iter().reduce(|sum, next| sum.mul_add(r, next)).unwrap_or(1.0);
    // 2^n, built from the bits of its exponent.
    power * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// Cumulative distribution and density of the standard normal distribution at `x`.
///
/// The upper tail is the Mills ratio times the density; scripts/gelu_coefficients.py fits the polynomial.
#[inline(always)]
pub(crate) fn normal_cdf_pdf(x: f32) -> (f32, f32) {
    /// 1 / sqrt(2 pi).
    const PEAK: f32 = 0.398_942_3;
    const MILLS: [f32; 9] = [
        0.038_378_403,
        -0.169_166_63,
        0.228_661_1,
        -0.076_507_55,
        0.142_536_2,
        0.094_683_26,
        0.121_920_4,
        0.119_487_68,
        7.169_252e-6,
    ];
    let u = x.abs();
    let bell = exp(-0.5 * u * u);
    let t = 1.0 / u.mul_add(0.3, 1.0);
    let tail = bell * MILLS.into_iter().reduce(|sum, next| sum.mul_add(t, next)).unwrap_or(0.0);
    (if x < 0.0 { tail } else { 1.0 - tail }, bell * PEAK)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `ln(1 + x)` for x between 0 and 1: 9 terms of the series of 2 artanh(x / (2 + x)), with a remainder below 1e-9.
#[inline(always)]
pub(crate) fn ln_1p(x: f32) -> f32 {
    let y = x / (2.0 + x);
    let square = y * y;
    let series: [f32; 9] = [17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0].map(|odd: f32| 2.0 / odd);
    y * series.into_iter().reduce(|sum, next| sum.mul_add(square, next)).unwrap_or(2.0)
}

/// `ln x` for positive normal x, within 2e-7 of max(1, |ln x|).
///
/// With x = 2^n f and f from sqrt(1/2) to sqrt(2), ln f is the series of 2 artanh((f - 1) / (f + 1)), with a remainder
/// below 1e-9 after 5 terms.
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    const SQRT_HALF: u32 = std::f32::consts::FRAC_1_SQRT_2.to_bits();
    let from_half = x.to_bits().wrapping_sub(SQRT_HALF);
    let n = (from_half.cast_signed() >> 23) as f32;
    let f = f32::from_bits((from_half & 0x007f_ffff).wrapping_add(SQRT_HALF));
    let y = (f - 1.0) / (f + 1.0);
    let square = y * y;
    let series: [f32; 5] = [9.0, 7.0, 5.0, 3.0, 1.0].map(|odd: f32| 2.0 / odd);
    let series = series.into_iter().reduce(|sum, next| sum.mul_add(square, next)).unwrap_or(2.0);
    n.mul_add(std::f32::consts::LN_2, y * series)
}

/// The sum over `i` of `value` of the `i`-th values of `slices`, in [`LANES`] partial sums.
///
/// # Panics
///
/// If a slice is shorter than the first.
#[inline(always)]
pub(crate) fn sum<const K: usize>(slices: [&[f32]; K], value: impl Fn([f32; K]) -> f32) -> f32 {
    let [sum] = sums([slices], value);
    sum
}

/// The same of several rows at once, so that the processor need not wait for the last addition.
///
/// It takes slices, since a closure that looks up values by their index has a bounds check for each, with which the
/// compiler adds one value at a time. It also does so where it does not know the address of the lanes, unless they are
/// replaced as a whole.
#[inline(always)]
pub(crate) fn sums<const N: usize, const K: usize>(
    rows: [[&[f32]; K]; N],
    value: impl Fn([f32; K]) -> f32,
) -> [f32; N] {
    let count = rows[0][0].len();
    let rows = rows.map(|slices| slices.map(|slice| slice[..count].as_chunks::<LANES>()));
    let mut lanes = [[0.0; LANES]; N];
    for at in 0..count / LANES {
        for (lanes, slices) in lanes.iter_mut().zip(&rows) {
            let chunks = slices.map(|(chunks, _)| chunks[at]);
            *lanes = std::array::from_fn(|lane| lanes[lane] + value(chunks.map(|chunk| chunk[lane])));
        }
    }
    let mut totals = [0.0; N];
    for ((total, lanes), slices) in totals.iter_mut().zip(lanes).zip(rows) {
        let rest = (0..count % LANES).map(|i| value(slices.map(|(_, rest)| rest[i])));
        *total = rest.sum::<f32>() + lanes.into_iter().sum::<f32>();
    }
    totals
}

/// The greater value; NaN if one is NaN.
#[inline(always)]
pub(crate) fn greater(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// The maximum of `values` and `floor`; NaN if one of the values is NaN.
#[inline(always)]
pub(crate) fn max(values: &[f32], floor: f32) -> f32 {
    let mut lanes = [floor; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = greater(*lane, *value);
        }
    }
    lanes.iter().chain(rest).copied().fold(floor, greater)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(from: f32, to: f32) -> impl Iterator<Item = f32> {
        (0..=40_000).map(move |n| from + (to - from) * n as f32 / 40_000.0)
    }

    #[test]
    fn ln_within_2e_7() {
        let powers = grid(-86.0, 88.0).map(f32::exp);
        for x in powers.chain(grid(0.5, 2.0)).chain([f32::MIN_POSITIVE, 1e-12, f32::MAX]) {
            let (found, expected) = (f64::from(ln(x)), f64::from(x).ln());
            assert!(
                (found - expected).abs() < 2e-7 * expected.abs().max(1.0),
                "ln({x}) = {found}, expected {expected}"
            );
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn exp_within_two_ulps() {
        for x in grid(-87.0, 88.0) {
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 2.4e-7, "exp({x}) = {found}, expected {expected}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
        for x in grid(88.4, 200.0).chain([f32::MAX, f32::INFINITY]) {
            assert_eq!(exp(x), f32::INFINITY, "{x}");
        }
        for x in grid(-87.7, -200.0).chain([f32::MIN, f32::NEG_INFINITY]) {
            assert_eq!(exp(x), 0.0, "{x}");
        }
        // Between, the values fall and rise without a jump to the wrong side.
        for x in grid(-88.0, -87.0) {
            assert!((0.0..1.7e-38).contains(&exp(x)), "{x}");
        }
        for x in grid(88.0, 88.4) {
            assert!(exp(x) > 1.6e38, "{x}");
        }
    }

    #[test]
    fn normal_matches_numeric_integral() {
        // Simpson's rule in f64, one interval per grid point.
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (mut last, mut integral) = (0.0, 0.5);
        for x in grid(0.0, 9.0) {
            let (to, middle) = (f64::from(x), (last + f64::from(x)) / 2.0);
            integral += (to - last) / 6.0 * (density(last) + 4.0 * density(middle) + density(to));
            last = to;
            let (upper, bell) = normal_cdf_pdf(x);
            let (lower, _) = normal_cdf_pdf(-x);
            assert!((f64::from(upper) - integral).abs() < 2e-7, "cdf({x}) = {upper}, expected {integral}");
            assert!((f64::from(bell) - density(to)).abs() < 1e-7);
            assert!((f64::from(lower) - (1.0 - integral)).abs() < 2e-7);
        }
        assert!(normal_cdf_pdf(f32::NAN).0.is_nan());
        for x in [20.0, 1e4, f32::MAX, f32::INFINITY] {
            assert_eq!((normal_cdf_pdf(-x), normal_cdf_pdf(x)), ((0.0, 0.0), (1.0, 0.0)), "{x}");
        }
        for x in [90.0, 1e4, f32::MAX, f32::INFINITY] {
            assert_eq!((sigmoid(-x), sigmoid(x)), (0.0, 1.0), "{x}");
        }
    }

    #[test]
    fn ln_1p_matches_f64() {
        for x in grid(0.0, 1.0) {
            let expected = f64::from(x).ln_1p();
            assert!((f64::from(ln_1p(x)) - expected).abs() <= 2.4e-7 * expected, "{x}");
        }
    }

    #[test]
    fn reductions_cover_every_value() {
        for count in [0, 1, 15, 16, 17, 40] {
            let values: Vec<f32> = (0..count).map(|n| n as f32).collect();
            assert_eq!(sum([&values], |[value]| value), values.iter().sum::<f32>());
            let halves: Vec<f32> = values.iter().map(|value| 0.5 * value).collect();
            let found = sums([[&values, &halves], [&halves, &halves]], |[left, right]| left * right);
            let squares = values.iter().map(|value| value * value).sum::<f32>();
            assert_eq!(found, [0.5 * squares, 0.25 * squares]);
            assert_eq!(max(&values, -1.0), count as f32 - 1.0);
        }
        assert!(max(&[1.0, f32::NAN, 2.0], 0.0).is_nan());
    }
}
