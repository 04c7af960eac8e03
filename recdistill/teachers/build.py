"""A teacher's LLM, and a saved teacher over it."""

from pathlib import Path

import torch

from recdistill.config import TeacherConfig
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.registry import TEACHERS
from recdistill.students.student import Student
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.ilora.llm_source import load_llm
from recdistill.teachers.protocol import Teacher
from recdistill.training.device import device_of
from recdistill.training.distributed import Processes


def base_llm(config: TeacherConfig, processes: Processes) -> BaseLLM | None:
    """The frozen LLM that the options' teacher is built over, on the processes' device; None where it needs none.

    Raises InputError where it cannot be loaded.
    """
    kind: type[Teacher] = TEACHERS.get(config.teacher)
    if not kind.needs_llm:
        return None
    if config.load_in_4bit and processes.sharded:
        raise InputError("load_in_4bit=true: its weights cannot be divided over processes; leave --use_fsdp out")
    llm = processes.main_first(
        lambda: load_llm(
            config.llm,
            processes.device,
            move=not processes.sharded,
            causal_lm=kind.needs_language_model_head,
            load_in_4bit=config.load_in_4bit,
        )
    )
    processes.shard(llm.model)
    return llm


def load_teacher(
    folder: Path, config: TeacherConfig, backbone: Student, data: SequenceData, device: torch.device | None = None
) -> Teacher:
    """The teacher of `Teacher.save`, ready to score.

    Args:
        folder: where it was saved.
        config: the options that it was made with; how it answers and ranks may differ.
        backbone: the student whose states it reads; put into evaluation mode and on the device.
        data: of the samples.
        device: by default that of the options.

    Raises InputError where a file is missing or damaged, or LLM, backbone or catalogue are others.
    """
    alone = Processes(device=device_of(config) if device is None else device)
    llm, backbone = base_llm(config, alone), backbone.to(alone.device).eval()
    teacher: Teacher = TEACHERS.get(config.teacher).load(folder, config, llm, backbone, data)
    return teacher
