//! Images that are reduced while they are decoded.

/// An image before it was reduced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole {
    /// Width and height, upright.
    pub(crate) size: (u32, u32),
    /// How many of its pixels, in width and in height, became one.
    pub(crate) per_pixel: u32,
}

/// Whether an image of the first size, upright, may be decoded at the second, each as (width, height).
pub(crate) type MayReduce<'a> = &'a dyn Fn((u32, u32), (u32, u32)) -> bool;
