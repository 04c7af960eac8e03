"""The notebooks run top to bottom on a store that ``make store`` fills, and are committed with their outputs."""

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import mlflow
import nbformat
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from nbclient import NotebookClient
from small_data import write_csv
from tiny_llm import write_tiny_llm
from workplace import Workplace, arguments, make_downloads, ml100k_files

import recdistill
from recdistill.__main__ import main
from recdistill.config import STEPS
from recdistill.config.command_line import parse
from recdistill.runs.logged_models import model_name

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
USERS = 60
CELL_SECONDS = 120
TEACHER = {"teacher_window": 10, "teacher_history": 4, "token_budget": 3000, "tokens_per_batch": 300, "top_n": 12}
SMALL = {"max_users": 0, "outputs_token_budget": 0, **TEACHER}
SWEEP = {"space": ROOT / "sweeps" / "quick.yaml", "trials": 6, "final_seeds": 2}

#: Kinds of outputs that a person would show to a colleague.
SHOWN = {"image/png", "image/svg+xml", "text/html", "text/markdown"}
MOST_BYTES = 500_000

Execute = Callable[[str], nbformat.NotebookNode]


def store_commands() -> list[list[str]]:
    """What ``make store`` runs, as arguments of recdistill."""
    said = subprocess.run(
        ["make", "--dry-run", "store", "ARGS="], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    lines = [shlex.split(line) for line in said.splitlines() if line.startswith(".venv/bin/recdistill ")]
    return [line[1:] for line in lines]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """The commands of ``make store`` on a small data set, over the tiny llama; this process is there."""
    folder = tmp_path_factory.mktemp("notebooks")
    downloads = make_downloads(folder / "downloads", ml100k_files())
    files = write_csv(folder, users=USERS)
    llm = write_tiny_llm(folder / "llm")
    made = Workplace(folder, downloads)
    with made.entered(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("OMP_NUM_THREADS", "1")
        for step, *given in store_commands():
            small = arguments(step, {**files, "llm": llm, **SMALL, **(SWEEP if step == "sweep" else {})})
            assert main([step, *given, *small[1:]]) == 0
        yield made


@pytest.fixture(scope="module")
def execute(place: Workplace) -> Execute:
    """Runs a notebook, once a module, in a kernel of this environment; an error in a cell is raised."""

    @cache
    def executed(name: str) -> nbformat.NotebookNode:
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        for position, cell in enumerate(notebook.cells):
            if "llm = " in cell.source and "parameters" in cell.metadata.get("tags", []):
                # What papermill does: values after the cell with the defaults.
                given = nbformat.v4.new_code_cell(f"llm = {str(place.folder / 'llm')!r}")
                notebook.cells.insert(position + 1, given)
                break
        NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3").execute()
        return notebook

    return executed


def text_of(notebook: nbformat.NotebookNode, cell_id: str) -> str:
    """What a cell printed, and its results as text and HTML."""
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    shown = [out.get("data", {}) for out in cell.outputs]
    printed = [out.get("text", "") for out in cell.outputs]
    return "\n".join([*printed, *(data.get(kind, "") for data in shown for kind in ("text/plain", "text/html"))])


def kinds_of(notebook: nbformat.NotebookNode, cell_id: str) -> set[str]:
    """The MIME types that a cell showed."""
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    return {kind for out in cell.outputs for kind in out.get("data", {})}


def newest_run(step: str, tag: str = "step") -> Run:
    return mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.`recdistill.{tag}` = '{step}'", output_format="list"
    )[0]


def internals(source: str) -> list[str]:
    """What a program takes of recdistill that is no public name of the package itself."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            # `import recdistill as rd` alone: the attributes of rd are then all that it takes.
            names = {name.name: name.asname for name in node.names if name.name.split(".")[0] == "recdistill"}
            found += [name for name, called in names.items() if (name, called) != ("recdistill", "rd")]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.split(".")[0] == "recdistill":
                found += [f"{module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rd":
            found += [f"rd.{node.attr}"] if node.attr not in recdistill.__all__ else []
    return found


def test_there_are_five():
    assert [path.stem for path in PATHS] == [
        "01_compare_runs",
        "02_what_the_gate_learned",
        "03_reading_a_sweep",
        "04_bring_your_own_data",
        "05_from_a_cold_item_to_a_recommendation",
    ]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_committed_notebook_has_its_outputs(path: Path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}, cell.id
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    # From top to bottom, once: make notebooks.
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [
        out for cell in code for out in cell.outputs if out.output_type == "error" or out.get("name") == "stderr"
    ]
    assert SHOWN & {kind for out in code[-1].outputs for kind in out.get("data", {})}, "it ends in a picture or a table"
    assert path.stat().st_size < MOST_BYTES
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    # As Jupyter saves it, so that opening and saving changes no line.
    assert path.read_text(encoding="utf-8") == nbformat.writes(notebook) + "\n"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_committed_notebook_names_no_place_of_a_machine(path: Path):
    notebook = nbformat.read(path, as_version=4)
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    texts = [data for out in outputs for kind, data in out.get("data", {}).items() if not kind.startswith("image/")]
    sources = "\n".join(
        [*(c.source for c in notebook.cells), *(out.get("text", "") for out in outputs), *map(str, texts)]
    )
    assert re.findall(r"(?<![\w.:/}<])(?:~|[A-Z]:)?[/\\](?:[\w.-]+[/\\])+", sources) == []
    assert not re.search(r"\b[0-9a-f]{32}\b", sources), "a run id is of one store"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_takes_only_the_public_names_of_recdistill(path: Path):
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert "import recdistill as rd" in "\n".join(code)
    assert internals("\n".join(code)) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import recdistill as rd\nrd.load_data()", []),
        ("import mlflow, recdistill.api", ["recdistill.api"]),
        ("import recdistill", ["recdistill"]),
        ("def f():\n    from recdistill.runs import run", ["recdistill.runs.run"]),
        ("from recdistill import runs", ["recdistill.runs"]),
        ("rd.load_data(); rd.api.load_data()", ["rd.api"]),
        ("from recdistillery import all_of_it", []),
    ],
)
def test_internals_are_found(source: str, found: list[str]):
    assert internals(source) == found


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
@pytest.mark.parametrize(("opened", "place"), [("project/notebooks", "project"), ("project", "project")])
def test_a_notebook_works_where_the_store_is(path: Path, opened: str, place: str, tmp_path: Path):
    """Jupyter starts a notebook in its own folder; the commands run in the one above."""
    (setup,) = (cell for cell in nbformat.read(path, as_version=4).cells if cell.id == "setup")
    (tmp_path / opened).mkdir(parents=True)
    program = [sys.executable, "-c", f"{setup.source}\nprint(Path.cwd())"]
    said = subprocess.run(program, cwd=tmp_path / opened, capture_output=True, text=True, check=True).stdout
    assert Path(said.strip()) == (tmp_path / place).resolve()


def test_the_store_is_made_by_commands_that_exist():
    steps = []
    for step, *given in store_commands():
        parse(STEPS[step], step, given)
        steps.append(step)
    assert steps == ["main", "sweep"]


def test_each_notebook_says_what_fills_its_store():
    for path in PATHS[:3]:
        assert "`make store`" in nbformat.read(path, as_version=4).cells[0].source


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_runs_top_to_bottom_without_noise(path: Path, execute: Execute):
    for cell in execute(path.stem).cells:
        if cell.cell_type != "code":
            continue
        assert cell.execution_count is not None
        said = [out.text for out in cell.outputs if out.output_type == "stream" and out.name == "stderr"]
        # Progress bars go there; warnings must not.
        assert "arning" not in "".join(said), (cell.id, said)


@pytest.mark.slow
def test_the_comparison_names_the_winner(execute: Execute):
    notebook = execute("01_compare_runs")
    tags = newest_run("main").data.tags
    means = {}
    for name, tag in (("backbone", "undistilled"), ("distill", "distilled")):
        key = mlflow.get_run(tags[f"recdistill.{tag}_run_id"]).data.tags["recdistill.near_key"]
        found = mlflow.search_runs(filter_string=f"tags.`recdistill.near_key` = '{key}'", output_format="list")
        # That of main, and the final trainings of the sweep's default.
        found = [run for run in found if "recdistill.control" not in run.data.tags]
        assert sorted(run.data.params["seed"] for run in found) == ["1", "2", "3"]
        means[name] = sum(run.data.metrics["test/ndcg_at_10"] for run in found) / 3
    for name, tag in (("popularity", "popularity"), ("teacher", "teacher")):
        means[name] = mlflow.get_run(tags[f"recdistill.{tag}_run_id"]).data.metrics["test/ndcg_at_10"]
    winner = max(means, key=means.__getitem__)
    assert text_of(notebook, "comparison").startswith(f"{winner} has the highest NDCG@10: {means[winner]:.4f}")
    table = text_of(notebook, "table")
    assert all(name in table for name in means)
    assert f"{means[winner]:.4f}" in table
    assert "image/png" in kinds_of(notebook, "curves") & kinds_of(notebook, "subgroups")
    assert "image/svg+xml" in kinds_of(notebook, "gains") & kinds_of(notebook, "paired-subgroups")


@pytest.mark.slow
def test_the_gate_has_a_heat_map_and_a_yardstick(execute: Execute):
    notebook = execute("02_what_the_gate_learned")
    assert "image/png" in kinds_of(notebook, "heat-map") & kinds_of(notebook, "entropy")
    trained, untrained = filter(None, text_of(notebook, "dependence").splitlines())
    assert 0 <= float(trained.split()[1]) <= float(trained.split()[-1])
    assert untrained.startswith("never trained: ")
    assert "Film" in text_of(notebook, "clusters")
    assert "Film" in text_of(notebook, "distinct")
    matters = text_of(notebook, "matters")
    assert re.findall(r'class="row_heading[^>]*>([^<]+)</th>', matters) == ["uniform", "never trained"]
    assert re.findall(r'class="data[^>]*col0[^>]*>([^<]+)</td>', matters) == [str(USERS)] * 2
    assert len(re.findall(r'class="data[^>]*>\d+\.\d%</td>', matters)) == 4


@pytest.mark.slow
def test_the_sweep_shows_what_was_chosen_and_its_final_seeds(execute: Execute):
    notebook = execute("03_reading_a_sweep")
    sweep = newest_run("sweep")
    assert f"best: trial {sweep.data.tags['recdistill.best.trial']}\n" in text_of(notebook, "study")
    for figure in ("history", "importances", "parallel-coordinates", "validation-and-test", "final-seeds"):
        assert "image/png" in kinds_of(notebook, figure), figure
    (shown,) = (cell for cell in notebook.cells if cell.id == "final-table")
    table = Path(mlflow.artifacts.download_artifacts(run_id=sweep.info.run_id, artifact_path="answer/table.md"))
    assert shown.outputs[0].data["text/markdown"] == table.read_text(encoding="utf-8")


@pytest.mark.slow
def test_own_data_end_in_a_model_that_recommends(execute: Execute):
    notebook = execute("04_bring_your_own_data")
    assert "unknown item 'har-99'" in text_of(notebook, "error")
    assert "distilled from" in text_of(notebook, "distill")
    assert "distill" in text_of(notebook, "compare")
    assert "95 % interval" in text_of(notebook, "compare")
    assert "Inspector Vane, volume" in text_of(notebook, "model")
    assert "True" in text_of(notebook, "edges")
    # The training of the notebook's own run, which has no step.
    run = newest_run("distill", "fitted")
    assert run.info.status == "FINISHED"
    assert (run.data.params["student"], run.data.params["epochs"]) == ("sasrec", "10")
    assert "dataset" not in run.data.params
    assert "val/ndcg_at_10" in run.data.metrics
    assert MlflowClient().get_logged_model(run.outputs.model_outputs[0].model_id).name == model_name(run)


@pytest.mark.slow
def test_a_new_film_is_in_the_list_of_a_user(execute: Execute):
    notebook = execute("05_from_a_cold_item_to_a_recommendation")
    for film in ("Star Trek: Insurrection", "A Bug's Life"):
        assert film in text_of(notebook, "add").replace("&#x27;", "'")
        assert film in text_of(notebook, "fans").replace("&#x27;", "'").replace("&#39;", "'")
    assert "image/png" in kinds_of(notebook, "taste")
    (shown,) = (cell for cell in notebook.cells if cell.id == "list")
    # Nowhere before it was added, and after it in the list of the user who gets it first.
    cells = re.findall(r'<td [^>]*class="data row\d+ col(\d)"[^>]*>(.*?)</td>', shown.outputs[-1].data["text/html"])
    found = [column for column, title in cells if "Insurrection" in title]
    assert len(cells) >= 20
    assert found == ["1"]
