"""The frozen backbone (a SASRec, by default) as a teacher: what a student gains of it is not the LLM's.

A teacher over an LLM reads this backbone's states, and answers much as it does. A student may gain by learning from
such answers whether an LLM had a part in them or not: what an LLM teaches is what its student is ahead of this one's.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from recdistill.config import TeacherConfig
from recdistill.data.batches import Batch, seen_items
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.evaluation.evaluate import MAX_SCORES, Ranked
from recdistill.registry import TEACHERS
from recdistill.students.student import Student
from recdistill.teachers.backbone.scores import backbone_scores, own_windows
from recdistill.teachers.held_out import Excluded, held_out_ranks
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.training.distributed import ALONE, Processes

SETTINGS_FILE = "teacher.json"
MOST_SAMPLES_A_BATCH = 512


@TEACHERS.register("backbone", llm=False)
@dataclass(frozen=True, eq=False, kw_only=True)
class BackboneTeacher:
    """The frozen backbone as a teacher; see `protocol.Teacher`. It is not trained, and costs no LLM token.

    A budget of tokens counts its samples, one each.
    """

    needs_llm: ClassVar[bool] = False
    needs_language_model_head: ClassVar[bool] = False

    backbone: Student
    data: SequenceData
    config: TeacherConfig
    processes: Processes = ALONE

    @classmethod
    def build(
        cls,
        config: TeacherConfig,
        llm: BaseLLM | None,
        backbone: Student,
        data: SequenceData,
        processes: Processes = ALONE,
    ) -> Self:
        """The teacher, ready to score."""
        return cls(backbone=backbone, data=data, config=config, processes=processes)

    @classmethod
    def load(
        cls, folder: Path, config: TeacherConfig, llm: BaseLLM | None, backbone: Student, data: SequenceData
    ) -> Self:
        """The teacher of `save`. Raises InputError where the folder holds none."""
        try:
            kind = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["teacher"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder}: no readable teacher ({error}); make it again") from None
        if kind != config.teacher:
            raise InputError(f"{folder}: is a teacher {kind}, not {config.teacher}; give teacher={kind}")
        return cls(backbone=backbone, data=data, config=config)

    @classmethod
    def check(cls, config: TeacherConfig, most_tokens: int | None) -> None:
        """It has no options of its own."""

    @property
    def kind(self) -> str:
        """The name that it is registered under."""
        return self.config.teacher

    @property
    def llm(self) -> str:
        """What stands for the name of an LLM."""
        return "its frozen backbone"

    @property
    def confidence(self) -> str:
        """How a distance is defined, for the manifest."""
        return "-log p(item) under the backbone's softmax over the items that it was trained on; small is sure"

    def lesson(self) -> None:
        """It is not trained."""

    def tokens_a_sample(self) -> float:
        """A sample counts as a token."""
        return 1.0

    def num_tokens(self, samples: Samples, batch: Batch) -> int:
        """As many as there are samples."""
        return len(batch)

    def batches(
        self, samples: Samples, *, shuffle: bool, seed: int = 0, index: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Batches of samples (those at ``index``, where given), each with a window of its own, as it is served."""
        size = max(1, min(MOST_SAMPLES_A_BATCH, MAX_SCORES // self.data.num_items))
        padding_id = self.data.padding_id
        return own_windows(self.backbone, samples, size, padding_id, shuffle=shuffle, seed=seed, index=index)

    def excluded(self, samples: Samples, batch: Batch, device: torch.device) -> Excluded:
        """Rows and columns of the items that are left out of a batch's rankings; None for none."""
        return seen_items(samples, batch.sample, device) if self.config.exclude_seen else None

    def outputs(self, samples: Samples, batch: Batch) -> tuple[Tensor, Tensor]:
        """Distances [S, V], inf for items left out and for those that the backbone knows nothing of; its states."""
        logits, states = backbone_scores(self.backbone, batch)
        excluded = self.excluded(samples, batch, logits.device)
        if excluded is not None:
            logits[excluded] = -torch.inf
        logits[:, torch.from_numpy(~self.data.trained).to(logits.device)] = -torch.inf
        return -logits.log_softmax(dim=1), states

    def item_embedding(self) -> Tensor:
        """The backbone's item table, float32 [V, D]."""
        return self.backbone.item_table().detach().float()

    def ranks(self, folder: Path | None = None) -> tuple[Ranked, Ranked, float]:
        """The backbone's own ranks of the validation and of the test samples, and the seconds they took."""
        data, found, taken = self.data, [], 0.0
        parts = (
            ("validation", data.validation, torch.from_numpy(data.new_validation)),
            ("test", data.test, torch.from_numpy(data.new_test)),
        )
        for part, samples, new_items in parts:

            def scores(batch: Batch, samples: Samples = samples) -> tuple[Tensor, Excluded]:
                logits, _ = backbone_scores(self.backbone, batch)
                return logits, self.excluded(samples, batch, logits.device)

            def new(batch: Batch, items: Tensor = new_items) -> list[tuple[Tensor, Tensor]]:
                return [(items, torch.ones(len(batch), dtype=torch.bool))]

            own = None if folder is None else folder / part
            read = self.batches(samples, shuffle=False)
            ranked, seconds = held_out_ranks(self.processes, read, f"{part} ranks", len(samples), own, scores, new)
            found.append(ranked)
            taken += seconds
        return found[0], found[1], taken

    def answers(self) -> None:
        """It ranks, and writes nothing."""

    def gate_weights(self, states: Tensor) -> None:
        """It has no gate."""

    def save(self, folder: Path) -> None:
        """Write which kind it is; the backbone is a run of its own."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SETTINGS_FILE).write_text(json.dumps({"teacher": self.kind}) + "\n", encoding="utf-8")
