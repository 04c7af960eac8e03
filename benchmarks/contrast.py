"""What a contrast makes of an LLM's vectors of items' texts: by how the LLM reads, how long it learns, what is kept.

``python benchmarks/contrast.py`` trains the teacher's backbone on MovieLens-100K without a tenth of its items (or finds
its run in the tracking store; ``--backbone_run_id`` names another), has a ranking teacher's LLM learn of the items'
texts by contrast, once for each reading, token budget and ``contrast_kept``, and maps its vectors to the backbone. It
prints NDCG@20 of new targets among the new items: of the teacher's view alone and beside cheap views, on the validation
draw, by which a choice is made, and on test, which chooses nothing. A budget of 0 is the frozen LLM. Nothing else of
the teacher is trained.

Further options are those of ``teacher``, as ``--llm gemma3-270m --seed 2 --dataset ml-latest-small``.
"""

import argparse
import time
from functools import partial
from itertools import product

import torch

from recdistill.config import MapItemsConfig, TeacherConfig, changed, narrow
from recdistill.config.command_line import parse
from recdistill.data.item_texts import item_texts
from recdistill.data.sequences import SequenceData
from recdistill.steps.inputs import data_of, frozen_student
from recdistill.steps.map_items import candidate
from recdistill.steps.teacher import find_backbone
from recdistill.students.build import StudentShape, read_shape
from recdistill.students.calibration import among_new, calibration_scores
from recdistill.students.student import Student
from recdistill.teachers.build import base_llm
from recdistill.teachers.ranking.teacher import RankingTeacher, texts_of
from recdistill.teachers.training import fit_contrast
from recdistill.training.device import device_of
from recdistill.training.distributed import Processes
from recdistill.training.recorder import NoRecorder
from recdistill.views.text_teacher import TeacherTable

CHEAP = "sentence+tfidf"
COLUMNS = ("seed", "reading", "tokens", "kept", "views", "validation", "test", "seconds")


def learnt_view(config: TeacherConfig, data: SequenceData, student: Student) -> torch.Tensor:
    """The LLM's vectors of the items' texts [V, H] after its contrast."""
    processes = Processes(device=device_of(config))
    llm = base_llm(config, processes)
    torch.manual_seed(config.seed)
    teacher = RankingTeacher.build(config, llm, student, data, processes)
    teacher.learn_content(partial(fit_contrast, config, NoRecorder(), processes))
    return teacher.item_view().cpu()


def among(
    config: MapItemsConfig, data: SequenceData, student: Student, shape: StudentShape, table: TeacherTable | None
) -> tuple[float, float]:
    """NDCG@20 of new targets among the new items, by the map of the options' views: on validation and on test."""
    texts = item_texts(data.titles, data.item_columns, config.item_text, config.text_template)
    device = torch.device("cpu")
    found = candidate(config, data, student, shape, texts, table, device)
    tested = calibration_scores(found.mapped, data.test, data.new_test, config.exclude_seen, device)
    return found.value, among_new(tested)


def print_row(*cells: object) -> None:
    """Print a line of the table at once: the next may take minutes."""
    print(
        " | ".join(str(cell).ljust(width) for cell, width in zip(cells, (4, 7, 7, 10, 22, 10, 6, 7), strict=True)),
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", nargs="+", default=["mean", "echo"])
    parser.add_argument("--budgets", nargs="+", type=int, default=[0, 90_000])
    parser.add_argument("--kept", nargs="+", default=["last", "validation"])
    arguments, rest = parser.parse_known_args()
    given = {one.partition("=")[0].removeprefix("--") for one in rest}
    rest += [] if "new_items" in given else ["--new_items=0.1"]
    config = parse(TeacherConfig, "teacher", rest)
    data = data_of(config)
    source = find_backbone(config, data)
    student, shape = frozen_student(source, device_of(config)), read_shape(source.artifact("student"))
    mapped = narrow(config, MapItemsConfig, views=CHEAP, teacher_run_id="")
    print_row(*COLUMNS)
    cheap = among(mapped, data, student, shape, None)
    print_row(config.seed, "", "", "", CHEAP, *(f"{value:.4f}" for value in cheap), "")
    for reading, budget, kept in product(arguments.readings, arguments.budgets, arguments.kept):
        if not budget and kept != arguments.kept[0]:
            continue
        own = changed(config, teacher_reading=reading, contrast_token_budget=budget)
        own = changed(own, contrast_kept=kept) if budget else own
        begin = time.perf_counter()
        view = learnt_view(own, data, student)
        seconds = time.perf_counter() - begin
        table = TeacherTable(texts_of(own, data), view.numpy())
        for views in ("teacher", f"{CHEAP}+teacher"):
            found = among(changed(mapped, views=views), data, student, shape, table)
            cells = (config.seed, reading, budget, kept if budget else "frozen", views)
            print_row(*cells, *(f"{value:.4f}" for value in found), f"{seconds:.0f}")


if __name__ == "__main__":
    main()
