"""What texts are worth for new items: post-hoc maps from views of texts to one finished student.

``python benchmarks/new_items.py`` trains an undistilled student on MovieLens-100K without a tenth of its items (or
finds its run in the tracking store), maps each choice of views and of text to it, and prints test NDCG@20: of new
targets among the new items and in the whole catalogue, of trained items' targets against new items left out, and of
all targets. Views and texts are not chosen here, and nothing is chosen on test.

``--ceiling`` also trains the student on all interactions, and sets the same items among the others as if they were new,
by the scores that it learnt for them: what an interleaving could reach if the map were perfect.

Further options are those of ``map_items``, as ``--student gru4rec --new_items_seed 2 --dataset ml-latest-small``.
"""

import argparse

import numpy as np
import torch

from recdistill.config import BaselineConfig, MapItemsConfig, changed, narrow
from recdistill.config.command_line import parse
from recdistill.runs.run import StepRun
from recdistill.steps.backbone import backbone
from recdistill.steps.inputs import data_of, frozen_student
from recdistill.steps.map_items import map_items
from recdistill.students.calibration import among_new, calibration_scores, choose_interleaving, outcome
from recdistill.students.item_map import ItemMap, Terms
from recdistill.students.mapped import Interleaving, MappedStudent, NewItemMap

VIEWS = ("tfidf", "sentence", "sentence+tfidf", "llm", "llm+sentence+tfidf")
TEXTS = ("title", "title,year,genres")
COLUMNS = ("views", "text", "among new", "chance", "new", "warm", "warm cost", "all", "explained", "seconds")


def row_of(run: StepRun, views: str, text: str) -> tuple[str, ...]:
    """A line of the table."""
    found = run.metrics()
    shown = (
        f"{found['test/new_among_new/ndcg_at_20']:.4f}",
        f"{found['test/new_among_new/chance_ndcg_at_20']:.4f}",
        f"{found['test/new/ndcg_at_20']:.4f}",
        f"{found['test/warm/ndcg_at_20']:.4f}",
        f"{found['map/test_warm_cost']:.2%}",
        f"{found['test/ndcg_at_20']:.4f}",
        f"{found['map/explained']:.1%}",
        f"{found['map/seconds']:.1f}",
    )
    return (views, text, *shown)


def print_row(cells: tuple[str, ...]) -> None:
    """Print a line of the table at once: the next may take minutes."""
    print(" | ".join(cell.ljust(width) for cell, width in zip(cells, (20, 18, *[9] * 8), strict=True)), flush=True)


def print_ceiling(config: MapItemsConfig) -> None:
    """Print what the same items reach in a student that was trained on them."""
    data = data_of(config)
    run = backbone(narrow(changed(config, new_items=0.0), BaselineConfig))
    student, device = frozen_student(run, torch.device("cpu")), torch.device("cpu")
    new = np.flatnonzero(~data.trained)
    nothing = ItemMap(torch.zeros(1, student.state_size), torch.zeros(student.state_size))
    new_item_map = NewItemMap(nothing, Terms(0.0, 0.0, 0.0), Interleaving(), {}, {})
    model = MappedStudent(student, data.num_items, torch.as_tensor(new), new_item_map)
    validation, test = (
        calibration_scores(model, samples, targets, config.exclude_seen, device)
        for samples, targets in ((data.validation, data.new_validation), (data.test, data.new_test))
    )
    chosen = choose_interleaving(validation, config.warm_cost)
    found = outcome(test, chosen.interleaving)
    among = among_new(test)
    print(
        f"trained on these items: among new {among:.4f}; set as new ones are: "
        f"new {found.new:.4f} at a warm cost of {found.warm_cost:.2%}, all targets {found.gain:+.2%}",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all_views", nargs="*", default=list(VIEWS))
    parser.add_argument("--all_texts", nargs="*", default=list(TEXTS))
    parser.add_argument("--ceiling", action="store_true")
    arguments, rest = parser.parse_known_args()
    given = {one.partition("=")[0].removeprefix("--") for one in rest}
    rest += [] if "new_items" in given else ["--new_items=0.1"]
    config = parse(MapItemsConfig, "map_items", rest)
    torch.set_num_threads(1)
    source = backbone(narrow(config, BaselineConfig))
    print_row(COLUMNS)
    before = source.metrics()
    among, chance, all_targets = (
        before[f"test/{name}ndcg_at_20"] for name in ("new_among_new/", "new_among_new/chance_", "")
    )
    own = (f"{among:.4f}", f"{chance:.4f}", f"{before['test/new/ndcg_at_20']:.4f}")
    print_row(("ids", "", *own, f"{before['test/warm/ndcg_at_20']:.4f}", "", f"{all_targets:.4f}", "", ""))
    for text in arguments.all_texts:
        for views in arguments.all_views:
            run = map_items(changed(config, views=views, item_text=text, student_run_id=source.run_id))
            print_row(row_of(run, views, text))
    if arguments.ceiling:
        print_ceiling(config)


if __name__ == "__main__":
    main()
