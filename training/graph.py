"""Rewrites of an exported graph: attention as one operator, weights in int8, and arithmetic in int8 by run or by token."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from lastresort.errors import ArtifactError

Vector: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

PRECISIONS = ("fp32", "int8", "int8-rows", "int8-weights")
ROW = 127
"""Activations by row lie in -127…127, stored as 0…254."""
NARROW, WIDE = 64, 127
"""Weights lie in -64…64, which CPUs that multiply unsigned by signed bytes without VNNI can sum without saturating; or in -127…127, stored as 1…255:
unsigned by unsigned bytes are widened before they are multiplied, so nothing saturates, but it takes longer."""
SMOOTHING = 0.5
"""Strength for `int8-rows`; the value of the paper."""
ATTENTION = (("Reshape", 0), ("Transpose", 0), ("MatMul", 0), ("Softmax", 0), ("Add", 0), ("Mul", 0), ("MatMul", 0))
"""From an attention's output back to its scores: operator, and which input leads on."""
PROJECTION = (("Transpose", 0), ("Reshape", 0), ("Add", 0), ("MatMul", 0))
"""From a head's query, key or value back to the projection."""


class _Graph:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.producer = {name: node for node in model.graph.node for name in node.output}
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}

    def back(self, name: str, path: tuple[tuple[str, int], ...]) -> list[onnx.NodeProto]:
        """The nodes from the value `name` backwards. Raises `ArtifactError` where the graph looks otherwise."""
        nodes = []
        for operator, place in path:
            node = self.producer.get(name)
            if node is None or node.op_type != operator:
                raise ArtifactError(f"graph: {name}: found {'an input' if node is None else node.op_type}, expected {operator}")
            nodes.append(node)
            name = node.input[place]
        return nodes

    def array(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return numpy_helper.to_array(self.weights[name])


def fuse_attention(model: onnx.ModelProto, heads: int) -> onnx.ModelProto:
    """Each layer's attention, projections of query, key and value included, as one `Attention` of ONNX Runtime; what nothing needs any more is dropped.

    Args:
        model: as exported and optimised, with `attention_mask` (B, T) among its inputs; changed in place.
        heads: attention heads.

    Returns:
        The model, the same function.

    Raises:
        ArtifactError: the graph is not the one of a BERT encoder.
    """
    graph = _Graph(model)
    mask = helper.make_node("Cast", ["attention_mask"], ["attention_mask_int32"], to=onnx.TensorProto.INT32)
    fused: dict[str, onnx.NodeProto] = {}
    for number, softmax in enumerate([node for node in model.graph.node if node.op_type == "Softmax"]):
        outputs = [name for name, node in graph.producer.items() if node.op_type == "Reshape" and _reaches(graph, node, softmax)]
        if len(outputs) != 1:
            raise ArtifactError(f"graph: found {len(outputs)} attentions after softmax {number}, expected 1")
        (output,) = outputs
        nodes = graph.back(output, ATTENTION)
        scores, values = nodes[-1], nodes[2]
        sides = [graph.back(scores.input[0], PROJECTION), graph.back(scores.input[1], PROJECTION), graph.back(values.input[1], PROJECTION)]
        weight = np.concatenate([graph.array(side[3].input[1]) for side in sides], axis=1)
        bias = np.concatenate([graph.array(side[2].input[1]) for side in sides])
        names = [f"attention_{number}_weight", f"attention_{number}_bias"]
        model.graph.initializer.extend([numpy_helper.from_array(weight, names[0]), numpy_helper.from_array(bias, names[1])])
        inputs = [sides[0][3].input[0], *names, "attention_mask_int32"]
        fused[output] = helper.make_node("Attention", inputs, [output], name=f"attention_{number}", domain="com.microsoft", num_heads=heads)
    if not fused:
        raise ArtifactError("graph: found no attention, expected at least one layer of it")
    nodes = [mask, *(fused.get(node.output[0], node) for node in model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(_needed(nodes, [value.name for value in model.graph.output]))
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:], model.graph.value_info[:]
    model.graph.initializer.extend(kept)
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def _reaches(graph: _Graph, node: onnx.NodeProto, softmax: onnx.NodeProto) -> bool:
    try:
        return graph.back(node.output[0], ATTENTION[:4])[-1] is softmax
    except ArtifactError:
        return False


def _needed(nodes: list[onnx.NodeProto], outputs: list[str]) -> list[onnx.NodeProto]:
    """The nodes that lead to the outputs, in their order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]


def products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The encoder's products with weights: each layer's attention, its projection, and the two of the feed-forward part."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type in ("Attention", "MatMul") and node.input[1] in weights]


def activation_ranges(source: Path, feeds: Iterable[Mapping[str, Any]]) -> dict[str, Vector]:
    """Largest magnitude of each channel of what goes into the encoder's products.

    Args:
        source: fp32 graph.
        feeds: inputs of the graph, real turns.

    Returns:
        Name of a value to (channels,).
    """
    model = onnx.load(str(source))
    names = list(dict.fromkeys(node.input[0] for node in products(model)))
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ranges: dict[str, Vector] = {}
    for feed in feeds:
        for name, value in zip(names, session.run(names, feed), strict=True):
            largest = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
            ranges[name] = np.maximum(ranges[name], largest) if name in ranges else largest
    return ranges


def smooth(model: onnx.ModelProto, ranges: Mapping[str, Vector], strength: float = 0.5) -> onnx.ModelProto:
    """Moves the outliers of activations into the weights that they meet, so that one scale fits all channels of either (SmoothQuant, Xiao et al. 2023).

    Args:
        model: fp32 graph; changed in place.
        ranges: of `activation_ranges`.
        strength: 0 leaves all outliers to the activations, 1 moves all of them to the weights.

    Returns:
        The model, the same function: each product's input is divided by channel before it, and its weights multiplied.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    wanted = {node.output[0] for node in products(model)}
    for node in model.graph.node:
        if node.output[0] in wanted:
            values = numpy_helper.to_array(weights[node.input[1]])
            factor = np.maximum(ranges[node.input[0]], 1e-5) ** strength / np.maximum(np.abs(values).max(axis=1), 1e-5) ** (1 - strength)
            name = f"{node.input[1]}_smooth"
            model.graph.initializer.append(numpy_helper.from_array((1 / factor).astype(np.float32), name))
            weights[node.input[1]].CopyFrom(numpy_helper.from_array((values * factor[:, None]).astype(np.float32), node.input[1]))
            nodes.append(helper.make_node("Mul", [node.input[0], name], [f"{name}_input"], name=f"{name}_Mul"))
            node.input[0] = f"{name}_input"
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def split_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each `Attention` as a product with the weights of query, key and value, and what follows as one `MultiHeadAttention`; changed in place."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "Attention":
            nodes.append(node)
            continue
        source, weight, bias, mask = node.input
        heads = next(attribute.i for attribute in node.attribute if attribute.name == "num_heads")
        width = weights[bias].dims[0] // 3
        model.graph.initializer.append(numpy_helper.from_array(np.array([width] * 3, dtype=np.int64), f"{weight}_widths"))
        parts = [f"{weight}_{part}" for part in ("query", "key", "value")]
        nodes.append(helper.make_node("MatMul", [source, weight], [f"{weight}_product"], name=f"{weight}_MatMul"))
        nodes.append(helper.make_node("Split", [f"{weight}_product", f"{weight}_widths"], parts, name=f"{weight}_Split", axis=-1))
        inputs = [*parts, bias, mask]
        nodes.append(helper.make_node("MultiHeadAttention", inputs, [node.output[0]], name=node.name, domain="com.microsoft", num_heads=heads))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def integer_products(model: onnx.ModelProto, wide: Container[str] = ()) -> onnx.ModelProto:
    """The encoder's products in integers: a scale for each token (row of the activations), one for each column of the weights.

    So a token's result depends neither on the other tokens of its window nor on the batch.

    Args:
        model: fp32 graph after `split_attention`; changed in place.
        wide: outputs of the products whose weights get eight bits instead of seven (`NARROW`, `WIDE`).
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    wanted = {node.output[0] for node in products(model)}
    constants: dict[str, np.ndarray[Any, Any]] = {
        "zero": np.array(ROW, np.uint8),
        "levels": np.array(ROW, np.float32),
        "middle": np.array(ROW + 0.5, np.float32),
    }
    constants |= {"axis": np.array([-1], np.int64), "least": np.array(1e-12, np.float32), "one": np.array(1, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(value, f"row_{name}") for name, value in constants.items())
    nodes: list[onnx.NodeProto] = []
    rounded: set[str] = set()
    for node in model.graph.node:
        if node.output[0] not in wanted:
            nodes.append(node)
            continue
        source, name = node.input
        if source not in rounded:
            nodes += _rounded_rows(source)
            rounded.add(source)
        values = numpy_helper.to_array(weights[name])
        levels = WIDE if node.output[0] in wide else NARROW
        scale = np.maximum(np.abs(values).max(axis=0), 1e-12) / levels
        packed = np.clip(np.rint(values / scale), -levels, levels).astype(np.int16)
        kind, zero = (np.uint8, WIDE + 1) if levels == WIDE else (np.int8, 0)
        parts = {"integers": (packed + zero).astype(kind), "scale": (scale / ROW).astype(np.float32), "zero": np.full(len(scale), zero, kind)}
        model.graph.initializer.extend(numpy_helper.from_array(value, f"{name}_{part}") for part, value in parts.items())
        inputs = [f"{source}_integers", f"{name}_integers", "row_one", f"{name}_scale", "row_zero", f"{name}_zero"]
        nodes.append(helper.make_node("MatMulIntegerToFloat", inputs, [f"{name}_unscaled"], name=f"{name}_Integer", domain="com.microsoft"))
        nodes.append(helper.make_node("Mul", [f"{name}_unscaled", f"{source}_largest"], [node.output[0]], name=f"{name}_Scale"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def _rounded_rows(source: str) -> list[onnx.NodeProto]:
    """A value (…, channels) as bytes, each row divided by its largest magnitude, which stays beside it. The cast drops the fraction, hence the half."""
    steps = (
        ("Abs", [source], "magnitude"),
        ("ReduceMax", [f"{source}_magnitude", "row_axis"], "most"),
        ("Max", [f"{source}_most", "row_least"], "largest"),
        ("Div", ["row_levels", f"{source}_largest"], "factor"),
        ("Mul", [source, f"{source}_factor"], "scaled"),
        ("Add", [f"{source}_scaled", "row_middle"], "moved"),
        ("Cast", [f"{source}_moved"], "integers"),
    )
    options: dict[str, dict[str, Any]] = {"Cast": {"to": onnx.TensorProto.UINT8}, "ReduceMax": {"keepdims": 1}}
    return [helper.make_node(kind, inputs, [f"{source}_{name}"], name=f"{source}_{kind}", **options.get(kind, {})) for kind, inputs, name in steps]


def quantise(source: Path, target: Path, precision: str, feeds: Iterable[Mapping[str, Any]] = ()) -> None:
    """Writes the graph in the wanted precision.

    Args:
        source: fp32 graph.
        target: file to write.
        precision: `int8-weights`: see `store_weights_as_int8`. `int8-rows`: the encoder's products in integers with a scale for each token (see
            `integer_products`), smoothed, in eight bits where they sum most (the second of the feed-forward part); the rest (embeddings, memory, heads) as in
            `int8-weights`. `int8`: ONNX Runtime's dynamic quantisation, one scale of activations for each run, seven bits for weights; the rest alike.
        feeds: real turns as inputs of the graph, for `int8-rows` alone.

    Raises:
        ArtifactError: `int8-rows` without feeds.
    """
    with tempfile.TemporaryDirectory() as folder:
        products_only = Path(folder) / "products.onnx"
        if precision == "fp32":
            shutil.copyfile(source, target)
        elif precision == "int8-weights":
            store_weights_as_int8(source, target)
        elif precision == "int8-rows":
            onnx.save(split_attention(onnx.load(str(source))), str(products_only))
            if not (ranges := activation_ranges(products_only, feeds)):
                raise ArtifactError("int8-rows: found no turns, expected some to see how large activations become")
            model = smooth(onnx.load(str(products_only)), ranges, SMOOTHING)
            onnx.save(integer_products(model, [node.output[0] for node in products(model)[3::4]]), str(products_only))
            store_weights_as_int8(products_only, target)
        else:
            dynamic_products(source, products_only)
            store_weights_as_int8(products_only, target)


def dynamic_products(source: Path, target: Path, *, bits: int = 7, exact: Iterable[str] = ()) -> None:
    """The encoder's products in ONNX Runtime's dynamic int8, but for the nodes named in `exact`; memory and heads stay as they are."""
    heads = [f"{node.name}_MatMul" for node in onnx.load(str(source)).graph.node if node.op_type == "Gemm"]  # as the quantiser renames them
    quantize_dynamic(
        str(source),
        str(target),
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=bits == 7,
        op_types_to_quantize=["MatMul", "Attention"],
        nodes_to_exclude=[*heads, *exact],
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # of what ONNX Runtime's own operators give
    )


def store_weights_as_int8(source: Path, target: Path) -> None:
    """Weights as int8 with one scale a row (embeddings) or column (matrices), turned back into fp32 by a cast and a product.

    Every runtime folds such constants when it loads the graph, so the arithmetic is fp32: batch and CPU generation hardly matter, at a quarter of
    the size. (DequantizeLinear would not do: ONNX Runtime fuses it with what follows into integer kernels.)
    """
    model = onnx.load(str(source))
    consumers: dict[str, list[tuple[str, int]]] = {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            consumers.setdefault(name, []).append((node.op_type, place))
    nodes = []
    for tensor in list(model.graph.initializer):
        uses = consumers.get(tensor.name, [])
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim != 2 or values.size < 4096:
            continue
        axis = 0 if all(op == "Gather" for op, _ in uses) else 1
        scale = np.maximum(np.abs(values).max(axis=1 - axis, keepdims=True), 1e-12).astype(np.float32) / np.float32(127.0)
        packed = np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
        name = tensor.name
        model.graph.initializer.remove(tensor)
        model.graph.initializer.extend([numpy_helper.from_array(packed, name + "_int8"), numpy_helper.from_array(scale, name + "_scale")])
        nodes.append(helper.make_node("Cast", [name + "_int8"], [name + "_cast"], to=onnx.TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [name + "_cast", name + "_scale"], [name]))
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    onnx.save(model, str(target))
