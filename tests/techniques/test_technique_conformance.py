"""The shipped conformance suite on every registered technique."""

import inspect
import pkgutil
from importlib import import_module

import quant_explorer.techniques
import tests.techniques
from quant_explorer.techniques import TECHNIQUES
from quant_explorer.techniques.dynamic_int8 import DynamicInt8
from quant_explorer.techniques.fine_tune import FineTuneFloat
from quant_explorer.techniques.half import HalfPrecision
from quant_explorer.techniques.prune import ChannelPruning
from quant_explorer.techniques.qat import QuantizationAwareTraining
from quant_explorer.techniques.static_int8 import StaticInt8
from quant_explorer.testing.conformance_technique import TechniqueConformance


class TestDynamicInt8(TechniqueConformance):
    technique = DynamicInt8()


class TestStaticInt8(TechniqueConformance):
    technique = StaticInt8()


class TestStaticInt8WithParameters(TechniqueConformance):
    technique = StaticInt8(granularity="per_tensor", observer="minmax")


class TestFineTuneFloat(TechniqueConformance):
    technique = FineTuneFloat(epochs=3)


class TestFineTuneFloatDistilled(TechniqueConformance):
    technique = FineTuneFloat(distill=True, temperature=2.0)
    before = (ChannelPruning(),)


class TestHalfPrecision(TechniqueConformance):
    technique = HalfPrecision("fp16")


class TestChannelPruning(TechniqueConformance):
    technique = ChannelPruning()


class TestChannelPruningWithParameters(TechniqueConformance):
    technique = ChannelPruning(ratio=0.3, importance="taylor", round_to=4)


class TestQuantizationAwareTrainingOfAPrunedModel(TechniqueConformance):
    technique = QuantizationAwareTraining()
    before = (ChannelPruning(importance="batch_norm"), StaticInt8())


class TestQuantizationAwareTraining(TechniqueConformance):
    technique = QuantizationAwareTraining(epochs=2, learning_rate=0.01)
    before = (StaticInt8(),)


class TestQuantizationAwareTrainingPerTensor(TechniqueConformance):
    technique = QuantizationAwareTraining()
    before = (StaticInt8(granularity="per_tensor", observer="minmax"),)


def test_every_technique_is_registered_and_conforms() -> None:
    found = set()
    for module in pkgutil.iter_modules(quant_explorer.techniques.__path__):
        name = f"quant_explorer.techniques.{module.name}"
        for _, kind in inspect.getmembers(import_module(name), inspect.isclass):
            if kind.__module__ == name and hasattr(kind, "trains"):
                found.add(kind)
    assert found == set(TECHNIQUES.values())
    # A technique may have its suite in a file of its own.
    for module in pkgutil.iter_modules(tests.techniques.__path__, "tests.techniques."):
        import_module(module.name)
    assert found == {type(suite.technique) for suite in TechniqueConformance.__subclasses__()}
