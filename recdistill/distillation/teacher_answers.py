"""A teacher's answers as the student reads them: by training sample, and the part of one batch."""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from recdistill.errors import InputError


@dataclass(frozen=True)
class TeacherBatch:
    """A teacher's answers for the S samples of a batch, on the device of the student.

    Rows of samples that are not distilled may hold anything.

    Attributes:
        candidates: item ids int64 [S, K], best first.
        distance: of each candidate [S, K]; a small distance means a sure teacher.
        distilled: bool [S], the samples that carry the distillation terms.
        sequence_embedding: the teacher's state of each sample [S, F], or None where the teacher kept none.
        row: int64 [R], ascending, on the CPU: the samples that ``distilled`` says; None where it is to be read.
    """

    candidates: Tensor
    distance: Tensor
    distilled: Tensor
    sequence_embedding: Tensor | None = None
    row: Tensor | None = None

    def rows(self, part: slice) -> "TeacherBatch":
        """The answers for the samples of ``part``, whose start and stop are given."""
        states, row = self.sequence_embedding, self.row
        if row is not None:
            first, last = torch.searchsorted(row, torch.tensor([part.start, part.stop])).tolist()
            row = row[first:last] - part.start
        return TeacherBatch(
            self.candidates[part],
            self.distance[part],
            self.distilled[part],
            None if states is None else states[part],
            row,
        )

    def to(self, device: torch.device | str) -> "TeacherBatch":
        """The same answers on another device, which is not waited for."""
        states = self.sequence_embedding
        return TeacherBatch(
            self.candidates.to(device, non_blocking=True),
            self.distance.to(device, non_blocking=True),
            self.distilled.to(device, non_blocking=True),
            None if states is None else states.to(device, non_blocking=True),
            self.known_rows(),
        )

    def known_rows(self) -> Tensor:
        """The samples that are distilled, int64 [R], ascending, on the CPU; reads the device where ``row`` is None."""
        return self.distilled.nonzero().squeeze(1).cpu() if self.row is None else self.row

    def distilled_rows(self) -> Tensor:
        """The same on the device of the answers, which is not waited for where ``row`` is known."""
        return self.known_rows().to(self.distilled.device, non_blocking=True)

    def filled(self, target: Tensor) -> "TeacherBatch":
        """The same with valid rows: where a sample is not distilled, its target at distance 0 for each candidate.

        Raises InputError where shapes do not fit the targets [S].
        """
        if (
            self.candidates.ndim != 2
            or self.candidates.shape != self.distance.shape
            or len(self.candidates) != len(target)
        ):
            raise InputError(
                f"candidates {list(self.candidates.shape)} and distances {list(self.distance.shape)} do not fit "
                f"{len(target)} targets; give [S, K] both"
            )
        if self.distilled.shape != target.shape or self.distilled.dtype != torch.bool:
            raise InputError(
                f"distilled is {self.distilled.dtype} {list(self.distilled.shape)}; give one bool a sample, "
                f"{list(target.shape)}"
            )
        rows = self.distilled.unsqueeze(1)
        candidates = torch.where(rows, self.candidates, target.unsqueeze(1))
        return replace(self, candidates=candidates, distance=torch.where(rows, self.distance, 0.0))


@dataclass(frozen=True, eq=False, kw_only=True)
class TeacherAnswers:
    """A teacher's answers for M of the N training samples, laid out by training sample, on the CPU.

    Attributes:
        covered: bool [N], the samples that the teacher scored.
        ranking: item ids int64 [N, K], best first; anything where not covered.
        distance: float32 [N, K], of each item of the ranking; a small distance means a sure teacher.
        item_embedding: the teacher's embedding of each item [V, E].
        sample: int64 [M], ascending, the indices of the covered samples.
        sequence_embedding: float32 [M, F], the teacher's state of each covered sample, or None.
        llm: the teacher's language model, for descriptions.
        covered_share: M / N, in [0, 1].

    Raises:
        InputError: shapes do not fit.
    """

    covered: Tensor
    ranking: Tensor
    distance: Tensor
    item_embedding: Tensor
    sample: Tensor
    sequence_embedding: Tensor | None = None
    llm: str = ""
    covered_share: float = 0.0

    def __post_init__(self) -> None:
        states = self.sequence_embedding
        if (
            self.ranking.ndim != 2
            or self.ranking.shape != self.distance.shape
            or self.covered.shape != self.ranking.shape[:1]
            or (states is not None and (states.ndim != 2 or len(states) != len(self.sample)))
        ):
            found = "none" if states is None else list(states.shape)
            raise InputError(
                f"teacher answers: covered {list(self.covered.shape)}, ranking {list(self.ranking.shape)}, distance "
                f"{list(self.distance.shape)} and sequence embeddings {found} of {len(self.sample)} covered samples "
                "do not fit; give [N], [N, K], [N, K] and [M, F]"
            )

    @property
    def state_size(self) -> int | None:
        """F, the size of the teacher's sequence embeddings; None where it kept none."""
        return None if self.sequence_embedding is None else self.sequence_embedding.shape[1]

    def shuffled(self, what: str, seed: int) -> Self:
        """The same answers dealt at random: a teacher that knows nothing, and answers as this one does.

        Args:
            what: ``rankings`` deals rankings, distances and states among the covered samples, ``vectors`` the item
                embeddings among the items, ``both`` the two; ``none`` nothing.
            seed: of the deal.

        Raises:
            InputError: ``what`` is none of these.
        """
        if what not in ("none", "rankings", "vectors", "both"):
            raise InputError(f"teacher_shuffle={what}: must be one of none, rankings, vectors, both")
        draw = torch.Generator().manual_seed(seed)
        changes: dict[str, Any] = {}
        if what in ("rankings", "both"):
            dealt = torch.randperm(len(self.sample), generator=draw)
            for name in ("ranking", "distance"):
                rows = getattr(self, name).clone()
                rows[self.sample] = rows[self.sample[dealt]]
                changes[name] = rows
            if self.sequence_embedding is not None:
                changes["sequence_embedding"] = self.sequence_embedding[dealt]
        if what in ("vectors", "both"):
            changes["item_embedding"] = self.item_embedding[torch.randperm(len(self.item_embedding), generator=draw)]
        return replace(self, **changes)

    @property
    def ranking_bytes(self) -> int:
        """Bytes of the rankings and their distances."""
        return self.ranking.nbytes + self.distance.nbytes

    def ranking_on(self, device: torch.device | str) -> Self:
        """The same answers with rankings and distances on a device, which is not waited for; see `batch_there`."""
        ranking, distance = (one.to(device, non_blocking=True) for one in (self.ranking, self.distance))
        return replace(self, ranking=ranking, distance=distance)

    def batch_there(self, sample: Tensor, there: Tensor, distilled: Tensor, row: Tensor) -> TeacherBatch:
        """`batch` of what `ranking_on` gives, on its device, which is not waited for.

        Args:
            sample: int64 [S], indices of training samples, on the CPU.
            there: the same on the device.
            distilled: bool [N], the training samples that carry the distillation terms, on the device.
            row: int64 [R], ascending, on the CPU: those of the batch that ``distilled`` says.
        """
        states = self._states(sample)
        return TeacherBatch(
            self.ranking.index_select(0, there),
            self.distance.index_select(0, there),
            distilled.index_select(0, there),
            None if states is None else states.to(there.device, non_blocking=True),
            row,
        )

    def batch(self, sample: Tensor, distilled: Tensor, device: torch.device | str) -> TeacherBatch:
        """The answers for the samples of a batch.

        Args:
            sample: int64 [S], indices of training samples, on the CPU.
            distilled: bool [S], the samples of the batch that carry the distillation terms; all of them covered.
            device: of the student.
        """
        return TeacherBatch(self.ranking[sample], self.distance[sample], distilled, self._states(sample)).to(device)

    def _states(self, sample: Tensor) -> Tensor | None:
        """The teacher's states [S, F] of samples [S]; another sample's where one is not covered."""
        states = self.sequence_embedding
        if states is None or not len(states):
            return None if states is None else states.new_zeros(len(sample), states.shape[1])
        return states[torch.searchsorted(self.sample, sample).clamp(max=len(self.sample) - 1)]
