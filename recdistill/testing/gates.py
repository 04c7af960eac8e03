"""Checks of a gate: whoever writes one calls `check_gate` on it and learns what to mend."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from recdistill.errors import InputError
from recdistill.registry import GATES
from recdistill.teachers.ilora.gate import Gate, build_gate

STATE_SIZE, EXPERTS, STATES = 64, 4, 24
LEADING = ((), (3,), (2, 5))
TOLERANCE = 1e-5

Build = Callable[[], Gate]


def check_gate(gate: str | type[Gate], options: Any = None) -> None:
    """Check that a gate keeps its contract: states [..., D] to mixing weights [..., K], on made-up states.

    Args:
        gate: the name of a registered gate, or the class.
        options: instance of the gate's options dataclass; None for its defaults.

    Raises:
        AssertionError: the gate breaks the contract; the message says how, and what to change.
    """
    name = gate if isinstance(gate, str) else gate.__name__
    build = _builder(name, gate, options)
    with torch.random.fork_rng(devices=[]):
        for check in (
            _mixes,
            _reads_every_leading_shape,
            _keeps_the_order,
            _is_deterministic_in_evaluation,
            _looks_at_the_state,
            _is_saved_whole,
            _learns_as_it_says,
            _refuses_other_states,
        ):
            torch.manual_seed(0)
            check(name, build)


def _builder(name: str, gate: str | type[Gate], options: Any) -> Build:
    """A function that builds the gate, and turns what goes wrong into a sentence."""

    def build() -> Gate:
        try:
            if isinstance(gate, str):
                named = {} if options is None else asdict(options)
                return build_gate(gate, STATE_SIZE, EXPERTS, options=named)  # type: ignore[return-value]
            of_options = GATES.options(GATES.name_of(gate)) if _is_registered(gate) else None
            own = options if options is not None or of_options is None else of_options()
            return gate(STATE_SIZE, EXPERTS) if own is None else gate(STATE_SIZE, EXPERTS, own)  # type: ignore[call-arg]
        except InputError as error:
            raise AssertionError(f"{name}: {error}") from error
        except TypeError as error:
            raise AssertionError(
                f"{name}: cannot be built ({error}); it is built as cls(state_size, experts), and cls(state_size, "
                "experts, options) where it is registered with options, and it must define logits"
            ) from error

    return build


def _is_registered(gate: type[Gate]) -> bool:
    return any(GATES.part(name) is gate for name in GATES.names())


def _weights(name: str, gate: Gate, state: Tensor) -> Tensor:
    try:
        found: Tensor = gate(state)
    except Exception as error:
        raise AssertionError(
            f"{name}: raises {type(error).__name__} for states {list(state.shape)} ({error}); it must read [..., D]"
        ) from error
    return found


def _mixes(name: str, build: Build) -> None:
    for training in (False, True):
        gate, state = build().train(training), 3 * torch.randn(STATES, STATE_SIZE)
        for states in (state, state.to(torch.bfloat16)):
            weights = _weights(name, gate, states)
            mode = "training" if training else "evaluation"
            assert weights.shape == (STATES, EXPERTS), (
                f"{name}: gives {list(weights.shape)} for states {list(states.shape)}; "
                f"give a weight for each expert, [..., {EXPERTS}]"
            )
            assert weights.dtype == torch.float32, (
                f"{name}: gives {weights.dtype} for states in {states.dtype}; "
                "give weights in the parameters' precision, float32"
            )
            assert bool((weights >= 0).all()), f"{name}: gives a negative weight in {mode} mode; use a softmax"
            off = float((weights.detach().sum(dim=-1) - 1).abs().max())
            assert off < TOLERANCE, (
                f"{name}: weights sum to 1 ± {off:.3g} in {mode} mode; the experts' weights of a state must sum to 1"
            )


def _reads_every_leading_shape(name: str, build: Build) -> None:
    gate = build().eval()
    for leading in LEADING:
        state = torch.randn(*leading, STATE_SIZE)
        weights = _weights(name, gate, state)
        assert weights.shape == (*leading, EXPERTS), (
            f"{name}: gives {list(weights.shape)} for states {list(state.shape)}; every leading shape must stay, as a "
            "gate reads one state a sample, or one a token"
        )
        flat = _weights(name, gate, state.reshape(-1, STATE_SIZE))
        assert torch.allclose(weights.reshape(-1, EXPERTS), flat, atol=TOLERANCE), (
            f"{name}: the weights of states {list(state.shape)} are not those of the same states in one row; "
            "each state has to be read by itself"
        )


def _keeps_the_order(name: str, build: Build) -> None:
    gate, state = build().eval(), torch.randn(STATES, STATE_SIZE)
    order = torch.randperm(STATES)
    assert torch.allclose(_weights(name, gate, state[order]), _weights(name, gate, state)[order], atol=TOLERANCE), (
        f"{name}: the weights of a permuted batch are not the permuted weights; in evaluation mode a state's weights "
        "must not depend on the batch"
    )


def _is_deterministic_in_evaluation(name: str, build: Build) -> None:
    gate, state = build().eval(), torch.randn(STATES, STATE_SIZE)
    assert torch.equal(_weights(name, gate, state), _weights(name, gate, state)), (
        f"{name}: gives other weights for the same states in evaluation mode; draw random numbers in training alone"
    )


def _looks_at_the_state(name: str, build: Build) -> None:
    weights = _weights(name, build().eval(), 3 * torch.randn(STATES, STATE_SIZE))
    assert float((weights - weights[0]).detach().abs().max()) > TOLERANCE, (
        f"{name}: gives all states the same weights; that is plain LoRA, which needs no gate"
    )


def _is_saved_whole(name: str, build: Build) -> None:
    gate, state = build(), torch.randn(STATES, STATE_SIZE)
    _weights(name, gate.train(), state)  # running statistics move
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    other = build()
    other.load_state_dict(gate.state_dict())
    assert torch.equal(_weights(name, other.eval(), state), _weights(name, gate.eval(), state)), (
        f"{name}: another gate with the same state_dict gives other weights; keep all that it learns in parameters and "
        "persistent buffers"
    )


def _learns_as_it_says(name: str, build: Build) -> None:
    gate, state = build().train(), torch.randn(STATES, STATE_SIZE)
    weights = _weights(name, gate, state)
    if weights.requires_grad:
        (weights * torch.randn_like(weights)).sum().backward()
    reached = {
        key: parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        for key, parameter in gate.named_parameters()
    }
    assert reached, f"{name}: has no parameters; a gate has to be trained"
    missing = [key for key, yes in reached.items() if not yes]
    if gate.learns:
        assert not missing, (
            f"{name}: no gradient reaches {', '.join(missing)}; leave out what is not used, or, where no gradient can "
            "pass, say so by the property learns"
        )
    else:
        assert len(missing) == len(reached), f"{name}: says that it does not learn, but a gradient reaches it"


def _refuses_other_states(name: str, build: Build) -> None:
    gate = build().eval()
    try:
        gate(torch.randn(STATES, STATE_SIZE // 2))
    except ValueError:
        return
    raise AssertionError(f"{name}: reads states of another size; leave forward to Gate, and define logits alone")
