//! Processed images as they wait for a tower. Where the last step gives each byte a value, they wait as bytes, in a
//! quarter of the memory.

use std::sync::Arc;

use crate::images::rgb_image::RgbImage;

/// The value of each byte in each channel.
pub(crate) type ByteValues = [[f32; 256]; 3];

/// Images of one size that one processor has made.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessedImages {
    len: usize,
    form: Form,
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    /// `[images, height, width, 3]`, flat, of which each byte has a value.
    Bytes(Vec<u8>, Arc<ByteValues>),
    /// `[images, 3, height, width]`, flat.
    Values(Vec<f32>),
}

impl ProcessedImages {
    /// One image of bytes.
    pub(crate) fn from_bytes(image: RgbImage, values: &Arc<ByteValues>) -> Self {
        Self { len: 1, form: Form::Bytes(image.data, Arc::clone(values)) }
    }

    /// One image, `[3, height, width]`, flat.
    pub(crate) fn from_values(values: Vec<f32>) -> Self {
        Self { len: 1, form: Form::Values(values) }
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values of all images, `[images, 3, height, width]`, flat.
    #[must_use]
    pub fn to_values(&self) -> Vec<f32> {
        match &self.form {
            Form::Values(values) => values.clone(),
            Form::Bytes(..) => self.values_of(0..self.len),
        }
    }

    /// As [`ProcessedImages::to_values`], without a copy of values.
    #[must_use]
    pub fn into_values(self) -> Vec<f32> {
        match self.form {
            Form::Values(values) => values,
            Form::Bytes(..) => self.values_of(0..self.len),
        }
    }

    /// The values of some images, in the order of their numbers: `[images, 3, height, width]`, flat.
    ///
    /// # Panics
    /// If there is no image of a number.
    #[must_use]
    pub fn values_of(&self, images: impl ExactSizeIterator<Item = usize>) -> Vec<f32> {
        let mut out = Vec::with_capacity(images.len() * self.values_per_image());
        for image in images {
            match &self.form {
                Form::Values(values) => out.extend_from_slice(part(values, self.len, image)),
                Form::Bytes(bytes, values) => {
                    let pixels = part(bytes, self.len, image).as_chunks::<3>().0;
                    for (channel, values) in values.iter().enumerate() {
                        out.extend(pixels.iter().map(|pixel| values[usize::from(pixel[channel])]));
                    }
                }
            }
        }
        out
    }

    /// The first `count` images, or all if there are fewer.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        let len = count.min(self.len);
        let end = len * self.values_per_image();
        let form = match &self.form {
            Form::Bytes(bytes, values) => Form::Bytes(bytes[..end].to_vec(), Arc::clone(values)),
            Form::Values(values) => Form::Values(values[..end].to_vec()),
        };
        Self { len, form }
    }

    /// Appends `others` of the same processor. An empty batch first gets room for `most` images of this size.
    ///
    /// # Panics
    /// If the images are not of one processor.
    pub(crate) fn append(&mut self, others: Self, most: usize) {
        if self.is_empty() {
            let room = most * others.values_per_image();
            self.form = match &others.form {
                Form::Bytes(_, values) => Form::Bytes(Vec::with_capacity(room), Arc::clone(values)),
                Form::Values(_) => Form::Values(Vec::with_capacity(room)),
            };
        }
        match (&mut self.form, others.form) {
            (Form::Bytes(all, values), Form::Bytes(more, of_more)) => {
                assert!(Arc::ptr_eq(values, &of_more) || values == &of_more, "images of two processors in a batch");
                all.extend_from_slice(&more);
            }
            (Form::Values(all), Form::Values(more)) => all.extend_from_slice(&more),
            _ => panic!("images of two processors in a batch"),
        }
        self.len += others.len;
    }

    /// `3 * height * width`; 0 without images.
    fn values_per_image(&self) -> usize {
        let all = match &self.form {
            Form::Bytes(bytes, _) => bytes.len(),
            Form::Values(values) => values.len(),
        };
        all.checked_div(self.len).unwrap_or(0)
    }
}

/// No image.
impl Default for ProcessedImages {
    fn default() -> Self {
        Self { len: 0, form: Form::Values(Vec::new()) }
    }
}

/// The part of `image` in the values of `len` images.
fn part<T>(values: &[T], len: usize, image: usize) -> &[T] {
    assert!(image < len, "image {image} of {len}");
    let size = values.len() / len;
    &values[image * size..][..size]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Arc<ByteValues> {
        Arc::new([0.0, 1000.0, 2000.0].map(|base: f32| std::array::from_fn(|byte| base + byte as f32)))
    }

    /// Images of two pixels, as bytes and as values.
    fn both() -> [[ProcessedImages; 2]; 2] {
        let tables = tables();
        [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]].map(|data: [u8; 6]| {
            let values = [0, 3, 1, 4, 2, 5].map(|at| tables[at % 3][usize::from(data[at])]).to_vec();
            let image = RgbImage { width: 2, height: 1, data: data.to_vec() };
            [ProcessedImages::from_bytes(image, &tables), ProcessedImages::from_values(values)]
        })
    }

    #[test]
    fn bytes_have_the_values_of_their_channels() {
        let [[bytes, values], _] = both();
        assert_eq!(bytes.to_values(), [1.0, 4.0, 1002.0, 1005.0, 2003.0, 2006.0]);
        assert_eq!(bytes.to_values(), values.to_values());
        assert_eq!(bytes.into_values(), values.into_values());
    }

    #[test]
    fn batches_hold_images_in_order() {
        for form in 0..2 {
            let [one, two] = both().map(|forms| forms[form].clone());
            let mut all = ProcessedImages::default();
            all.append(one.clone(), 2);
            all.append(two.clone(), 1);
            assert_eq!((all.len(), all.is_empty()), (2, false));
            assert_eq!(all.to_values(), [one.to_values(), two.to_values()].concat());
            assert_eq!(
                all.values_of([1, 0, 1].into_iter()),
                [&two, &one, &two].map(ProcessedImages::to_values).concat()
            );
            assert_eq!(all.first(1), one);
            assert_eq!(all.first(3), all);
        }
        let none = ProcessedImages::default();
        assert!(none.is_empty() && none.to_values().is_empty() && none.first(2) == none);
    }

    #[test]
    #[should_panic = "images of two processors"]
    fn images_of_two_processors_panic() {
        let [[bytes, values], _] = both();
        let mut all = ProcessedImages::default();
        all.append(bytes, 2);
        all.append(values, 1);
    }

    #[test]
    #[should_panic = "image 1 of 1"]
    fn absent_image_panics() {
        let [[bytes, _], _] = both();
        let _ = bytes.values_of([1].into_iter());
    }
}
