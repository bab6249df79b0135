"""Rewrites of an exported graph: attention as one operator, and weights or arithmetic in int8."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from lastresort.errors import ArtifactError

PRECISIONS = ("fp32", "int8", "int8-weights")
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


def quantise(source: Path, target: Path, precision: str) -> None:
    """Writes the graph in the wanted precision.

    `int8-weights`: see `store_weights_as_int8`. `int8`: the encoder's matrix products in int8 as well, activations with one scale for each run, and the
    rest (embeddings, memory, heads) as in `int8-weights`. Seven bits for weights, so that no CPU saturates.
    """
    if precision == "fp32":
        shutil.copyfile(source, target)
    elif precision == "int8":
        exact = [
            f"{node.name}_MatMul" for node in onnx.load(str(source)).graph.node if node.op_type == "Gemm"
        ]  # memory and heads, as the quantiser renames them
        with tempfile.TemporaryDirectory() as folder:
            products = Path(folder) / "products.onnx"
            quantize_dynamic(
                str(source),
                str(products),
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                op_types_to_quantize=["MatMul", "Attention"],
                nodes_to_exclude=exact,
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # of what ONNX Runtime's own operators give
            )
            store_weights_as_int8(products, target)
    else:
        store_weights_as_int8(source, target)


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
