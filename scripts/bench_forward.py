"""Module of scripts/bench_pytorch.py: the forward pass of a vision transformer in PyTorch, ONNX Runtime and OpenVINO.

Every form computes the same features from the same weights and pixels. `forward` checks this before it is measured.
"""

import importlib.metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BATCH, SIDE = 16, 224
SIZES = {
    "vit": dict(hidden_size=384, num_attention_heads=6, intermediate_size=1536),
    "vit-b": dict(hidden_size=768, num_attention_heads=12, intermediate_size=3072),
}
# Largest difference from PyTorch's float32 features, as a fraction of their norm. dualenc's features in bf16 differ by
# 0.5 % (docs/PERFORMANCE.md). A form above these limits computes something else.
LIMITS = {"f32": 1e-3, "bf16": 5e-2}


def forward(t, row: str, form: str, cores: int):
    """A round of `row` in `form`. Exits with an error if its features are not those of PyTorch in float32."""
    from transformers import ViTConfig, ViTModel

    size, precision = row.removesuffix("-bf16"), "bf16" if row.endswith("-bf16") else "f32"
    config = ViTConfig(**SIZES[size], attn_implementation="sdpa")
    model = ViTModel(config, add_pooling_layer=False).eval()
    pixels = t.rand(BATCH, 3, SIDE, SIDE) * 2 - 1

    class Features(t.nn.Module):
        """The class token, from pixels."""

        def __init__(self):
            super().__init__()
            self.tower = model

        def forward(self, pixels):
            return self.tower(pixel_values=pixels).last_hidden_state[:, 0]

    features = Features()
    with t.inference_mode():
        expected = features(pixels).clone()
    if form == "onnxruntime":
        round_ = onnxruntime(t, features, pixels, size, cores)
    elif form.startswith("openvino"):
        round_ = openvino(t, features, pixels, precision, cores, streams=form.endswith("streams"))
    else:
        round_ = pytorch(t, features, pixels, form)
    found = t.as_tensor(round_()).float()
    error = float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())
    if not error <= LIMITS[precision]:
        raise SystemExit(f"error: its features differ from PyTorch's in float32 by {100 * error:.2g} % of their norm")
    return round_


def pytorch(t, features, pixels, form: str):
    if form.endswith("medium"):
        # Factors of products are rounded to bf16, and everything else stays in float32.
        t.set_float32_matmul_precision("medium")
    if form.endswith("weights"):
        features, pixels = features.bfloat16(), pixels.bfloat16()
    autocast = t.autocast("cpu", dtype=t.bfloat16, enabled=form.endswith("autocast"))
    if form.startswith("compile"):
        import torch._inductor.config

        # Constant weights are stored in the order that the products read. It is for inference only, and off by default.
        torch._inductor.config.freezing = True
        features = t.compile(features)

    def round_():
        with t.inference_mode() if not form.startswith("compile") else t.no_grad(), autocast:
            return features(pixels)

    return round_


def onnxruntime(t, features, pixels, size: str, cores: int):
    import onnxruntime

    folder = ROOT / "runs/bench/onnx"
    file = folder / f"{size}-{t.__version__}-{importlib.metadata.version('transformers')}.onnx"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # The name is given last, so that a file with it is complete.
        part = file.with_name(f"part-{file.name}")
        program = t.onnx.export(features, (pixels,), dynamo=True, input_names=["pixels"], output_names=["features"])
        program.save(part, external_data=False)
        part.rename(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = cores, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    inputs = {"pixels": pixels.numpy()}
    return lambda: session.run(None, inputs)[0]


def openvino(t, features, pixels, precision: str, cores: int, streams: bool):
    """`streams`: one stream of requests per core, with a share of the batch each, as `PERFORMANCE_HINT=THROUGHPUT`."""
    import openvino

    model = openvino.convert_model(features, example_input=pixels)
    share = -(-BATCH // cores) if streams else BATCH
    model.reshape([share, 3, SIDE, SIDE])
    # The default of a processor with AMX is bf16.
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": cores, "ENABLE_CPU_PINNING": False}
    settings |= {"NUM_STREAMS": cores if streams else 1}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    if compiled.get_property("INFERENCE_PRECISION_HINT") != getattr(openvino.Type, precision):
        raise SystemExit(f"error: OpenVINO does not compute in {precision} on this processor")
    values = pixels.numpy()
    requests = [compiled.create_infer_request() for _ in range(0, BATCH, share)]

    def round_():
        for index, request in enumerate(requests):
            request.start_async({0: values[index * share : (index + 1) * share]}, share_inputs=True)
        for request in requests:
            request.wait()
        return t.cat([t.from_numpy(request.get_output_tensor(0).data) for request in requests])

    return round_
