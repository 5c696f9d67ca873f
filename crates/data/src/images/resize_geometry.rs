//! Target sizes of resizes and the extent of centre crops, in the arithmetic of transformers and, for timm's
//! transforms, of torchvision.

/// The target of a resize.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Resize {
    /// Both sides, regardless of the aspect ratio.
    Exact { height: u32, width: u32 },
    /// The shorter side is `edge`, unless the longer one would then exceed `longest`; the aspect ratio is kept.
    ShortestEdge { edge: u32, longest: Option<u32> },
    /// timm's `ResizeKeepRatio`: the image covers the rectangle or, with `inside`, fits into it.
    KeepRatio { height: u32, width: u32, inside: bool },
}

impl Resize {
    /// Height and width of an image of `height` x `width` after the resize.
    pub(crate) fn target(self, height: u32, width: u32) -> (u32, u32) {
        match self {
            Self::Exact { height, width } => (height, width),
            Self::ShortestEdge { edge, longest: None } => {
                let (short, long) = (height.min(width), height.max(width));
                // `int(size * long / short)` of `get_resize_output_image_size`, and of torchvision.
                let long = (f64::from(edge) * f64::from(long) / f64::from(short)) as u32;
                if width <= height { (long, edge) } else { (edge, long) }
            }
            Self::ShortestEdge { edge, longest: Some(longest) } => with_aspect_ratio(height, width, edge, longest),
            Self::KeepRatio { height: target_height, width: target_width, inside } => {
                let ratios = (f64::from(height) / f64::from(target_height), f64::from(width) / f64::from(target_width));
                let ratio = if inside { ratios.0.max(ratios.1) } else { ratios.0.min(ratios.1) };
                // Python rounds halves to even.
                let scaled = |side: u32| ((f64::from(side) / ratio).round_ties_even() as u32).max(1);
                (scaled(height), scaled(width))
            }
        }
    }

    /// Multiplies every side by `factors` (of heights, of widths).
    pub(crate) fn scaled(self, factors: (f64, f64)) -> Self {
        let scale = |side: u32, factor: f64| ((f64::from(side) * factor).round() as u32).max(1);
        match self {
            Self::Exact { height, width } => {
                Self::Exact { height: scale(height, factors.0), width: scale(width, factors.1) }
            }
            Self::ShortestEdge { edge, longest } => {
                let factor = factors.0.max(factors.1);
                Self::ShortestEdge { edge: scale(edge, factor), longest: longest.map(|side| scale(side, factor)) }
            }
            Self::KeepRatio { height, width, inside } => {
                Self::KeepRatio { height: scale(height, factors.0), width: scale(width, factors.1), inside }
            }
        }
    }

    /// The resize in words, for display.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Exact { height, width } => format!("resize to {width}x{height}"),
            Self::ShortestEdge { edge, longest: None } => format!("resize the shorter side to {edge}"),
            Self::ShortestEdge { edge, longest: Some(longest) } => {
                format!("resize the shorter side to {edge}, the longer to at most {longest}")
            }
            Self::KeepRatio { height, width, inside: false } => format!("resize to cover {width}x{height}"),
            Self::KeepRatio { height, width, inside: true } => format!("resize to fit into {width}x{height}"),
        }
    }
}

/// `get_size_with_aspect_ratio` of transformers' `image_transforms.py`: height and width.
fn with_aspect_ratio(height: u32, width: u32, edge: u32, longest: u32) -> (u32, u32) {
    let (h, w) = (f64::from(height), f64::from(width));
    let (short, long) = (h.min(w), h.max(w));
    let mut exact = f64::from(edge);
    let mut size = edge;
    if long / short * exact > f64::from(longest) {
        exact = f64::from(longest) * short / long;
        // Python rounds halves to even.
        size = exact.round_ties_even() as u32;
    }
    let size = size.max(1);
    if (height <= width && height == size) || (width <= height && width == size) {
        (height, width)
    } else if width < height {
        (((exact * h / w) as u32).max(1), size)
    } else {
        (size, ((exact * w / h) as u32).max(1))
    }
}

/// A centre crop; an image that is too small is padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CenterCrop {
    pub(crate) height: u32,
    pub(crate) width: u32,
    pub(crate) style: CropStyle,
}

/// Rounding where the centre falls between two pixels, named after the library that rounds this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CropStyle {
    /// `center_crop` of transformers' `image_transforms.py`: rounds the start down, the padding up; pads with black.
    Transformers,
    /// `center_crop` of torchvision's `transforms/functional.py`: rounds the start half to even, the padding down.
    /// timm's `CenterCropOrPad` is the same with a colour for the padding.
    Torchvision { fill: [u8; 3] },
}

impl CenterCrop {
    /// A crop with the rounding of transformers.
    pub(crate) const fn new(height: u32, width: u32) -> Self {
        Self { height, width, style: CropStyle::Transformers }
    }

    /// The colour of the padding, before rescaling and normalising.
    pub(crate) const fn fill(self) -> [u8; 3] {
        match self.style {
            CropStyle::Transformers => [0; 3],
            CropStyle::Torchvision { fill } => fill,
        }
    }

    /// Crops or pads one axis of `from` pixels to `to`.
    pub(crate) fn span(self, from: u32, to: u32) -> Span {
        let (lost, missing) = (from.saturating_sub(to), to.saturating_sub(from));
        let (start, pad) = match self.style {
            CropStyle::Transformers => (lost / 2, missing.div_ceil(2)),
            CropStyle::Torchvision { .. } => ((f64::from(lost) / 2.0).round_ties_even() as u32, missing / 2),
        };
        Span { start, len: from.min(to), pad }
    }
}

/// One axis of a crop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// First position of the image in the crop.
    pub(crate) start: u32,
    /// Number of positions of the image in the crop.
    pub(crate) len: u32,
    /// Padding before them.
    pub(crate) pad: u32,
}

impl Span {
    /// All of an axis of `len` pixels.
    pub(crate) const fn whole(len: u32) -> Self {
        Self { start: 0, len, pad: 0 }
    }
}
