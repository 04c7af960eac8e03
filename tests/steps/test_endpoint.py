"""A teacher behind a server in the steps: from the command to a distilled student."""

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from fake_server import KEY, reversed_order, serving
from transformers.utils.import_utils import is_serve_available
from workplace import run_step

from recdistill.data.pinned_models import LLMS
from recdistill.runs.finished_runs import finished_run
from recdistill.teachers.ilora.base_llm import converted
from recdistill.teachers.ilora.llm_source import converted_models
from recdistill.teachers.outputs import TeacherOutputs

STUDENT = {"hidden_size": 16, "blocks": 1, "max_length": 20, "epochs": 2, "candidate_topk": 5}


def options_of(address, files, **changes):
    options = {**files, "teacher": "endpoint", "endpoint": address, "endpoint_model": "tiny", "query_budget": 30}
    options |= {"endpoint_candidates": 6, "top_n": 8, "endpoint_evaluate": 10, "endpoint_tries": 1}
    return options | changes


@pytest.mark.slow
def test_from_the_command_to_a_student(place, small_files, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as server:
        server.needs_key = True
        options = options_of(server.address, small_files)
        # The server fails in the middle: one line, and what was answered is kept.
        server.answer = lambda text: server.faults.extend([503] * 9) or reversed_order(text)
        assert run_step("teacher", **options, endpoint_queries=1) != 0
        said = capsys.readouterr().err
        assert "HTTP 503" in said
        assert "Traceback" not in said
        server.answer, server.faults = reversed_order, []
        assert run_step("teacher", **options) == 0
        assert len(set(server.asked)) == len(server.asked)
        paid = len(server.asked)
        assert run_step("distill", **options, **STUDENT) == 0
        assert len(server.asked) == paid
    taught, student = place.newest("teacher"), place.newest("distill")
    assert student.data.tags["recdistill.teacher_run_id"] == taught.info.run_id
    metrics = taught.data.metrics
    assert metrics["endpoint/queries"] == 30
    assert metrics["endpoint/queries_paid_now"] == paid - 1 - metrics["endpoint/test/queries_paid_now"]
    assert metrics["endpoint/prompt_tokens"] == 3000
    assert metrics["endpoint/readable_share"] == 1
    assert metrics["asked/samples"] == 10
    assert 0 <= metrics["asked/ndcg_at_10"] <= 1
    assert not [name for name in metrics if name.startswith(("test/", "val/"))]
    outputs = TeacherOutputs.load(finished_run(taught.info.run_id, "teacher").artifact("teacher_outputs"))
    assert (outputs.manifest.teacher, outputs.manifest.llm, len(outputs.sample)) == ("endpoint", "tiny", 30)
    assert "test/ndcg_at_10" in student.data.metrics
    kept = [path for path in place.folder.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if KEY.encode() in path.read_bytes()]


@pytest.mark.slow
def test_another_budget_is_another_teacher_that_pays_for_the_rest_alone(place, small_files):
    with serving() as server:
        assert run_step("teacher", **options_of(server.address, small_files, query_budget=10)) == 0
        before = list(server.asked)
        assert run_step("distill", **options_of(server.address, small_files, query_budget=20), **STUDENT) == 0
        assert set(before) <= set(server.asked)
        assert len(set(server.asked)) == len(server.asked) > len(before)
    assert place.newest("teacher").data.metrics["endpoint/queries"] == 20


@pytest.mark.slow
def test_main_shows_what_has_ranks(place, small_files, capsys):
    with serving() as server:
        options = options_of(server.address, small_files, endpoint_evaluate=0)
        assert run_step("main", **options, **STUDENT, baselines="", cheap_views="") == 0
    said = capsys.readouterr().out
    assert "teacher over tiny" in said
    assert "sasrec, distilled" in said
    run = place.newest("teacher")
    assert run_step("evaluate", run_id=run.info.run_id) != 0
    assert "ranks no whole part" in capsys.readouterr().err


def test_a_mistaken_address_is_told_before_any_work(place, small_files, client, capsys):
    assert run_step("teacher", **options_of("localhost:1", small_files)) != 0
    assert "endpoint=localhost:1: is no address" in capsys.readouterr().err
    assert client.search_runs(["0"], "tags.`recdistill.step` = 'backbone'") == []


@pytest.mark.slow
def test_a_real_server_orders_real_titles(place, tmp_path):
    """`transformers serve` with SmolLM2 on this machine."""
    served = Path(sys.executable).with_name("transformers")
    if not served.exists() or not is_serve_available():
        pytest.skip("transformers cannot serve here: pip install openai fastapi uvicorn")
    folder = converted(LLMS["smollm2-135m"].fetch(), converted_models())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "server.log"
    command = [str(served), "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", str(folder)]
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        options = options_of(f"http://127.0.0.1:{port}/v1", {"max_users": 40}, endpoint_model=str(folder))
        options |= {"query_budget": 6, "endpoint_evaluate": 2, "endpoint_candidates": 5, "endpoint_tokens": 40}
        options |= {"endpoint_timeout": 300, "teacher_history": 4, "endpoint_tries": 2}
        assert run_step("teacher", **options) == 0
    finally:
        process.terminate()
        process.wait(30)
    metrics = place.newest("teacher").data.metrics
    assert metrics["endpoint/queries"] == metrics["endpoint/queries_paid_now"] == 6
    assert metrics["endpoint/prompt_tokens"] > 6 * 30
    assert 0 < metrics["endpoint/answer_tokens"] <= 6 * 40
    assert 0 < metrics["endpoint/readable_share"] <= 1
    assert metrics["endpoint/seconds"] > 0
    print({name: value for name, value in metrics.items() if name.startswith(("endpoint/", "asked/"))})


def wait_for(address, process, log):
    """Until a server answers, for three minutes at most."""
    for _ in range(180):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(log.read_text()[-2000:])
