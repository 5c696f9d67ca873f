"""optim/: five updates of each optimiser on matrices, a vector, and the kernels of convolutions.

Every number comes from another project's code: AdamW and SGD from torch.optim, Lion from optax, and Adafactor from
optax's `scale_by_factored_rms` and `ema`, combined and set as in big_vision's `scale_by_adafactor` (big_vision/optax.py),
with momentum in float32. torch and optax compute in float32 here, as they do in training. Rates rise with the step;
gradients are scaled as a clipped global norm would; weight decay is decoupled, on matrices only.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from .common import normal, save_tensors

SHAPES = {
    "matrix": (40, 33),
    "narrow": (6, 40),
    "vector": (11,),
    # Kernels of convolutions, [out, in, height, width]. Adafactor factors the two longest dimensions if both have 32
    # values: out and in, out and width, out and height, and none. Then one with two equal, after a short one.
    "kernel": (33, 32, 1, 2),
    "wide_kernel": (33, 2, 1, 32),
    "tall_kernel": (32, 2, 33, 2),
    "small_kernel": (12, 3, 4, 4),
    "stack": (2, 32, 32),
}
ADAFACTOR_ONLY = ("kernel", "wide_kernel", "tall_kernel", "small_kernel", "stack")
STEPS = 5
CLIP = 0.5
WEIGHT_DECAY = 0.1


def rate(step: int) -> float:
    return 0.01 * (step + 1)


def gradient(name: str, step: int) -> torch.Tensor:
    shape = SHAPES[name]
    draw = normal(f"optim/{name}/{step}", *shape)
    # Scale rows and columns differently, because a factored second moment would otherwise be flat.
    for axis, size in enumerate(shape):
        ramp = torch.linspace(0.2, 3.0, size).reshape([size if at == axis else 1 for at in range(len(shape))])
        draw = draw * ramp
    return draw


def by_torch(make):
    """Returns a function for the updates and the final state, with the state's names in dualenc."""

    def run(value: torch.Tensor, gradients: list[torch.Tensor], decay: float):
        parameter = torch.nn.Parameter(value.clone())
        optimizer, names = make(parameter, decay)
        after = []
        for step, gradient in enumerate(gradients):
            parameter.grad = gradient.clone()
            optimizer.param_groups[0]["lr"] = rate(step)
            if isinstance(optimizer, torch.optim.SGD):
                with torch.no_grad():
                    parameter.mul_(1 - rate(step) * decay)
            optimizer.step()
            after.append(parameter.detach().clone())
        state = optimizer.state[parameter]
        return after, {ours: state[theirs] for ours, theirs in names.items()}

    return run


def adamw(parameter: torch.nn.Parameter, decay: float):
    optimizer = torch.optim.AdamW([parameter], betas=(0.9, 0.999), eps=1e-8, weight_decay=decay)
    return optimizer, {"first": "exp_avg", "second": "exp_avg_sq"}


def sgd(parameter: torch.nn.Parameter, _: float):
    # torch's own weight decay for SGD is not decoupled.
    return torch.optim.SGD([parameter], lr=1.0, momentum=0.9), {"first": "momentum_buffer"}


def by_optax(make, state_of):
    """The same for a gradient transformation, which optax calls with the parameter."""

    def run(value: torch.Tensor, gradients: list[torch.Tensor], decay: float):
        transformation = make(lambda step: 0.01 * (step + 1), decay)
        parameter = jnp.asarray(value.numpy())
        state, after = transformation.init(parameter), []
        for gradient in gradients:
            updates, state = transformation.update(jnp.asarray(gradient.numpy()), state, parameter)
            parameter = optax.apply_updates(parameter, updates)
            after.append(torch.from_numpy(np.array(parameter)))
        arrays = state_of(state, value.shape)
        return after, {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}

    return run


def lion(schedule, decay: float):
    return optax.lion(schedule, b1=0.9, b2=0.99, weight_decay=decay)


def lion_state(state, _):
    return {"first": state[0].mu}


def adafactor(schedule, decay: float):
    # big_vision/optax.py: scale_by_adafactor and its `_decay_rate_pow`, and the chain of `make`.
    def beta(step, exponent):
        return jnp.minimum(0.999, 1.0 - (jnp.array(step, jnp.float32) + 1.0) ** -exponent)

    scale_by_rms = optax.scale_by_factored_rms(
        factored=True, decay_rate=0.8, step_offset=0, min_dim_size_to_factor=32, epsilon=1e-30, decay_rate_fn=beta
    )
    momentum = optax.ema(0.9, debias=False, accumulator_dtype=jnp.float32)
    return optax.chain(
        scale_by_rms, momentum, optax.add_decayed_weights(decay), optax.scale_by_schedule(schedule), optax.scale(-1.0)
    )


def adafactor_state(state, shape):
    """optax's row lacks the longest dimension, its column the second longest; dualenc's order is that of the shape."""
    arrays = {"first": state[1].ema}
    if state[0].v.shape == tuple(shape):
        return arrays | {"second": state[0].v}
    *_, second, longest = np.argsort(shape)
    row, column = state[0].v_row, state[0].v_col
    return arrays | ({"row": row, "column": column} if second < longest else {"row": column, "column": row})


OPTIMIZERS = {
    "adamw": by_torch(adamw),
    "adafactor": by_optax(adafactor, adafactor_state),
    "lion": by_optax(lion, lion_state),
    "sgd": by_torch(sgd),
}


def write(folder: Path) -> None:
    """Writes `<parameter>.initial`, `.gradient.<step>`, `<optimizer>.<parameter>.<step>` (0 and the last), and state."""
    jax.config.update("jax_platforms", "cpu")
    tensors = {}
    for name, shape in SHAPES.items():
        initial = normal(f"optim/{name}", *shape)
        gradients = [gradient(name, step) for step in range(STEPS)]
        tensors[f"{name}.initial"] = initial
        tensors |= {f"{name}.gradient.{step}": gradients[step] for step in range(STEPS)}
        for optimizer, run in OPTIMIZERS.items():
            if name in ADAFACTOR_ONLY and optimizer != "adafactor":
                continue
            decay = WEIGHT_DECAY if len(shape) > 1 else 0.0
            after, state = run(initial, [CLIP * gradient for gradient in gradients], decay)
            for step in (0, STEPS - 1):
                tensors[f"{optimizer}.{name}.{step}"] = after[step].float()
            tensors |= {f"{optimizer}.{name}.{array}": value.float() for array, value in state.items()}
    save_tensors(folder / "expected.safetensors", tensors)
