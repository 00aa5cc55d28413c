"""Follows values through a model's operators, as PyTorch dispatches them (`TorchDispatchMode`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.module_tracker import ModuleTracker

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import MASKED, QuantSpec
from quant_explorer.tracing.attention import attention_as_products

# Where the two factors of a product stand among an operator's arguments; the rest is a bias.
PRODUCTS = {"convolution": (0, 1), "addmm": (1, 2), "mm": (0, 1), "bmm": (0, 1), "baddbmm": (1, 2)}
BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training")
HALF = ("bf16", "fp16")
# Places among the arguments of a convolution.
_TRANSPOSED, _GROUPS = 6, 8
_LINEAR = ("addmm", "mm")
_SUMS = (*PRODUCTS, *BATCH_NORMS, "add", "add_")
# What clips the sums before it, which have the grid of its results in all runtimes.
_CLIPPING = ("relu", "relu_", "hardtanh", "hardtanh_", "clamp", "clamp_")
# What gives values of its input again, on whose grid they stay.
_MOVES = (
    *("clone", "_unsafe_view", "unsafe_split", "max_pool2d_with_indices", "constant_pad_nd"),
    *("pixel_shuffle", "copy_"),
)
# What puts a mask of attention on values.
_MASKING = ("add", "add_", "sub", "where", "masked_fill", "masked_fill_")
# Operators whose constants are quantized as activations are; others have parameters, which stay float.
_ARITHMETIC = ("add", "add_", "sub", "sub_", "rsub", "mul", "mul_", "div", "div_", "cat")
# Where the divisor stands, which stays float: rounded to 0 it divides by zero. Where a runtime rounds it all
# the same, its files have to be as near as without.
_DIVISORS = {"div": 1, "div_": 1, "reciprocal": 0, "rsqrt": 0, "rsqrt_": 0}


@dataclass(frozen=True)
class Value:
    """What a call of an operator gave: the number of the call in the forward pass, and the operator.

    The images have number 0; parameters, and what is computed from them alone, are constants. `masked` ones
    have a mask of attention in them, which leaves them no useful scale: they stay float.
    """

    call: int
    operator: str
    masked: bool = False

    @property
    def constant(self) -> bool:
        """Whether it is the same for all images."""
        return self.call < 0


@dataclass(frozen=True)
class Outputs:
    """Where a weight has its output channels: along `axis`.

    `transposed_groups` is the number of groups of a transposed convolution, which has the inputs of all
    groups along axis 0 and the outputs of a single group along axis 1; None for other products.
    """

    axis: int
    transposed_groups: int | None = None

    def first(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight with all output channels along axis 0."""
        if self.transposed_groups is None:
            return weight.movedim(self.axis, 0)
        grouped = weight.reshape(self.transposed_groups, -1, *weight.shape[1:])
        return grouped.transpose(1, 2).flatten(0, 1)

    def back(self, weight: torch.Tensor) -> torch.Tensor:
        """Return what `first` was given."""
        if self.transposed_groups is None:
            return weight.movedim(0, self.axis)
        return self.first(weight)


IMAGES, CONSTANT = Value(0, "images"), Value(-1, "constant")


class Following(TorchDispatchMode):
    """Computes a model's operators and tells what their operands are, which subclasses may replace.

    A batch norm, a ReLU and a clamp right behind a product take its sums as they are: all runtimes fuse them,
    or give the sums the grid of what is left of them.
    """

    # Operators that leave their output on the grid of their input.
    sharing: tuple[str, ...] = ()
    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, spec: QuantSpec) -> None:
        """Know the constants of `model`."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._model, self._spec = model, spec
        self._calls = 0
        self._tracker = ModuleTracker()
        # By storage, so that a view is the value it looks at.
        self._values: dict[int, Value] = {}
        # Of storages that are gone, whose numbers would be given to others.
        self._references: dict[int, StorageWeakRef] = {}
        for tensor in (*model.parameters(), *model.buffers()):
            self._note(tensor, CONSTANT)

    def activation(self, tensor: torch.Tensor, value: Value) -> torch.Tensor:
        """Return what an operator reads instead of `tensor`, which is `value`."""
        raise NotImplementedError

    def weight(self, tensor: torch.Tensor, outputs: Outputs) -> torch.Tensor:
        """Return what a product reads instead of its constant factor, whose channels are at `outputs`."""
        return tensor

    def compute(self, func: OpOverload, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        """Call an operator with what it reads."""
        return func(*args, **kwargs)

    def note_call(self, made: Value, name: str, args: Sequence[object], operands: Sequence[Value]) -> None:
        """Take note that an operator makes a value of others; subclasses may keep it."""

    def value(self, tensor: torch.Tensor) -> Value:
        """Return what the tensor is; what was made elsewhere is a constant."""
        return self._values.get(_storage(tensor), CONSTANT)

    def run(self, batch: Batch, call: Callable[[torch.Tensor], object] | None = None) -> Batch:
        """Return the logits (n, classes) of the model, called by `call` if given, for a batch of images."""
        # A copy, because forward() may write to what it is given.
        images = torch.from_numpy(batch).clone()
        self._note(images, IMAGES)
        with torch.inference_mode(mode=False), torch.no_grad(), attention_as_products():
            with _frozen(self._model), self._tracker, self:
                output = (call or self._model)(images)
            assert isinstance(output, torch.Tensor)
            if self._spec.activations == "static" or self._spec.precision in HALF:
                output = self.activation(output, self.value(output))
        logits: Batch = output.numpy()
        return logits

    def __torch_dispatch__(
        self,
        func: OpOverload | HigherOrderOperator,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Compute one ATen operator, quantized as its layer asks; raises UnsupportedError for torch.cond."""
        if isinstance(func, HigherOrderOperator):
            raise UnsupportedError(
                f"forward() calls torch.{func.name()}, whose {self._spec.precision} cannot be simulated, so "
                "that files of it could not be checked"
            )
        kwargs, name = kwargs or {}, operator_name(func)
        self._calls += 1
        tensors = _tensors((args, kwargs))
        operands = [self.value(tensor) for tensor in tensors]
        made = Value(self._calls, name, masked=self._masks(name, args, tensors))
        # A literal of forward() may have the storage of a value that is gone.
        if name == "lift_fresh" or all(value.constant for value in operands):
            made = CONSTANT
        elif func.is_view or name in _MOVES:
            made = operands[-1 if name == "copy_" else 0]
        elif not self._stays_float():
            args = tuple(self._read(name, list(args), mutable=func._schema.is_mutable))
            made = operands[0] if name in self.sharing else made
        if made.call == self._calls:
            self.note_call(made, name, args, operands)
        result = self.compute(func, args, kwargs)
        for tensor in _tensors(result):
            self._note(tensor, made)
        return result

    def _note(self, tensor: torch.Tensor, value: Value) -> None:
        storage = _storage(tensor)
        self._values[storage] = value
        self._references.setdefault(storage, StorageWeakRef(tensor.untyped_storage()))

    def _masks(self, name: str, args: Sequence[object], tensors: Sequence[torch.Tensor]) -> bool:
        if name not in _MASKING:
            return False
        numbers = [abs(number) for number in args if isinstance(number, int | float)]
        for tensor in tensors:
            value = self.value(tensor)
            if value.masked:
                return True
            if value.constant and tensor.is_floating_point() and tensor.numel():
                numbers.append(float(tensor.abs().max()))
        return any(number >= MASKED for number in numbers)

    def _stays_float(self) -> bool:
        modules = {name.partition(".")[2] for name in self._tracker.parents}
        return not modules.isdisjoint(self._spec.float_layers)

    def _read(self, name: str, args: list[object], *, mutable: bool) -> list[object]:
        if name in PRODUCTS:
            return self._read_factors(name, args)
        if self._spec.activations != "static" and self._spec.precision not in HALF:
            return args
        first = _tensors(args)[0]
        fused = PRODUCTS if name in BATCH_NORMS else _SUMS if name in _CLIPPING else ()
        if self.value(first).operator in fused:
            return args

        divisor = args[_DIVISORS[name]] if name in _DIVISORS else None

        def read(operand: object) -> object:
            if operand is divisor or not isinstance(operand, torch.Tensor) or operand.dtype != torch.float32:
                return operand
            value = self.value(operand)
            if value.constant and name not in _ARITHMETIC:
                return operand
            rounded = self.activation(operand, value)
            # What is written to must stay the tensor that it is.
            return operand.copy_(rounded) if mutable and operand is first else rounded

        return list(tree_map(read, args))

    def _read_factors(self, name: str, args: list[object]) -> list[object]:
        factors = {position: args[position] for position in PRODUCTS[name]}
        values = [self.value(factor) for factor in _tensors(factors)]
        dynamic = self._spec.activations == "dynamic"
        if dynamic and (name not in _LINEAR or not any(value.constant for value in values)):
            return args
        read = list(args)
        for (position, factor), value in zip(factors.items(), values, strict=True):
            assert isinstance(factor, torch.Tensor)
            if value.constant:
                read[position] = self.weight(factor, _outputs(name, args, position))
            elif self._spec.activations != "float" or self._spec.precision in HALF:
                read[position] = self.activation(factor, value)
        return read


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter ask for gradients: a view of it, given to a layer, would stop the tracker."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def operator_name(func: OpOverload) -> str:
    """Return the name of an operator without its overload, for instance `add`."""
    return str(func.overloadpacket.__name__)


def is_transposed(name: str, args: Sequence[object]) -> bool:
    """Say whether a call of the operator `name` is a transposed convolution."""
    return name == "convolution" and bool(args[_TRANSPOSED])


def _outputs(name: str, args: Sequence[object], position: int) -> Outputs:
    if is_transposed(name, args):
        groups = args[_GROUPS]
        assert isinstance(groups, int)
        return Outputs(1, groups)
    if name == "convolution":
        return Outputs(0)
    factor = args[position]
    assert isinstance(factor, torch.Tensor)
    return Outputs(factor.dim() - (2 if position == PRODUCTS[name][0] else 1))


def _tensors(nested: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, torch.Tensor)]


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
