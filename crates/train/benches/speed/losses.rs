//! Losses that compare `[batch, batch]` matrices of two models.

use std::error::Error;

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_kernels::{Logits, TeacherLogits, TeacherLoss, distillation_loss, structure_loss};
use dualenc_train::Compute;

use crate::Work;
use crate::models::{EMBED_DIM, noise};

/// The divergence from a teacher by softmax, of `batch` pairs of 512 values, with the gradients of both embeddings.
pub fn distillation(batch: usize) -> Result<Work, Box<dyn Error>> {
    let device = Compute::select("cpu", None)?.device;
    let [teacher_image, teacher_text, image, text] = vectors(batch, &device);
    let [image, text] = [image, text].map(|embeds| embeds.autodiff().require_grad());
    let scale = Tensor::<1>::from_data([2.66f32], &device.autodiff());
    let round = move || {
        let (teacher_image, teacher_text) = (&teacher_image, &teacher_text);
        let loss = TeacherLoss::Softmax;
        let teacher =
            TeacherLogits { image: teacher_image, text: teacher_text, scale: 50.0, loss, column_log_sums: None };
        let student = Logits { image_embeds: &image, text_embeds: &text, logit_scale: &scale, logit_bias: None };
        let gradients = distillation_loss(&teacher, student, &[], None).backward();
        for gradient in [image.grad(&gradients), text.grad(&gradients)] {
            std::hint::black_box(gradient.ok_or("an embedding has no gradient")?);
        }
        Ok(())
    };
    // Both logits, and the gradients of both embeddings.
    Ok(work(4, batch, round))
}

/// The divergence between the neighbourhoods of two sets of `batch` vectors of 512 values, with the gradient of one.
pub fn structure(batch: usize) -> Result<Work, Box<dyn Error>> {
    let device = Compute::select("cpu", None)?.device;
    let [reference, embeds, ..] = vectors(batch, &device);
    let embeds = embeds.autodiff().require_grad();
    let round = move || {
        let gradients = structure_loss(&reference, &embeds, 0.05, 0..batch).backward();
        std::hint::black_box(embeds.grad(&gradients).ok_or("an embedding has no gradient")?);
        Ok(())
    };
    // Both matrices, and the gradient of each embedding as a row and as a column.
    Ok(work(4, batch, round))
}

/// Unit vectors of 512 values.
fn vectors(batch: usize, device: &Device) -> [Tensor<2>; 4] {
    let values = noise(4 * batch * EMBED_DIM);
    std::array::from_fn(|n| {
        let values = values[n * batch * EMBED_DIM..][..batch * EMBED_DIM].to_vec();
        let rows = Tensor::<2>::from_data(TensorData::new(values, [batch, EMBED_DIM]), device);
        rows.clone() / rows.square().sum_dim(1).sqrt()
    })
}

/// With `products` of `[batch, 512]` and `[512, batch]` or as large.
fn work(products: usize, batch: usize, round: impl FnMut() -> Result<(), Box<dyn Error>> + 'static) -> Work {
    let flops = (2 * products * batch * batch * EMBED_DIM) as f64;
    Work { flops, bytes: 0.0, images: 0, round: Box::new(round) }
}
