import dataclasses

import pytest
import torch
from torch import nn

from recdistill.distillation.loss_terms import TermContext, build_term, checked_loss
from recdistill.distillation.terms.output import OutputOptions, OutputTerm
from recdistill.errors import InputError
from recdistill.registry import LOSS_TERMS

CONTEXT = TermContext(9, 3, 5)


def mean_logit(logits, target, states, teacher):
    return logits.mean()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleOptions:
    scale: float = 2.0


class Scale(nn.Module):
    def __init__(self, options, context):
        super().__init__()
        self.scale, self.context = options.scale, context

    def forward(self, logits, target, states, teacher):
        return self.scale * logits.mean()


def test_a_term_is_built_by_its_name_class_or_function(registered):
    LOSS_TERMS.register("mean_logit")(mean_logit)
    LOSS_TERMS.register("scale", options=ScaleOptions)(Scale)
    logits = torch.tensor([[1.0, 2.0]])
    for term in ("mean_logit", mean_logit):
        built = build_term(term, None, CONTEXT)
        assert list(built.parameters()) == []
        assert built(logits, None, None, None).item() == 1.5
    for term in ("scale", Scale):
        assert build_term(term, None, CONTEXT)(logits, None, None, None).item() == 3
        built = build_term(term, ScaleOptions(scale=4.0), CONTEXT)
        assert built(logits, None, None, None).item() == 6
        assert built.context == CONTEXT
    assert isinstance(build_term("output", OutputOptions(), CONTEXT), OutputTerm)


def test_a_term_that_cannot_be_built_is_refused_in_one_line(registered):
    class NoModule:
        def __init__(self, options, context): ...

    LOSS_TERMS.register("function_with_options", options=ScaleOptions)(mean_logit)
    for term, message in (
        ("outputs", "loss term 'outputs' is unknown.*nearest: output"),
        (NoModule, "NoModule: is a class, but no torch.nn.Module"),
        ("function_with_options", "mean_logit: has options, but is a function"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            build_term(term, None, CONTEXT)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(3), r"returned a tensor \[3\]; return a scalar"),
        (1.5, "returned float"),
        (None, "returned NoneType"),
        (torch.tensor(float("nan")), "is nan"),
        (torch.tensor(float("inf")), "is inf.*or set mine_weight=0"),
    ],
)
def test_a_loss_that_is_not_a_finite_scalar_is_refused_in_one_line(value, message):
    with pytest.raises(InputError, match=f"loss term mine: {message}") as caught:
        checked_loss("mine", value)
    assert "\n" not in str(caught.value)
    assert checked_loss("mine", torch.tensor(2.0)).item() == 2
