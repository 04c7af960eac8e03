"""Time a served student: single requests over HTTP, and many histories in one batch.

Run ``python benchmarks/serving.py`` (``--help`` lists the sizes). A SASRec with random weights over a catalogue as
large as Amazon Games is logged as a model into a store of its own, loaded, asked for a batch, and then served by
``mlflow models serve`` (one worker, this environment) to one client, a history a request.

One JSON line last: ``batch_s`` (median, of ``batch`` histories); ``p50_ms``, ``p99_ms`` and ``requests_per_s`` of
a client that sends another history each time; and where ApacheBench (Debian's apache2-utils) is installed,
``ab_p50_ms``, ``ab_p99_ms`` and ``ab_failed`` of as many requests by it. Where the extra ``onnx`` is installed,
``torch_ms`` and ``onnx_ms``: median CPU time of scoring one history and taking its ten best, in one thread, by PyTorch
and by onnxruntime in turns. ``--no-server`` measures these and the batch alone.
"""

import argparse
import importlib.util
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import requests
import torch
from mlflow.tracking import MlflowClient

from recdistill.data.catalogue import Catalogue
from recdistill.runs.served_model import load_model, log_student_model, recommendations
from recdistill.students.build import StudentShape, build_student
from recdistill.students.onnx_file import write_onnx

START_SECONDS = 120


def log_model(items: int, length: int) -> str:
    """Address of a model of random weights."""
    torch.manual_seed(0)
    shape = StudentShape("sasrec", 64, 0.1, length, "tied", {"blocks": 2, "heads": 2})
    run_id = MlflowClient().create_run("0").info.run_id
    catalogue = Catalogue(
        item_ids=tuple(f"B{item:09d}" for item in range(items)),
        titles=tuple(f"Title of item {item}" for item in range(items)),
        item_count=np.random.default_rng(0).integers(0, 500, items),
    )
    return log_student_model(run_id, build_student(shape, items), shape, catalogue=catalogue, exclude_seen=True)


def random_histories(rows: int, items: int, length: int) -> list[list[str]]:
    """Histories of 5 to ``length`` and a fifth more items."""
    generator = np.random.default_rng(1)
    sizes = generator.integers(5, max(6, length * 6 // 5), rows)
    return [[f"B{item:09d}" for item in generator.integers(0, items, size)] for size in sizes]


def batch_seconds(address: str, histories: list[list[str]], repeats: int) -> float:
    """Median time to recommend for all histories at once."""
    model, table = load_model(address), pd.DataFrame({"history": histories})
    recommendations(model, table.head(100))
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        recommendations(model, table)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


@contextmanager
def served(address: str) -> Iterator[str]:
    """Address of a running server of the model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", address, "-p", str(port), "-w", "1"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), environment["PATH"]])
    with subprocess.Popen(
        [*command, "--env-manager", "local"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:
        try:
            wait_until_up(f"http://127.0.0.1:{port}/ping", server)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            os.killpg(server.pid, 15)


def wait_until_up(address: str, server: subprocess.Popen[bytes]) -> None:
    """Raise RuntimeError where the server does not answer in time."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            if requests.get(address, timeout=1).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
    raise RuntimeError("mlflow models serve does not answer; run it by hand to see why")


def request_milliseconds(address: str, histories: list[list[str]]) -> list[float]:
    """Time of each request, on one connection."""
    times = []
    with requests.Session() as session:
        for history in histories:
            begin = time.perf_counter()
            answer = session.post(address, json=body_of(history), timeout=60)
            times.append((time.perf_counter() - begin) * 1e3)
            answer.raise_for_status()
    return times


def runtime_milliseconds(items: int, length: int, rounds: int) -> dict[str, float]:
    """Median CPU time of one answer by PyTorch and by onnxruntime, in turns, both in this thread alone."""
    import onnxruntime

    torch.manual_seed(0)
    torch.set_num_threads(1)
    shape = StudentShape("sasrec", 64, 0.1, length, "tied", {"blocks": 2, "heads": 2})
    model = build_student(shape, items).eval()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        write_onnx(Path(folder) / "student.onnx", model)
        session = onnxruntime.InferenceSession(f"{folder}/student.onnx", options, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(1)
    times: dict[str, list[float]] = {"torch_ms": [], "onnx_ms": []}
    for _ in range(rounds):
        history = generator.integers(0, items, (1, length))
        count = np.array([length])
        begin = time.thread_time()
        with torch.inference_mode():
            model.scores(torch.from_numpy(history), torch.from_numpy(count)).topk(10)
        middle = time.thread_time()
        scores = session.run(["scores"], {"history": history, "length": count})[0]
        best = np.argpartition(-scores[0], 10)[:10]
        best[np.argsort(-scores[0, best])]
        times["torch_ms"].append((middle - begin) * 1e3)
        times["onnx_ms"].append((time.thread_time() - middle) * 1e3)
    return {name: round(statistics.median(found), 3) for name, found in times.items()}


def apache_bench(address: str, history: list[str], number: int) -> dict[str, float]:
    """Percentiles of one request sent again and again by ApacheBench."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as body:
        body.write(json.dumps(body_of(history)))
        body.flush()
        command = ["ab", "-k", "-n", str(number), "-c", "1", "-p", body.name, "-T", "application/json", address]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {f"ab_p{share}_ms": float(re.search(rf"^ +{share}% +(\d+)", printed, re.M)[1]) for share in (50, 99)}
    refused = re.search(r"Non-2xx responses: +(\d+)", printed)
    failed = int(re.search(r"Failed requests: +(\d+)", printed)[1])
    return found | {"ab_failed": failed + (int(refused[1]) if refused else 0)}


def body_of(history: list[str]) -> dict[str, object]:
    """The body of a request."""
    return {"dataframe_records": [{"history": history, "k": 10}]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a served student.")
    for name, default, text in (
        ("items", 17408, "V"),
        ("length", 50, "history items that the student reads"),
        ("batch", 10000, "histories in the batch"),
        ("requests", 1000, "timed requests"),
        ("repeats", 5, "timed batches"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    parser.add_argument("--no-server", action="store_true", help="measure the batch and one answer alone")
    arguments = parser.parse_args()
    result: dict[str, float] = {"batch": arguments.batch}
    if importlib.util.find_spec("onnxruntime") is not None:
        result |= runtime_milliseconds(arguments.items, arguments.length, arguments.requests)
        print(f"one answer: {result['torch_ms']} ms by PyTorch, {result['onnx_ms']} ms by onnxruntime", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        address = log_model(arguments.items, arguments.length)
        histories = random_histories(arguments.batch, arguments.items, arguments.length)
        batch_s = batch_seconds(address, histories, arguments.repeats)
        print(f"{arguments.batch} histories over {arguments.items} items in {batch_s:.2f} s", flush=True)
        result["batch_s"] = round(batch_s, 2)
        if not arguments.no_server:
            with served(address) as server:
                request_milliseconds(server, histories[:20])
                times = request_milliseconds(server, histories[: arguments.requests])
                result |= apache_bench(server, histories[0], arguments.requests) if shutil.which("ab") else {}
            p50, p99 = np.percentile(times, [50, 99])
            result |= {"p50_ms": round(p50, 2), "p99_ms": round(p99, 2)}
            result["requests_per_s"] = round(1e3 * len(times) / sum(times), 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
