"""Which samples a student is distilled on, chosen anew every few epochs."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recdistill.config import DistillConfig, TeacherConfig
from recdistill.data.batches import batches, seen_items
from recdistill.data.sequences import SequenceData
from recdistill.distill.selection import SelectionSignals, StudentSignals, overlap, select, student_signals
from recdistill.errors import InputError
from recdistill.data.contents import contents_of
from recdistill.students.student import Student
from recdistill.training.fit import Metrics

SELECTED = "selected"
#: Of a batch; a few tensors of so many scores are held at a time.
MOST_SAMPLES, MOST_SCORES = 1024, 1 << 25


class Selection:
    """The selection policy at work; the samples chosen are in ``memory``, and so in the training's checkpoint.

    Args:
        config: policy, fraction, refresh interval, temperature, seed.
        data: the training samples, N.
        model: the student that policies look at.
        covered: bool [N], samples that the teacher scored.
        ranking, distance: [N, K], its candidates; anything where not covered.
        keep: called with the epoch and the mask bool [N] at each selection.
    """

    def __init__(
        self,
        config: DistillConfig,
        data: SequenceData,
        model: Student,
        covered: Tensor,
        ranking: Tensor,
        distance: Tensor,
        keep: Callable[[int, Tensor], None],
    ) -> None:
        self.config, self.data, self.model = config, data, model
        self.covered, self.ranking, self.distance = covered, ranking, distance
        self.keep = keep
        self.memory = {SELECTED: covered.clone()}

    @property
    def selected(self) -> Tensor:
        """The samples distilled now, bool [N]."""
        return self.memory[SELECTED]

    def begin_epoch(self, epoch: int) -> Metrics:
        """Choose where it is time, and say how much is chosen and how much of it was chosen before."""
        config = self.config
        share = float(self.selected.float().mean())
        if config.selection_policy == "all" and config.selection_fraction == 1:
            return {"train/distilled_share": share}
        if epoch % config.refresh_interval:
            return {"train/distilled_share": share}
        policy = policy_named(config.selection_policy, config.policy_file)
        chosen = select(policy, self.signals(), config.selection_fraction, config.seed + epoch)
        metrics = {"train/distilled_share": float(chosen.float().mean())}
        if epoch:
            metrics["train/selection_overlap"] = overlap(self.selected, chosen)
        self.memory[SELECTED] = chosen
        self.keep(epoch, chosen)
        return metrics

    def signals(self) -> SelectionSignals:
        """What the policies see, of the student as it is."""
        student = signals_of_student(
            self.model, self.data, self.covered, self.ranking, self.config.seed, self.config.exclude_seen
        )
        return SelectionSignals(
            **vars(student[0]),
            candidates=self.ranking,
            distance=self.distance,
            candidate_log_probs=student[1],
            temperature=self.config.temperature,
        )


def policy_named(name: str, file: str) -> Any:
    """The policy of this name, or for ``custom`` the function of the user's file. Raises InputError."""
    return custom_policy(file) if name == "custom" else name


def policy_contents(config: TeacherConfig, name: str) -> dict[str, str]:
    """A digest of the user's file, where the policy ``name`` is its. Raises InputError, before any work."""
    if name != "custom":
        return {}
    custom_policy(config.policy_file)
    return contents_of(config, "policy_file")


def custom_policy(file: str) -> Callable[..., Tensor]:
    """The function ``policy`` that a Python file defines. Raises InputError where there is none."""
    try:
        found = runpy.run_path(str(Path(file).expanduser())).get("policy")
    except Exception as error:  # whatever the user's code raises
        said = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise InputError(f"policy_file={file}: cannot be run ({said})") from None
    if not callable(found):
        raise InputError(f"policy_file={file}: defines no function policy(signals), see docs/DISTILLATION.md")
    return found  # type: ignore[no-any-return]


@torch.no_grad()
def signals_of_student(
    model: Student, data: SequenceData, eligible: Tensor, ranking: Tensor, seed: int, exclude_seen: bool
) -> tuple[StudentSignals, Tensor]:
    """The student's loss and entropy on the eligible training samples, and its log-probabilities [N, K] of ``ranking``.

    ``ranking`` int64 [N, K] may have K = 0. Rows that are not eligible are 0. With ``exclude_seen`` the items of a
    history have no probability.
    """
    model.eval()
    device = next(model.parameters()).device
    samples = len(data.train)
    loss, entropy, log_probs = torch.zeros(samples), torch.zeros(samples), torch.zeros(ranking.shape)
    for batch in batches(
        data.train,
        length=model.max_length,
        batch_size=max(1, min(MOST_SAMPLES, MOST_SCORES // model.num_items)),
        stride=max(1, model.max_length // 2) if model.causal else 1,
        padding_id=data.padding_id,
        seed=0,
        epoch=0,
        shuffle=False,
        index=eligible.nonzero().squeeze(1).numpy(),
    ):
        index, batch = batch.sample, batch.to(device)
        excluded = seen_items(data.train, index, device) if exclude_seen else None
        _, logits = model.scored(batch.history, batch.length, batch.row, batch.column)
        found = student_signals(logits, batch.target, ranking[index].to(device), excluded)
        for kept, values in zip((loss, entropy, log_probs), found, strict=True):
            kept[index] = values.cpu()
    signals = StudentSignals(
        student_loss=loss,
        student_entropy=entropy,
        target=torch.as_tensor(data.train.targets),
        item_count=torch.as_tensor(data.item_count),
        eligible=eligible,
        seed=seed,
    )
    return signals, log_probs
