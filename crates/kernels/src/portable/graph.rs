//! Nodes of Burn's autodiff graph with a backward function in tensor operations, on every backend (Burn's backend
//! extension).

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, AutodiffBackend, Backend, BackendTensor, DispatchKindConversion, DispatchTensor};
use burn::tensor::Tensor;

/// Tensors of any number of dimensions.
pub(crate) type Erased = DispatchTensor;

/// From the gradient of the output and which inputs need a gradient, the gradients of those inputs.
type Backprop<const N: usize, const D: usize> =
    Arc<dyn Fn(Tensor<D>, [bool; N]) -> [Option<Erased>; N] + Send + Sync + 'static>;

/// `forward(x)`, and in its graph the gradient `backward(gradient of the output)`.
///
/// `backward` runs outside of the graph. On a device with gradient checkpointing, the gradient is the one that Burn
/// derives.
pub(crate) fn with_gradient<const D: usize, const E: usize>(
    x: Tensor<D>,
    forward: impl Fn(Tensor<D>) -> Tensor<E>,
    backward: impl Fn(Tensor<E>) -> Tensor<D> + Send + Sync + 'static,
) -> Tensor<E> {
    if !x.is_autodiff() {
        return forward(x);
    }
    let output = forward(x.clone().without_autodiff());
    let tracked = with_gradients([x.clone().into_dispatch()], output, move |gradient, [needed]| {
        [needed.then(|| backward(gradient).into_dispatch())]
    });
    tracked.unwrap_or_else(|| forward(x))
}

/// `output`, computed outside of the graph, as a function of `inputs` with the gradients that `backward` returns.
///
/// `backward` takes the gradient of the output and which inputs need one; it runs outside of the graph. `None` on a
/// device with gradient checkpointing.
#[cfg_attr(feature = "ndarray", expect(deprecated, reason = "Burn's older CPU backend, available on request"))]
pub(crate) fn with_gradients<const N: usize, const D: usize>(
    inputs: [Erased; N],
    output: Tensor<D>,
    backward: impl Fn(Tensor<D>, [bool; N]) -> [Option<Erased>; N] + Send + Sync + 'static,
) -> Option<Tensor<D>> {
    let backward: Backprop<N, D> = Arc::new(backward);
    let tracked: Option<Tensor<D>> = None;
    #[cfg(feature = "cube")]
    let tracked = tracked.or_else(|| node::<burn::backend::Cube, N, D>(&inputs, &output, &backward));
    #[cfg(feature = "flex")]
    let tracked = tracked.or_else(|| node::<burn::backend::Flex, N, D>(&inputs, &output, &backward));
    #[cfg(feature = "ndarray")]
    let tracked = tracked.or_else(|| node::<burn::backend::NdArray, N, D>(&inputs, &output, &backward));
    tracked
}

/// The output as a node of the graph of `B`; `None` if the tensors are of another backend.
fn node<B, const N: usize, const D: usize>(
    inputs: &[Erased; N],
    output: &Tensor<D>,
    backward: &Backprop<N, D>,
) -> Option<Tensor<D>>
where
    B: Backend,
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B>>,
{
    let output = output.clone().try_into_primitive::<B>().ok()?;
    let mut nodes = Vec::with_capacity(N);
    for input in inputs {
        let tracked = <DispatchTensor as DispatchKindConversion<Autodiff<B>>>::try_into_backend(input.clone());
        nodes.push(match tracked {
            Ok(tensor) => tensor.float().node(),
            Err(_) => {
                let plain = <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(input.clone()).ok()?;
                <Autodiff<B> as AutodiffBackend>::from_inner(plain.float()).node()
            }
        });
    }
    let nodes = nodes.try_into().ok()?;
    let output = match Node::<N, D>(PhantomData).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(State(Arc::clone(backward)), output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    Some(Tensor::from_primitive::<Autodiff<B>>(output))
}

/// A node with `N` inputs and an output of `D` dimensions.
#[derive(Debug)]
struct Node<const N: usize, const D: usize>(PhantomData<()>);

#[derive(Clone)]
struct State<const N: usize, const D: usize>(Backprop<N, D>);

impl<const N: usize, const D: usize> Debug for State<N, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a backward function")
    }
}

impl<B, const N: usize, const D: usize> Backward<B, N> for Node<N, D>
where
    B: Backend,
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = State<N, D>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = Tensor::from_primitive::<B>(grads.consume::<B>(&ops.node));
        let needed = ops.parents.each_ref().map(Option::is_some);
        for (parent, gradient) in ops.parents.into_iter().zip((ops.state.0)(gradient, needed)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                match <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(gradient) {
                    Ok(BackendTensor::Float(gradient)) => grads.register::<B>(parent.id, gradient),
                    _ => unreachable!("a backward function computes on the device of the output's gradient"),
                }
            }
        }
    }
}
