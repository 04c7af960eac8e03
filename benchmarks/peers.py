"""SASRec of other libraries beside this one: positions with a loss a CPU second, peak memory, NDCG@10 on test.

``python benchmarks/peers.py`` trains each over ML-100K, and over made-up histories of 20,000 items, with one thread,
hidden size 64, two blocks of two heads, histories of 50 items, the full softmax, and 128 windows a batch. It makes an
environment for each library under ``--folder`` and finds it there again, trains in turns, prints one JSON line a
training, and in the end the table; a library that cannot be installed stands in it with the reason. pip takes PyTorch
from where it is set up to; ``--torch-index`` names an index of builds for the CPU, which are a tenth of the size.

Validation is not in the time. Ranks are this script's own: of leave-one-out's last items, seen ones left out, ties
counted against the model. Over the made-up histories NDCG@10 means nothing and is not shown.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).with_name("peer_libraries")
FILMS = "ml-100k"
USERS, INTERACTIONS, LENGTH = 943, 100_000, 50
GOALS = {"ours, their layout": 2.2, "ours, by default": 1.8}
GOAL_MEMORY = 1 / 3
ENVIRONMENT = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


@dataclass(frozen=True)
class Peer:
    """A library, or one of our two ways.

    Attributes:
        program: file of `PROGRAMS` that trains it.
        packages: what its environment has; none for this environment.
        arguments: given to the program.
    """

    program: str
    packages: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


TORCH = "torch==2.13.0"
PEERS = {
    "RePlay 0.22.0": Peer("replay_sasrec.py", ("replay-rec[torch]==0.22.0", TORCH)),
    "RecTools 0.19.0": Peer("rectools_sasrec.py", ("rectools[torch]==0.19.0", TORCH)),
    # It needs NumPy 1; pandas 3 and the newest setuptools no longer have what it imports.
    "RecBole 1.2.1": Peer("recbole_sasrec.py", ("recbole==1.2.1", TORCH, "numpy<2", "pandas<3", "setuptools<81")),
    "ours, their layout": Peer("recdistill_sasrec.py", arguments=("--layout", "theirs")),
    "ours, by default": Peer("recdistill_sasrec.py", arguments=("--layout", "default")),
}


def python_of(name: str, folder: Path, torch_index: str) -> tuple[Path | None, str]:
    """The interpreter of a library's environment, which is made where it is not there.

    Returns it, or None, and why there is none. The note of a finished environment is written last.
    """
    packages = PEERS[name].packages
    if not packages:
        return Path(sys.executable), ""
    place = folder / name.lower().replace(" ", "-")
    python, note = place / "bin" / "python", place / "installed.json"
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) == list(packages):
        return python, ""
    print(f"{name}: making its environment", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    venv.create(place, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", *packages]
    command += ["--extra-index-url", torch_index] if torch_index else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        return None, f"not installed on Python {platform.python_version()}: {said[-1].removeprefix('ERROR: ')}"
    note.write_text(json.dumps(list(packages)), encoding="utf-8")
    return python, ""


def made_up_items(num_items: int, seed: int) -> list[Any]:
    """Histories of ML-100K's number and lengths over so many items, each of them in the last 50 of somebody's training.

    The libraries that know the items of their windows alone so have as many as the others.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    lengths = random.lognormal(4.2, 0.9, USERS)
    lengths = np.clip(lengths * INTERACTIONS / lengths.sum(), 20, 700).astype(np.int64)
    popularity = 1 / (np.arange(num_items) + 30.0)
    drawn = [random.choice(num_items, size, replace=False, p=popularity / popularity.sum()) for size in lengths]
    # Two for validation and test, 50 before them: where an item that no window has can take the place of another's.
    places = [(user, at) for user, size in enumerate(lengths) for at in range(max(0, size - 2 - LENGTH), size - 2)]
    times = np.bincount([drawn[user][at] for user, at in places], minlength=num_items)
    missing = list(random.permutation(np.flatnonzero(times == 0)))
    for user, at in random.permutation(places):
        old = drawn[user][at]
        if not missing:
            break
        if times[old] > 1 and missing[-1] not in drawn[user]:
            times[old] -= 1
            drawn[user][at] = missing.pop()
    if missing:
        raise SystemExit(f"{num_items} items: the windows have no room for {len(missing)} of them; use fewer")
    return drawn


def film_items() -> list[Any]:
    """Histories of ML-100K by item number, in order of time."""
    import numpy as np

    from recdistill.config.data import DataConfig
    from recdistill.data.load import load_data

    test = load_data(DataConfig(dataset=FILMS, split="leave-one-out")).test
    return [np.asarray(test.items[start : end + 1]) for start, end in zip(test.start, test.end, strict=True)]


def write_data(catalogue: str, folder: Path, seed: int) -> Path:
    """Write the log of a catalogue, sorted by user and time, with the file of its items beside it. Returns it."""
    place = folder / "data" / f"{catalogue}-{seed}"
    path = place / "interactions.csv"
    if path.is_file():
        return path
    place.mkdir(parents=True, exist_ok=True)
    histories = film_items() if catalogue == FILMS else made_up_items(int(catalogue), seed)
    # Items of ML-100K are numbered anew: those of the catalogue that somebody interacted with.
    number = {item: index for index, item in enumerate(sorted({int(item) for items in histories for item in items}))}
    (place / "items.csv").write_text("".join(["item,title\n", *(f"{one},title {one}\n" for one in number.values())]))
    lines = ["user,item,timestamp\n"]
    for user, items in enumerate(histories):
        lines += [f"{user},{number[int(item)]},{moment}\n" for moment, item in enumerate(items)]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(lines))
    partial.replace(path)
    return path


def train(name: str, python: Path, data: Path, arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One training in a process of its own: its line, or why there is none."""
    peer = PEERS[name]
    command = [str(python), str(PROGRAMS / peer.program), "--data", str(data), "--seconds", str(arguments.seconds)]
    command += ["--patience", str(arguments.patience), "--seed", str(seed), *peer.arguments]
    own = {"PYTHONPATH": str(Path(__file__).resolve().parents[1])} if not peer.packages else {}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | ENVIRONMENT | own
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        return {"library": name, "failed": f"training failed: {said[-1][:200]}"}
    return {"library": name} | json.loads(done.stdout.strip().splitlines()[-1])


def imports_mib() -> float:
    """Peak memory of a process that imports pandas and PyTorch, as each of ours does before anything else: MiB."""
    program = "import pandas, torch, resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    environment = os.environ | ENVIRONMENT
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    return round(float(done.stdout))


def machine() -> dict[str, Any]:
    """The processor's name, its number of cores, and the load of the last minute."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    return {"processor": processor, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All trainings, in turns; each line is printed, and added to ``--results``."""
    pythons = {name: python_of(name, arguments.folder, arguments.torch_index) for name in arguments.libraries}
    lines = []
    of_imports = imports_mib()
    for turn in range(arguments.rounds):
        for catalogue in arguments.catalogues:
            data = write_data(catalogue, arguments.folder, 0)
            for name, (python, reason) in pythons.items():
                if python is None:
                    line: dict[str, Any] = {"library": name, "failed": reason}
                else:
                    line = train(name, python, data, arguments, arguments.seed + turn)
                    if not PEERS[name].packages:
                        line["imports_mib"] = of_imports
                line |= {"catalogue": catalogue, "seed": arguments.seed + turn, "python": platform.python_version()}
                lines.append(line | machine())
                print(json.dumps(lines[-1]), flush=True)
                if arguments.results:
                    with arguments.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(lines[-1]) + "\n")
    return lines


def found(lines: list[dict[str, Any]], name: str, catalogue: str, key: str) -> float | None:
    """Median of a figure over the trainings of a library over a catalogue; None where none was finished."""
    values = [one[key] for one in lines if (one["library"], one["catalogue"]) == (name, catalogue) and key in one]
    return statistics.median(values) if values else None


def table(lines: list[dict[str, Any]]) -> str:
    """The table in Markdown, medians over the rounds, and what each has of its own below it."""
    catalogues = list(dict.fromkeys(line["catalogue"] for line in lines))
    names = [name for name in PEERS if any(line["library"] == name for line in lines)]
    heads = ["", *(f"{head(one)}, positions/s" for one in catalogues)]
    heads += [f"{head(one)}, peak MiB" for one in catalogues]
    heads += [f"{head(one)}, NDCG@10" for one in catalogues if one == FILMS]
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    notes = []
    for name in names:
        cells = [found(lines, name, one, "positions_per_second") for one in catalogues]
        cells += [found(lines, name, one, "peak_mib") for one in catalogues]
        texts = ["-" if cell is None else f"{cell:,.0f}" for cell in cells]
        quality = [found(lines, name, one, "ndcg_at_10") for one in catalogues if one == FILMS]
        rows.append([name, *texts, *("-" if cell is None else f"{cell:.3f}" for cell in quality)])
        own = [line.get("settings") or line["failed"] for line in lines if line["library"] == name]
        notes += [f"- {name}: {text}" for text in dict.fromkeys(own)]
        measured = [one for one in lines if (one["library"], one["catalogue"]) == (name, FILMS)]
        kept = [one["ndcg_at_10"] for one in measured if one.get("ndcg_at_10") is not None]
        if len(kept) > 1:
            spread = f"{statistics.fmean(kept):.4f} ± {statistics.stdev(kept):.4f}"
            notes.append(f"- {name}: NDCG@10 {spread} over {len(kept)} seeds")
    return "\n".join([f"| {' | '.join(row)} |" for row in rows] + [""] + notes)


def head(catalogue: str) -> str:
    """What a catalogue is called in the table."""
    return "ML-100K" if catalogue == FILMS else f"{int(catalogue):,} items"


def checked(lines: list[dict[str, Any]]) -> str:
    """Ratios to the fastest of the libraries, in speed and in memory, with the goals; a line each."""
    said = []
    for catalogue in dict.fromkeys(line["catalogue"] for line in lines):
        speeds = {name: found(lines, name, catalogue, "positions_per_second") for name in PEERS}
        others = {name: speed for name, speed in speeds.items() if PEERS[name].packages and speed is not None}
        if not others:
            continue
        fastest = max(others, key=lambda name: others[name])
        for name, goal in GOALS.items():
            for key, what, wanted in (
                ("positions_per_second", "speed", f"{goal}"),
                ("peak_mib", "peak memory", f"{GOAL_MEMORY:.2f}"),
                ("training_mib", "memory that training adds", f"{GOAL_MEMORY:.2f}"),
            ):
                own, theirs = found(lines, name, catalogue, key), found(lines, fastest, catalogue, key)
                if own is not None and theirs:
                    where = f"{head(catalogue)}, {name}"
                    said.append(
                        f"- {where}: {own / theirs:.2f} times the {what} of {fastest}, the fastest (goal {wanted})"
                    )
        least = found(lines, "ours, by default", catalogue, "imports_mib")
        theirs = found(lines, fastest, catalogue, "peak_mib")
        if least is not None and theirs:
            share = f"{least / theirs:.2f} times the peak memory of {fastest}"
            said.append(f"- {head(catalogue)}: importing pandas and PyTorch alone takes {least:.0f} MiB, {share}")
    return "\n".join(said)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "", allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=120, help="CPU seconds of a training, validation left out")
    parser.add_argument("--patience", type=int, default=5, help="epochs without a better validation before the end")
    parser.add_argument("--rounds", type=int, default=1, help="trainings of each, each of its own seed")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--catalogues", nargs="+", default=[FILMS, "20000"], help=f"{FILMS}, or numbers of items")
    parser.add_argument("--libraries", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--folder", type=Path, help="of environments and data; by default in the package's cache")
    parser.add_argument("--torch-index", default="", help="address of an index that has PyTorch for the CPU")
    parser.add_argument("--results", type=Path, help="file that the JSON lines are added to")
    parser.add_argument("--table", type=Path, help="print the table of a file of lines, and train nothing")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.table:
        lines = [json.loads(text) for text in arguments.table.read_text(encoding="utf-8").splitlines() if text.strip()]
    else:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from recdistill.data.downloads import cache_dir

        arguments.folder = (arguments.folder or cache_dir() / "peers").resolve()
        lines = run(arguments)
    print(f"{table(lines)}\n\n{checked(lines)}")


if __name__ == "__main__":
    main()
