"""Models in pinned wheels: complete pins, terms that are said, folders that transformers can read."""

import hashlib
import json
import re
import zipfile
from dataclasses import replace

import pytest

from recdistill.data import pinned_models
from recdistill.data.downloads import WheelMember
from recdistill.data.pinned_models import LLMS, SENTENCE_MODELS, PinnedModel, fetch_sentence_model
from recdistill.errors import InputError

MODELS = [*LLMS.values(), *SENTENCE_MODELS.values()]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECDISTILL_CACHE", str(tmp_path))
    return tmp_path


def put_wheel(folder, package: str, member: str, content: bytes) -> WheelMember:
    """A wheel of version 1.0 in the cache, and its pin."""
    wheel = folder / f"{package.replace('-', '_')}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(member, content)
    return WheelMember(package, "1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), member)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.alias)
def test_pins_are_complete(model: PinnedModel):
    hashes = [model.sha256, *(member.sha256 for member in model.members)]
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in hashes)
    assert len(set(hashes)) == len(hashes)
    assert all(re.fullmatch(r"\d+(\.\d+)+", member.version) for member in model.members)
    assert bool(model.file) == (len(model.members) > 1)
    assert re.search(r"(Apache 2\.0|Terms of Use).*[a-z]+\.[a-z]+/", model.terms)
    assert "\n" not in model.terms


def test_aliases_are_the_keys():
    assert [*LLMS] == [model.alias for model in LLMS.values()] == ["smollm2-135m", "gemma3-270m"]
    assert [*SENTENCE_MODELS] == ["minilm"]


def test_terms_are_said_where_a_model_is_fetched_and_not_again(cache, said):
    member = put_wheel(cache, "demo-llm", "demo/llm.gguf", b"weights")
    model = PinnedModel("demo", hashlib.sha256(b"weights").hexdigest(), (member,), "Demo is free (demo.org/free).")
    assert model.fetch() == model.path
    assert model.path.read_bytes() == b"weights"
    assert said() == ["fetching demo (from demo-llm==1.0). Demo is free (demo.org/free)."]
    model.fetch()
    assert said() == []


def test_parts_are_joined_under_the_file_s_own_name(cache, said):
    members = tuple(put_wheel(cache, f"demo-{part}", f"demo/llm.part{part}", bytes([part]) * 5) for part in range(3))
    whole = b"".join(bytes([part]) * 5 for part in range(3))
    model = PinnedModel("demo", hashlib.sha256(whole).hexdigest(), members, "Free.", file="llm.gguf")
    assert model.fetch().read_bytes() == whole
    assert model.path.name == "llm.gguf"
    assert said() == ["fetching demo (from demo-0==1.0, demo-1==1.0, demo-2==1.0). Free."]
    assert model.fetch() == model.path


def test_a_sentence_model_is_unpacked_once(cache, monkeypatch):
    with zipfile.ZipFile(cache / "inner.zip", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("1_Pooling/config.json", "{}")
    content = (cache / "inner.zip").read_bytes()
    member = put_wheel(cache, "demo-encoder", "demo/model.zip", content)
    model = replace(SENTENCE_MODELS["minilm"], members=(member,), sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(pinned_models.SENTENCE_MODELS, "minilm", model)
    folder = fetch_sentence_model("minilm")
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.json")) == [
        "1_Pooling/config.json",
        "config.json",
    ]
    for file in (model.path, *cache.glob("*.whl")):
        file.unlink()
    assert fetch_sentence_model("minilm") == folder  # from the cache alone


def test_another_name_is_refused(cache):
    with pytest.raises(InputError, match="sentence_model=mpnet: is no alias; give one of minilm"):
        fetch_sentence_model("mpnet")


@pytest.mark.slow
def test_minilm_is_what_it_says():
    model = SENTENCE_MODELS["minilm"]
    folder = fetch_sentence_model("minilm")
    with model.fetch().open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == model.sha256
    config = json.loads((folder / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"]) == (384, 6)
    assert {"model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
