//! How an operation over host memory becomes part of Burn's graph: values of Flex in, a value of Flex out, and a function
//! from the gradient of the output to those of the inputs.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{Autodiff, AutodiffBackend, DispatchDevice, Flex};
use burn::tensor::{Bytes, DType, Shape, Tensor};

/// Whether `x` lies where the operations of this crate run: f32 on Flex, with or without gradients.
pub(crate) fn is_fused<const D: usize>(x: &Tensor<D>) -> bool {
    let device = x.device();
    let plain = device.clone().without_autodiff();
    x.dtype() == DType::F32
        && device.gradient_checkpointing_strategy().is_none_or(|strategy| strategy == Default::default())
        && matches!(plain.as_dispatch(), DispatchDevice::Flex(_))
}

/// An input of an operation.
pub(crate) enum Input {
    /// A constant.
    Plain(FlexTensor),
    /// Part of the graph.
    Tracked(<Autodiff<Flex> as burn::backend::BackendTypes>::FloatTensorPrimitive),
}

impl Input {
    /// Of a tensor that [`is_fused`].
    pub fn of<const D: usize>(x: Tensor<D>) -> Option<Self> {
        match x.is_autodiff() {
            true => x.try_into_primitive::<Autodiff<Flex>>().ok().map(Self::Tracked),
            false => x.try_into_primitive::<Flex>().ok().map(Self::Plain),
        }
    }

    /// In place of an input that there is not.
    pub fn none() -> Self {
        Self::Plain(tensor(vec![0.0], [1]))
    }

    fn values(&self) -> Values {
        let tensor = match self {
            Self::Plain(tensor) => tensor,
            Self::Tracked(tensor) => tensor.primitive(),
        };
        Values(tensor.to_contiguous())
    }
}

/// Contiguous f32 values, shared with the tensor they came from.
#[derive(Clone, Debug)]
pub(crate) struct Values(FlexTensor);

impl Values {
    /// All of them, row by row.
    pub fn get(&self) -> &[f32] {
        self.0.as_slice().unwrap_or_default()
    }

    /// Back to a tensor, of this shape.
    pub fn into_tensor(self, shape: impl Into<Shape>) -> FlexTensor {
        self.0.reshape(shape.into())
    }

    /// Owned, copied only where others share them.
    pub fn into_vec(self) -> Vec<f32> {
        let data = self.0.into_data();
        data.try_into_vec().unwrap_or_default()
    }
}

impl From<FlexTensor> for Values {
    fn from(tensor: FlexTensor) -> Self {
        Self(tensor.to_contiguous())
    }
}

/// A tensor of these values.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), DType::F32)
}

/// From what the forward pass kept, the gradient of its output, and which inputs need one, to the gradients of the inputs.
pub(crate) type GradientsOf<S, const N: usize> = fn(S, Values, [bool; N]) -> [Option<FlexTensor>; N];

/// Runs an operation and records it. `forward` gets the inputs' values and whether a gradient will be asked for, and gives
/// the output with what `gradients` needs.
pub(crate) fn record<const N: usize, const D: usize, S>(
    inputs: [Input; N],
    forward: impl FnOnce(&[Values; N], bool) -> (FlexTensor, S),
    gradients: GradientsOf<S, N>,
) -> Tensor<D>
where
    S: Clone + Debug + Send + 'static,
{
    let values = inputs.each_ref().map(Input::values);
    if inputs.iter().all(|input| matches!(input, Input::Plain(_))) {
        return Tensor::from_primitive::<Flex>(forward(&values, false).0);
    }
    let nodes = inputs.map(|input| match input {
        Input::Tracked(tensor) => tensor.node(),
        Input::Plain(tensor) => <Autodiff<Flex> as AutodiffBackend>::from_inner(tensor).node(),
    });
    let output = match Step(PhantomData).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (output, state) = forward(&values, true);
            prepared.finish((state, gradients), output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(forward(&values, false).0),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}

struct Step<S, const N: usize>(PhantomData<fn(S)>);

impl<S, const N: usize> Debug for Step<S, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<S>())
    }
}

impl<S: Clone + Debug + Send + 'static, const N: usize> Backward<Flex, N> for Step<S, N> {
    type State = (S, GradientsOf<S, N>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = Values::from(grads.consume::<Flex>(&ops.node));
        let needed = ops.parents.each_ref().map(Option::is_some);
        let (state, gradients) = ops.state;
        for (parent, gradient) in ops.parents.into_iter().zip(gradients(state, gradient, needed)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
