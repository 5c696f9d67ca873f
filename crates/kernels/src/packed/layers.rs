//! Linear layers with packed weights.

use burn::tensor::Tensor;

use crate::ops::activation::Activation;

/// The instructions by which [`PackedLinear`]s are multiplied on this processor; `None`: it has none, or this build has
/// no kernels for the CPU.
pub fn bf16_instructions() -> Option<&'static str> {
    #[cfg(feature = "flex")]
    return crate::cpu::bf16::unit::Unit::fastest().map(crate::cpu::bf16::unit::Unit::name);
    #[cfg(not(feature = "flex"))]
    None
}

/// Whether products in bf16 are faster than in `f32`, where processors with the same [`bf16_instructions`] were
/// measured: by AMX, and by AVX512_BF16 on AMD's processors.
pub fn bf16_is_faster() -> bool {
    #[cfg(feature = "flex")]
    return crate::cpu::bf16::unit::Unit::fastest().is_some_and(crate::cpu::bf16::unit::Unit::is_faster);
    #[cfg(not(feature = "flex"))]
    false
}

/// A linear layer with a packed weight.
#[derive(Clone)]
pub struct PackedLinear {
    #[cfg(feature = "flex")]
    pub(crate) layer: std::sync::Arc<crate::cpu::bf16::layer::Layer>,
    /// There are none in a build without kernels for the CPU.
    #[cfg(not(feature = "flex"))]
    pub(crate) layer: std::convert::Infallible,
}

impl PackedLinear {
    /// Packs `weight` `[in, out]` and `bias` `[out]`, without their gradients.
    ///
    /// # Panics
    ///
    /// Without [`bf16_instructions`], for a weight without values, and unless the tensors are `f32` on the CPU.
    pub fn new(weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Self {
        #[cfg(feature = "flex")]
        if let Some(unit) = crate::cpu::bf16::unit::Unit::fastest() {
            return Self { layer: fused::pack(unit, weight, bias).into() };
        }
        let _ = (weight, bias);
        panic!("a linear layer is packed without instructions for products in bf16")
    }
}

impl std::fmt::Debug for PackedLinear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[cfg(feature = "flex")]
        return write!(f, "PackedLinear [{}, {}]", self.layer.input, self.layer.output);
        #[cfg(not(feature = "flex"))]
        {
            let _ = f;
            match self.layer {}
        }
    }
}

/// Layers with the same inputs side by side, `[rows, outputs of all]`, of `x` `[rows, in]`.
///
/// # Panics
///
/// If the shapes do not fit, or `x` is not an `f32` tensor on the CPU.
pub fn packed_linear<const N: usize>(x: Tensor<2>, layers: [&PackedLinear; N]) -> Tensor<2> {
    #[cfg(feature = "flex")]
    return fused::linear(x, &layers.map(|layer| &*layer.layer));
    #[cfg(not(feature = "flex"))]
    match layers.first() {
        Some(layer) => match layer.layer {},
        None => x,
    }
}

/// `activation(x W_up + b_up) W_down + b_down`, `[rows, out]`, of `x` `[rows, in]`.
///
/// # Panics
///
/// If the shapes do not fit, or `x` is not an `f32` tensor on the CPU.
pub fn packed_mlp(x: Tensor<2>, up: &PackedLinear, activation: Activation, down: &PackedLinear) -> Tensor<2> {
    #[cfg(feature = "flex")]
    return fused::mlp(x, &up.layer, activation, &down.layer);
    #[cfg(not(feature = "flex"))]
    {
        let _ = (x, activation, down);
        match up.layer {}
    }
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::Flex;
    use burn::tensor::Tensor;

    use crate::cpu::autograd::{Values, flex_tensor};
    use crate::cpu::bf16::layer::{self, Layer};
    use crate::cpu::bf16::unit::Unit;
    use crate::cpu::gemm::Matrix;
    use crate::cpu::uninit::par_rows;
    use crate::ops::activation::Activation;

    pub fn pack(unit: Unit, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Layer {
        let bias = bias.map(|bias| values(bias.clone()));
        Layer::new(unit, values(weight.clone()).get(), bias.as_ref().map(Values::get), weight.dims())
    }

    fn values<const D: usize>(x: Tensor<D>) -> Values {
        match x.without_autodiff().try_into_primitive::<Flex>() {
            Ok(x) => Values::from(x),
            Err(_) => panic!("a tensor of a packed linear layer is not on the CPU"),
        }
    }

    /// The values of `x`, and its number of rows.
    fn input(x: Tensor<2>, layer: &Layer) -> (Values, usize) {
        let [rows, columns] = x.dims();
        assert_eq!(columns, layer.input, "columns of the input of a packed linear layer");
        (values(x), rows)
    }

    pub fn linear(x: Tensor<2>, layers: &[&Layer]) -> Tensor<2> {
        let Some(first) = layers.first() else { return x };
        let ((x, rows), columns) = (input(x, first), first.input);
        let width = layers.iter().map(|layer| layer.output).sum::<usize>();
        let out = par_rows(rows, width, |first, out| {
            layer::affine(layers, Matrix::new(x.get(), columns).rows(first, out.len() / width), out)
        });
        Tensor::from_primitive::<Flex>(flex_tensor(out, [rows, width]))
    }

    pub fn mlp(x: Tensor<2>, up: &Layer, activation: Activation, down: &Layer) -> Tensor<2> {
        let ((x, rows), columns, width) = (input(x, up), up.input, down.output);
        let out = par_rows(rows, width, |first, out| {
            let x = Matrix::new(x.get(), columns).rows(first, out.len() / width);
            layer::mlp(up, |x| activation.replace(x), down, x, out)
        });
        Tensor::from_primitive::<Flex>(flex_tensor(out, [rows, width]))
    }
}

#[cfg(test)]
#[cfg(feature = "flex")]
mod tests {
    use burn::tensor::FloatDType;

    use super::*;
    use crate::ops::linear::linear;
    use crate::ops::mlp::mlp;
    use crate::tests::{constant as tensor, has_bf16};

    /// The root of the mean square of the difference, relative to that of the values.
    fn difference(found: Tensor<2>, expected: Tensor<2>) -> f32 {
        let size = |x: Tensor<2>| x.square().mean().sqrt().into_scalar::<f32>();
        size(found - expected.clone()) / size(expected)
    }

    #[test]
    fn packed_layers_are_close_to_f32() {
        if !has_bf16() {
            return;
        }
        let (rows, width, hidden) = (150, 70, 200);
        let (x, bias) = (tensor(1, [rows, width]), tensor(7, [hidden]));
        let weights = [2, 3, 4].map(|seed| tensor::<2>(seed, [width, hidden]));
        let packed = weights.each_ref().map(|weight| PackedLinear::new(weight, Some(&bias)));
        let alone = packed.each_ref().map(|layer| packed_linear(x.clone(), [layer]));
        for (found, weight) in alone.iter().zip(&weights) {
            let exact = linear(x.clone(), weight.clone(), Some(bias.clone()));
            let difference = difference(found.clone(), exact);
            assert!(difference > 1e-4 && difference < 1e-2, "{difference}");
        }
        let three = packed_linear(x.clone(), packed.each_ref());
        assert_eq!(crate::tests::values(three), crate::tests::values(Tensor::cat(alone.to_vec(), 1)));
        let down = tensor::<2>(5, [hidden, width]);
        let packed_down = PackedLinear::new(&down, None);
        for activation in Activation::ALL {
            let found = packed_mlp(x.clone(), &packed[0], activation, &packed_down);
            let exact = mlp(x.clone(), (weights[0].clone(), Some(bias.clone())), activation, (down.clone(), None));
            let difference = difference(found, exact);
            assert!(difference > 1e-4 && difference < 1e-2, "{activation:?}: {difference}");
        }
    }

    #[test]
    #[should_panic]
    fn half_precision_is_not_packed() {
        PackedLinear::new(&tensor::<2>(1, [4, 6]).cast(FloatDType::F16), None);
    }
}
