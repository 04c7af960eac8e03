import dataclasses

import pytest
import torch
import torch.nn.functional as F
from registered_parts import registries_restored
from torch import nn

from recdistill.config import base
from recdistill.distillation.terms.output import OutputOptions
from recdistill.registry import LOSS_TERMS
from recdistill.testing.loss_terms import LARGEST, check_loss_term, example_batch


@pytest.fixture
def registered(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(LOSS_TERMS, "_declared", dict(LOSS_TERMS._known()))
    monkeypatch.setattr(base, "_tables", {})


@pytest.mark.parametrize("name", LOSS_TERMS.names())
def test_every_loss_term_keeps_the_contract(name):
    check_loss_term(name)
    check_loss_term(LOSS_TERMS.get(name))


def test_options_are_passed_on():
    check_loss_term("output", OutputOptions(output_loss="mse"))
    with pytest.raises(AssertionError, match="unknown embedding loss 'l1'"):
        check_loss_term("output", OutputOptions(output_loss="l1"))


def test_the_examples_hold_distilled_and_other_samples():
    batch = example_batch(scale=LARGEST)
    assert batch.teacher.distilled.any()
    assert not batch.teacher.distilled.all()
    assert batch.logits.abs().max() == LARGEST
    assert (batch.teacher.candidates.sort(dim=1).values.diff(dim=1) > 0).all()


def negative_entropy(logits, target, states, teacher):
    log_probs = torch.log_softmax(logits, dim=1)
    return (log_probs.exp() * log_probs).sum(dim=1).mean()


def margin_to_candidates(logits, target, states, teacher):
    chosen = teacher.distilled
    best = logits[chosen].gather(1, teacher.candidates[chosen, :1])
    return F.softplus(logits[chosen].mean(dim=1, keepdim=True) - best).sum() / len(logits)


class DropsStates(nn.Module):
    def __init__(self, options, context):
        super().__init__()
        self.layer, self.dropout = nn.Linear(context.state_size, context.num_items), nn.Dropout(0.5)

    def forward(self, logits, target, states, teacher):
        return F.cross_entropy(self.layer(self.dropout(states)), target)


@pytest.mark.parametrize("term", [negative_entropy, margin_to_candidates, DropsStates])
def test_good_terms_of_a_user_pass(term):
    check_loss_term(term)


def rows(logits, target, states, teacher):
    return logits.sum(dim=1)


def a_number(logits, target, states, teacher):
    return logits.mean().item()


def wrong_arguments(logits, target):
    return logits.mean()


def overflows(logits, target, states, teacher):
    return logits.double().exp().float().square().square().mean()


def unguarded_robust_term(logits, target, states, teacher):
    return logits.square().exp().sum(dim=1).log().mean()


def gradient_of_a_root(logits, target, states, teacher):
    return (logits - logits.detach()).square().sum().sqrt() + logits.mean()


def mean_of_the_distilled(logits, target, states, teacher):
    return logits[teacher.distilled].mean()


def share_of_the_spread(logits, target, states, teacher):
    size = states.norm(dim=1)
    return ((size - size.min()) / (size.max() - size.min())).mean()


def without_gradient(logits, target, states, teacher):
    return (logits.argmax(dim=1) == target).float().mean()


def to_the_teacher(logits, target, states, teacher):
    chosen = teacher.distilled
    return (states[chosen, :3] - teacher.sequence_embedding[chosen, :3]).square().sum() / len(states)


def to_the_distances(logits, target, states, teacher):
    chosen = teacher.distilled
    return (logits[chosen, 0] * teacher.distance[chosen, 0]).sum() / len(logits)


def centres_in_place(logits, target, states, teacher):
    with torch.no_grad():
        logits -= logits.mean()
    return logits.square().mean()


def reads_all_rows(logits, target, states, teacher):
    return logits.gather(1, teacher.candidates).mean()


def weighs_all_rows(logits, target, states, teacher):
    return logits.mean() * teacher.distance.nan_to_num().mean().detach()


def by_place(logits, target, states, teacher):
    return (logits.mean(dim=1) * torch.arange(len(logits))).mean()


def first_rows(logits, target, states, teacher):
    return logits[:4].square().mean()


def steepens_the_others(logits, target, states, teacher):
    if logits.requires_grad:
        logits.register_hook(lambda gradient: 2 * gradient)
    return logits.mean()


class NeedsMore(nn.Module):
    def __init__(self, options, context, more):
        super().__init__()


class NoModule:
    def __init__(self, options, context): ...


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (rows, r"loss term rows: returned a tensor \[16\]"),
        (a_number, "returned float"),
        (wrong_arguments, "raises TypeError"),
        (overflows, "is inf.*on logits up to 30"),
        (unguarded_robust_term, "is inf.*on logits up to 30"),
        (gradient_of_a_root, "gradient at the logits is not finite"),
        (mean_of_the_distilled, "is nan.*where no sample is distilled"),
        (share_of_the_spread, "is nan.*on a batch of one sample"),
        (without_gradient, "the student learns nothing from it"),
        (to_the_teacher, "sends a gradient to the teacher's sequence_embedding"),
        (to_the_distances, "sends a gradient to the teacher's distance"),
        (centres_in_place, "changes logits in place"),
        (reads_all_rows, "where rows that are not distilled hold no valid item"),
        (weighs_all_rows, "depends on the teacher's rows that are not distilled"),
        (by_place, "for the same samples in another order"),
        (first_rows, "for the same samples in another order"),
        (steepens_the_others, "changes the objective at weight 0"),
        (NeedsMore, r"cannot be built as cls\(options, context\)"),
        (NoModule, "no torch.nn.Module"),
    ],
)
def test_a_broken_term_is_told_what_to_mend(term, message):
    with pytest.raises(AssertionError, match=message) as caught:
        check_loss_term(term)
    assert "\n" not in str(caught.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PowerOptions:
    power: float = -1.0


def test_a_registered_term_is_checked_with_its_defaults(registered):
    @LOSS_TERMS.register("power", options=PowerOptions)
    class Power(nn.Module):
        def __init__(self, options, context):
            super().__init__()
            self.power = options.power

        def forward(self, logits, target, states, teacher):
            return (logits - logits.detach()).abs().pow(self.power).mean()

    with pytest.raises(AssertionError, match="is inf"):
        check_loss_term("power")
    with pytest.raises(AssertionError, match="the student learns nothing from it"):
        check_loss_term(Power, PowerOptions(power=2.0))


def test_a_term_that_is_no_mean_of_samples_must_not_say_so(registered):
    def mean_of_distilled(logits, target, states, teacher):
        return logits[teacher.distilled].logsumexp(dim=1).sum() / teacher.distilled.sum().clamp(min=1)

    LOSS_TERMS.register("of_distilled", help="")(mean_of_distilled)
    check_loss_term("of_distilled")
    LOSS_TERMS.register("said_of_all", help="", mean_of_samples=True)(mean_of_distilled)
    with pytest.raises(AssertionError, match="said_of_all: is registered with mean_of_samples=True, but the means of"):
        check_loss_term("said_of_all")


def test_a_term_whose_weight_is_another_option_is_told():
    with registries_restored():
        LOSS_TERMS.register("ed")(lambda logits, target, states, teacher: logits.logsumexp(dim=1).mean())
        with pytest.raises(AssertionError, match="loss term 'ed': the step itself has an option ed_weight; give the"):
            check_loss_term("ed")
