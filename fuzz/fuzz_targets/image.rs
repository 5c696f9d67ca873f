//! Decoding within limits, and resizing of what could be decoded.
#![no_main]

use dualenc_data::{Filter, Limits, decode, resize};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_pixels: 1 << 20 };

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = decode(bytes, &LIMITS) else { return };
    assert_eq!(image.data.len(), image.width as usize * image.height as usize * 3);
    for filter in [Filter::Nearest, Filter::Lanczos, Filter::Bicubic] {
        assert_eq!(resize(&image, 24, 17, filter).data.len(), 24 * 17 * 3);
    }
});
