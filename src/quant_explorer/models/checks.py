"""What a model must do to be compressed and compared, checked before anything is built of it."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING

from quant_explorer.core.errors import ModelError, explain
from quant_explorer.core.units import format_count, list_some
from quant_explorer.models.precision import watch_precision
from quant_explorer.models.source_lines import line_of, places_of, returns_of

if TYPE_CHECKING:
    import torch
    from torch import nn

_WRAPPER = """Wrap it, and give the wrapper to --model:
    class Logits(nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            self.inner = your_function(num_classes)
        def forward(self, images):
            return self.inner(images){access}"""
_SQUEEZE = re.compile(r"\bsqueeze\(\s*(\w+\s*)?\)")
# A dropout that does not say whether it is in training.
_DROPOUT = re.compile(r"\bdropout\d?d?\((?!.*training).*\)")
_SOFTMAX = re.compile(r"softmax\(", re.IGNORECASE)
_DTYPE = re.compile(r"\bdtype=|\.(double|half|bfloat16|to)\(")
_LOWER = re.compile(r"autocast|bfloat16|float16|\.half\(")
_NO_GRADIENT = re.compile(r"no_grad|inference_mode|requires_grad|\.detach\(")
_LAZY = re.compile(r"\bLazy\w+\(")
_BATCH = re.compile(r"\.train\(\)|training=True|\b(mean|std|var|amax|amin|norm)\(\s*(\w+\s*)?\)")
_IN_PLACE = re.compile(r"\w\s*[-+*/]=|\.\w+[a-z]_\(|inplace=True")
_RANDOM = re.compile(r"\b(rand|randn|randint|rand_like|randn_like|bernoulli|randperm)\(")

# Of the largest output: other kernels compute other numbers of images.
_ALONE = 1e-3


def check_output(module: nn.Module, input_shape: tuple[int, int, int], classes: int) -> None:
    """Run two black images and one; raises ModelError unless the module gives float32 (n, classes).

    The module is run in eval mode and left in the mode it was in.
    """
    import torch

    for count in (2, 1):
        output = _run(module, torch.zeros(count, *input_shape))
        if not isinstance(output, torch.Tensor):
            raise ModelError(
                f"the model returned {type(output).__name__}, not one tensor (n, {classes})"
                f"{returns_of(module)}. {_wrapper(output)}"
            )
        if tuple(output.shape) != (count, classes) or not output.is_floating_point():
            raise ModelError(
                f"the model gives {output.dtype} of shape {tuple(output.shape)} for "
                f"{format_count(count, 'image')}; "
                f"the data set has {classes} classes, so it must be floating point of shape "
                f"{(count, classes)}{_why_shape(module, output, count, classes)}"
            )
        if output.dtype != torch.float32:
            raise ModelError(
                f"the model gives {output.dtype}{returns_of(module)}. Allowed: torch.float32; "
                "call .float() on it."
            )


def check_held(module: nn.Module, *, name: str) -> None:
    """Raise ModelError unless all that `module` holds are tensors in memory, and its numbers float32.

    Layers that a part holds outside of PyTorch's own lists are refused too: no file has their weights.
    """
    import torch

    if hidden := _hidden_layers(module):
        raise ModelError(
            f"--model {name}: layers in a plain list, tuple or dict are not part of it, so that no file has "
            f"their weights: {list_some(hidden)}. Allowed: nn.ModuleList and nn.ModuleDict."
        )
    others = [
        f"{part} ({type(value).__name__})"
        for part, value in module.state_dict().items()
        if not isinstance(value, torch.Tensor)
    ]
    if others:
        raise ModelError(
            f"--model {name}: it holds something else than tensors: {list_some(others)}. Allowed: the "
            "float32 model, before anything of it is quantized."
        )
    tensors = dict((*module.named_parameters(), *module.named_buffers()))
    devices = {str(tensor.device): part for part, tensor in tensors.items() if tensor.device.type != "cpu"}
    if devices:
        held = ", ".join(f"{device} (for instance {part})" for device, part in sorted(devices.items()))
        raise ModelError(f"--model {name}: its weights are on the device {held}. Allowed: cpu.")
    kinds = {
        str(tensor.dtype): part
        for part, tensor in tensors.items()
        if tensor.is_quantized or (tensor.is_floating_point() and tensor.dtype != torch.float32)
    }
    if kinds:
        held = ", ".join(f"{kind} (for instance in {part})" for kind, part in sorted(kinds.items()))
        raise ModelError(
            f"--model {name}: it holds {held}{places_of(module, _DTYPE)}. Allowed: torch.float32; "
            "return model.float()."
        )


def _hidden_layers(module: nn.Module) -> list[str]:
    """Return the plain containers in which parts of a module hold modules with weights of their own."""
    from torch import nn

    known = set(module.modules())
    hidden = []
    for name, part in module.named_modules():
        for attribute, held in vars(part).items():
            values = held.values() if isinstance(held, dict) else held
            # PyTorch keeps its own in dicts like _modules.
            if attribute.startswith("_") or not isinstance(held, dict | list | tuple):
                continue
            found = [item for item in values if isinstance(item, nn.Module) and item not in known]
            if any(any(True for _ in item.parameters()) for item in found):
                hidden.append(f"{name}.{attribute}".lstrip("."))
    return hidden


def check_model(module: nn.Module, input_shape: tuple[int, int, int], *, name: str) -> tuple[str, ...]:
    """Return what a user should know of the model; raises ModelError for one that no figure can be had of.

    The same images must give the same outputs twice and each alone, and stay as they are.
    """
    import torch

    batch = torch.rand(2, *input_shape, generator=torch.Generator().manual_seed(0))
    batch[1] *= 0.25  # of another brightness, so that a mean over both is that of neither
    with watch_precision() as lower:
        first = _outputs(module, batch, name)
    if lower:
        raise ModelError(
            f"--model {name}: it computes in {', '.join(sorted(lower))} inside{places_of(module, _LOWER)}. "
            "Allowed: torch.float32 throughout; which precision is enough is what is measured."
        )
    second = _outputs(module, batch, name)
    alone = torch.cat([_outputs(module, image, name) for image in batch.split(1)])
    if not torch.equal(first, second):
        places = places_of(module, _DROPOUT) or places_of(module, _RANDOM)
        raise ModelError(
            f"--model {name}: the same images give other outputs the second time, also in eval mode{places}. "
            "F.dropout needs training=self.training; nn.Dropout does it by itself."
        )
    if (first - alone).abs().max() > _ALONE * first.abs().max():
        raise ModelError(
            f"--model {name}: an image gets other outputs beside another image than alone, also in eval mode"
            f"{places_of(module, _BATCH)}. Allowed: outputs that follow from the image alone. A batch norm "
            "has to be in eval mode (model.eval() before an export), and a mean must not be over images."
        )
    sums = first.sum(1)
    if bool((first >= 0).all()) and bool(torch.allclose(sums, torch.ones_like(sums), atol=1e-4)):
        return (
            f"{name} ends with a softmax (its outputs are shares that add up to 1)"
            f"{places_of(module, _SOFTMAX)}. Accuracy is the same; decibels and training are not, so return "
            "the logits",
        )
    return ()


def check_training(module: nn.Module, input_shape: tuple[int, int, int], classes: int) -> None:
    """Run two images in training mode; raises ModelError unless it gives what it does in evaluation.

    Heads that help training come out too then, for instance of GoogLeNet. What it gives needs a gradient. The
    module is not touched.
    """
    import torch

    from quant_explorer.tracing.plain import make_plain

    own = copy.deepcopy(make_plain(module)).train()
    images = torch.rand(2, *input_shape, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        output = _run(own, images, training=True)
    if isinstance(output, torch.Tensor) and tuple(output.shape) == (2, classes):
        if output.requires_grad:
            return
        raise ModelError(
            f"its outputs have no gradient, so nothing can be trained{places_of(module, _NO_GRADIENT)}. "
            "Allowed: a forward() without torch.no_grad(), and parameters of which some require a gradient."
        )
    found = f"a tensor {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
    raise ModelError(
        f"in training mode the model returns {found}, not one tensor (n, {classes}) as in evaluation"
        f"{returns_of(module)}. Leave out what only training has (aux_logits=False in torchvision's models). "
        f"{_wrapper(output, 'if self.training else self.inner(images)')}"
    )


def describe_computed(module: nn.Module) -> tuple[str, ...]:
    """Return which weights are computed before each call, by weight norm for instance, and what is done."""
    from quant_explorer.tracing.plain import list_computed

    computed = list_computed(module)
    if not computed:
        return ()
    return (f"Computed once, and plain weights from then on, in training too: {', '.join(computed)}",)


def initialize_lazy(module: nn.Module, input_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Give lazy layers their shapes by running a batch, and return what was done."""
    import torch
    from torch.nn.parameter import is_lazy

    lazy = [name for name, parameter in module.named_parameters() if is_lazy(parameter)]
    if not lazy:
        return ()
    _run(module, torch.zeros(2, *input_shape))
    left = [name for name, parameter in module.named_parameters() if is_lazy(parameter)]
    if left:
        raise ModelError(
            f"lazy layers that no image reaches have no shape: {', '.join(left)}{places_of(module, _LAZY)}. "
            "Call them in forward(), or leave them out."
        )
    return (f"Lazy layers got their shapes from a batch {(2, *input_shape)}: {', '.join(lazy)}",)


def _run(module: nn.Module, batch: torch.Tensor, *, training: bool = False) -> object:
    import torch

    was_training = module.training
    module.train(training)
    try:
        with torch.set_grad_enabled(training):
            output: object = module(batch)
    except Exception as error:  # a user's own code: it may raise anything
        mode = " in training mode" if training else ""
        raise ModelError(
            f"the model cannot take a batch of shape {tuple(batch.shape)}{mode} ({explain(error)})"
            f"{line_of(error, module)}"
        ) from error
    finally:
        module.train(was_training)
    return output


def _outputs(module: nn.Module, images: torch.Tensor, name: str) -> torch.Tensor:
    """Return outputs without NaN; raises ModelError where the model writes into its images."""
    import torch

    given = images.clone()
    output = _run(module, given)
    assert isinstance(output, torch.Tensor)
    if not torch.equal(given, images):
        raise ModelError(
            f"--model {name}: it writes into the images that it is given{places_of(module, _IN_PLACE)}. "
            "Allowed: new tensors, as x = x - 1 for x -= 1; x = x.clone() at the start of forward()."
        )
    return output.nan_to_num()


def _wrapper(output: object, otherwise: str = "") -> str:
    """Return the class to write for what a model returns, `otherwise` where its access is not right."""
    access = _access(output)
    if not access:
        return "Return the logits."
    return _WRAPPER.format(access=f"{access} {otherwise}".rstrip())


def _access(output: object) -> str:
    if hasattr(output, "logits"):
        return ".logits"
    match output:
        case dict():
            key = next((key for key in ("logits", "out") if key in output), next(iter(output), "logits"))
            return f"[{key!r}]"
        case tuple() | list():
            return "[0]"
    return ""


def _why_shape(module: nn.Module, output: torch.Tensor, count: int, classes: int) -> str:
    if output.ndim == 2 and len(output) == count:
        return (
            f". If its {output.shape[1]} outputs are right, --classes FILE names them, a line each, and the "
            "data set may have some of them"
        )
    if count == 1 and output.ndim == 1:
        places = places_of(module, _SQUEEZE)
        return f". A squeeze without a dimension takes the batch away too{places}; use flatten(1)"
    if output.ndim > 2 and tuple(output.shape[:2]) == (count, classes):
        return ". Return output.flatten(1)"
    return ""
