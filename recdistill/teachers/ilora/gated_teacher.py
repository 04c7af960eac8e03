"""The common part of both iLoRA teachers: a gated model, its frozen backbone, and the data that they score."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recdistill.config import TeacherConfig
from recdistill.data.batches import Batch, seen_items
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.registry import GATES
from recdistill.students.student import Student
from recdistill.teachers.ilora.gated_model import GatedModel
from recdistill.training.distributed import ALONE, Processes


@dataclass(frozen=True, eq=False, kw_only=True)
class GatedTeacher:
    """An iLoRA teacher, its backbone and the data they score.

    Attributes:
        model: on its device.
        backbone: the frozen student whose states the gate reads, on the same device.
        data: of the samples.
        config: the options.
        processes: those that score together, each a share of the batches.
    """

    model: GatedModel
    backbone: Student
    data: SequenceData
    config: TeacherConfig
    processes: Processes = ALONE

    @property
    def kind(self) -> str:
        """The name that the kind of teacher is registered under."""
        return self.config.teacher

    @property
    def llm(self) -> str:
        """The name of the LLM."""
        return self.model.llm_name

    @property
    def context(self) -> int:
        """History titles of a sample in its prompt."""
        return self.config.teacher_history

    @property
    def window(self) -> int:
        """Items that the backbone reads: as many as it was trained on."""
        return self.backbone.max_length

    @property
    def device(self) -> torch.device:
        """Where the backbone is, and the model."""
        return next(self.backbone.parameters()).device

    def excluded(self, samples: Samples, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Coordinates (row, item) of the items left out of rankings, on the CPU; None for none."""
        return seen_items(samples, batch.sample) if self.config.exclude_seen else None

    @torch.no_grad()
    def gate_weights(self, states: Tensor) -> Tensor:
        """Mixing weights [U, K] at backbone states [U, D]; [U, N, K] where each of N layers has a gate of its own."""
        return self.model.gate(states)

    def save(self, folder: Path) -> None:
        """Write the adapter, the other trained tensors, and the settings; no weight of the LLM."""
        self.model.save(folder)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Trained parameters with their peak learning rates: the gate has one of its own."""
        gate = [parameter for parameter in self.model.gate.parameters() if parameter.requires_grad]
        known = {id(parameter) for parameter in gate}
        others = [p for p in self.model.parameters() if p.requires_grad and id(p) not in known]
        return [
            {"params": others, "lr": self.config.llm_learning_rate},
            {"params": gate, "lr": self.config.llm_learning_rate * self.config.gate_scale},
        ]


def gated_settings(config: TeacherConfig) -> dict[str, Any]:
    """The options that fix the gated LoRA, as fields of `GatedShape`."""
    options = config.of_part(GATES, config.gate)
    return {
        "rank": config.lora_rank,
        "alpha": config.lora_alpha,
        "dropout": config.lora_dropout,
        "experts": config.experts,
        "gate": config.gate,
        "gate_options": {} if options is None else asdict(options),
        "gate_per_layer": config.gate_per_layer,
    }
