//! Custom operations in Burn's autodiff graph: a forward and a backward function over slices become one node (Burn's
//! backend extension). Only for `f32` tensors of the Flex backend.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{Autodiff, AutodiffBackend, DispatchDevice, Flex};
use burn::tensor::{Bytes, DType, Shape, Tensor};

use crate::portable::forms::only_plain;

/// Whether the fused operations take `x`: `f32` on Flex, with or without autodiff, without gradient checkpointing, and
/// outside of [`with_plain_forms`](crate::with_plain_forms).
pub(crate) fn supports_fused<const D: usize>(x: &Tensor<D>) -> bool {
    let device = x.device();
    let plain = device.clone().without_autodiff();
    !only_plain()
        && x.dtype() == DType::F32
        && device.gradient_checkpointing_strategy().is_none_or(|strategy| strategy == Default::default())
        && matches!(plain.as_dispatch(), DispatchDevice::Flex(_))
}

/// An input of a [`custom_op`].
pub(crate) enum Input {
    /// Outside of the graph.
    Constant(FlexTensor),
    /// A node of the graph.
    Tracked(<Autodiff<Flex> as burn::backend::BackendTypes>::FloatTensorPrimitive),
}

impl Input {
    /// `None` if `x` is not an `f32` tensor of the Flex backend.
    pub fn new<const D: usize>(x: Tensor<D>) -> Option<Self> {
        if x.dtype() != DType::F32 {
            None
        } else if x.is_autodiff() {
            x.try_into_primitive::<Autodiff<Flex>>().ok().map(Self::Tracked)
        } else {
            x.try_into_primitive::<Flex>().ok().map(Self::Constant)
        }
    }

    /// An optional input; an absent one becomes a constant `[1]`, since the number of inputs is part of the type.
    pub fn optional<const D: usize>(x: Option<&Tensor<D>>) -> Option<Self> {
        match x {
            Some(x) => Self::new(x.clone()),
            None => Some(Self::Constant(flex_tensor(vec![0.0], [1]))),
        }
    }

    fn values(&self) -> Values {
        let tensor = match self {
            Self::Constant(tensor) => tensor,
            Self::Tracked(tensor) => tensor.primitive(),
        };
        Values::from(tensor.clone())
    }
}

/// The contiguous, row-major values of a tensor; shares the tensor's memory.
#[derive(Clone, Debug)]
pub(crate) struct Values(FlexTensor);

impl Values {
    /// Those of a tensor without its graph; `None` if they are not for the fused operations.
    pub fn untracked<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        Some(Self::from(tensor.clone().without_autodiff().try_into_primitive::<Flex>().ok()?))
    }

    pub fn get(&self) -> &[f32] {
        match self.0.as_slice() {
            Some(values) => values,
            None => unreachable!("`Values::from` makes every tensor contiguous and checks its type"),
        }
    }

    /// A tensor of this shape, without copying.
    pub fn into_tensor(self, shape: impl Into<Shape>) -> FlexTensor {
        self.0.reshape(shape.into())
    }

    /// Copies only if the memory is shared.
    pub fn into_vec(self) -> Vec<f32> {
        let data = self.0.into_data();
        match data.try_into_vec() {
            Ok(values) => values,
            Err(error) => unreachable!("`Values::from` checks the type: {error:?}"),
        }
    }
}

impl From<FlexTensor> for Values {
    /// # Panics
    ///
    /// If the elements are not `f32`.
    fn from(tensor: FlexTensor) -> Self {
        assert_eq!(tensor.dtype(), DType::F32, "type of the elements of a fused operation");
        Self(tensor.to_contiguous())
    }
}

/// A tensor that owns `values`, row-major.
pub(crate) fn flex_tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), DType::F32)
}

/// The backward function of a [`custom_op`]: takes the state that the forward function saved, the gradient of the
/// output, and which inputs need a gradient; returns the gradients of those inputs.
pub(crate) type Backprop<S, const N: usize> = fn(S, Values, [bool; N]) -> [Option<FlexTensor>; N];

/// Runs `forward` and, if an input is tracked, adds a node with `backprop` to the graph.
///
/// `forward` takes the values of the inputs and whether `backprop` may follow; returns the output and the state to
/// save.
pub(crate) fn custom_op<const N: usize, const D: usize, S>(
    inputs: [Input; N],
    forward: impl FnOnce(&[Values; N], bool) -> (FlexTensor, S),
    backprop: Backprop<S, N>,
) -> Tensor<D>
where
    S: Clone + Debug + Send + 'static,
{
    let values = inputs.each_ref().map(Input::values);
    if inputs.iter().all(|input| matches!(input, Input::Constant(_))) {
        return Tensor::from_primitive::<Flex>(forward(&values, false).0);
    }
    let nodes = inputs.map(|input| match input {
        Input::Tracked(tensor) => tensor.node(),
        Input::Constant(tensor) => <Autodiff<Flex> as AutodiffBackend>::from_inner(tensor).node(),
    });
    let output = match Node(PhantomData).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (output, state) = forward(&values, true);
            prepared.finish((state, backprop), output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(forward(&values, false).0),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}

/// A node with `N` inputs and the saved state `S`.
struct Node<S, const N: usize>(PhantomData<fn(S)>);

impl<S, const N: usize> Debug for Node<S, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<S>())
    }
}

impl<S: Clone + Debug + Send + 'static, const N: usize> Backward<Flex, N> for Node<S, N> {
    type State = (S, Backprop<S, N>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = Values::from(grads.consume::<Flex>(&ops.node));
        let needed = ops.parents.each_ref().map(Option::is_some);
        let (state, backprop) = ops.state;
        for (parent, gradient) in ops.parents.into_iter().zip(backprop(state, gradient, needed)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, FloatDType};

    use super::*;

    fn half() -> Tensor<1> {
        Tensor::<1>::ones([4], &Device::flex()).cast(FloatDType::F16)
    }

    #[test]
    fn other_types_are_no_input() {
        assert!(Input::new(half()).is_none());
        assert!(Input::new(half().autodiff()).is_none());
        assert!(Input::optional(Some(&half())).is_none());
        assert!(Input::new(half().cast(FloatDType::F32)).is_some());
        assert!(Input::optional::<1>(None).is_some());
    }

    #[test]
    #[should_panic = "type of the elements of a fused operation"]
    fn values_of_another_type_panic() {
        let _ = Values::from(half().try_into_primitive::<Flex>().unwrap());
    }

    #[test]
    fn values_of_a_transposed_tensor_are_in_order() {
        let x = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::flex()).transpose();
        let values = Values::from(x.try_into_primitive::<Flex>().unwrap());
        assert_eq!(values.get(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(values.into_vec(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
