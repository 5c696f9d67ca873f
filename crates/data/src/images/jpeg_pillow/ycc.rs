//! YCbCr to RGB in 16-bit fixed point, as libjpeg's `jdcolor.c`.

/// A factor in 16-bit fixed point.
const fn fixed(factor: f64) -> i32 {
    (factor * 65536.0 + 0.5) as i32
}

/// Half of a level, for rounding.
pub(super) const HALF: i32 = 1 << 15;
/// Red of Cr, green of Cb and Cr, and blue of Cb (JFIF 1.02, "Conversion to and from RGB").
pub(super) const RED: i32 = fixed(1.402);
pub(super) const GREEN_OF_CB: i32 = -fixed(0.344_14);
pub(super) const GREEN_OF_CR: i32 = -fixed(0.714_14);
pub(super) const BLUE: i32 = fixed(1.772);

/// A pixel of Y, Cb and Cr, rounded as by libjpeg.
pub(super) fn rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let sums = [RED * cr, GREEN_OF_CB * cb + GREEN_OF_CR * cr, BLUE * cb];
    sums.map(|sum| (y + ((sum + HALF) >> 16)).clamp(0, 255) as u8)
}
