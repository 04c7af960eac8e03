"""All views together: one map for old and new texts, learnt from the trained items alone."""

import json
from pathlib import Path

import numpy as np
import pytest
from embeddings_server import Server, serving
from registered_parts import registries_restored
from safetensors.numpy import load_file, save_file

from recdistill.config.views import ViewsConfig
from recdistill.errors import InputError
from recdistill.registry import VIEWS
from recdistill.views import item_vectors
from recdistill.views.item_vectors import ARRAYS_FILE, VALUES_FILE, ItemVectors
from recdistill.views.text_teacher import TeacherTable
from recdistill.views.view import View

WORDS = ["Star", "Wars", "Toy", "Story", "Heat", "Net", "Return", "Jedi", "Empire", "Fargo", "Aladdin", "Comedy"]
TEXTS = [f"{WORDS[place % 12]} {WORDS[(place * 5 + 3) % 12]} {place % 7}" for place in range(30)]
TEXTS[20] = " "
TEXTS[21] = TEXTS[0]
TRAINED = np.arange(30) < 25
NEW = ["Return of the Jedi", "", "Fargo 2", "七人の侍"]


def config(views: str = "tfidf", **more) -> ViewsConfig:
    return ViewsConfig(views=views, view_directions=6, **more)


@pytest.fixture(scope="session")
def several(tiny_llm_folder: Path, tiny_encoder_folder: Path) -> ViewsConfig:
    return config("tfidf+llm+sentence", view_llm=str(tiny_llm_folder), sentence_model=str(tiny_encoder_folder))


def test_views_stand_side_by_side_with_the_same_total_variance(several: ViewsConfig) -> None:
    found = ItemVectors.fit(several, TEXTS, TRAINED)
    assert found.names == ("llm", "sentence", "tfidf")
    assert found.table.shape == (30, found.size) == (30, 18)
    assert found.table.dtype == np.float32
    known = TRAINED & np.array([bool(text.strip()) for text in TEXTS])
    for view in range(3):
        part = found.table[known, 6 * view : 6 * view + 6]
        assert part.var(axis=0).sum() == pytest.approx(1, rel=1e-2)
        np.testing.assert_allclose(part.mean(axis=0), 0, atol=1e-2)
    for view, name in enumerate(found.names):
        alone = ItemVectors.fit(config(name, **_own(several, name)), TEXTS, TRAINED)
        np.testing.assert_allclose(found.table[:, 6 * view : 6 * view + 6], alone.table, atol=1e-5)


def _own(several: ViewsConfig, name: str) -> dict:
    option = {"llm": "view_llm", "sentence": "sentence_model"}.get(name)
    return {option: several.value(option)} if option else {}


def test_of_the_old_texts_are_the_tables_rows_and_computing_them_gives_the_same(several: ViewsConfig) -> None:
    found = ItemVectors.fit(several, TEXTS, TRAINED)
    np.testing.assert_array_equal(found.of(TEXTS), found.table)
    np.testing.assert_allclose(found.computed(TEXTS), found.table, atol=1e-5)
    order = np.random.default_rng(0).permutation(30)
    np.testing.assert_array_equal(found.of([TEXTS[place] for place in order]), found.table[order])
    mixed = found.of([NEW[0], TEXTS[3], NEW[2]])
    np.testing.assert_array_equal(mixed[1], found.table[3])
    np.testing.assert_allclose(mixed[[0, 2]], found.computed([NEW[0], NEW[2]]), atol=1e-6)
    assert found.of([]).shape == (0, found.size)


def test_what_new_items_say_changes_nothing_of_the_old(several: ViewsConfig) -> None:
    before = ItemVectors.fit(several, TEXTS, TRAINED)
    other = [
        text if one else f"something else {place}" for place, (text, one) in enumerate(zip(TEXTS, TRAINED, strict=True))
    ]
    after = ItemVectors.fit(several, other, TRAINED)
    np.testing.assert_allclose(before.table[TRAINED], after.table[TRAINED], atol=1e-5)
    np.testing.assert_allclose(before.of(NEW), after.of(NEW), atol=1e-5)
    fewer = ItemVectors.fit(several, TEXTS, TRAINED & (np.arange(30) < 15))
    assert np.abs(fewer.of(NEW[:1]) - before.of(NEW[:1])).max() > 1e-3


def test_a_blank_text_is_the_trained_items_mean() -> None:
    found = ItemVectors.fit(config(), TEXTS, TRAINED)
    assert not found.table[20].any()
    assert not found.of(["", "\t"]).any()
    np.testing.assert_array_equal(found.table[0], found.table[21])


def test_saved_and_loaded_it_is_the_same(several: ViewsConfig, tmp_path: Path) -> None:
    before = ItemVectors.fit(several, TEXTS, TRAINED)
    before.save(tmp_path / "vectors")
    before.save(tmp_path / "vectors")  # in its own place
    after = ItemVectors.load(tmp_path / "vectors")
    np.testing.assert_array_equal(after.table, before.table)
    np.testing.assert_array_equal(after.of(TEXTS), before.table)
    np.testing.assert_allclose(after.of(NEW), before.of(NEW), atol=1e-5)
    assert (after.names, after.identity, after.costs) == (before.names, before.identity, before.costs)
    files = [path for path in (tmp_path / "vectors").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert sorted(one.name for one in tmp_path.iterdir() if one.name != "cache") == ["vectors"]


def test_costs_are_those_of_the_first_time(several: ViewsConfig) -> None:
    first = ItemVectors.fit(several, TEXTS, TRAINED).costs
    assert first["llm"].tokens > first["sentence"].tokens > 0
    assert first["llm"].seconds > 0
    assert (first["tfidf"].tokens, first["tfidf"].seconds) == (0, 0.0)
    assert ItemVectors.fit(several, TEXTS, TRAINED).costs == first


def test_a_teachers_view_beside_a_cheap_one(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    seen: dict[str, np.ndarray] = {}

    def encode(texts):
        return np.stack([seen.setdefault(text, generator.normal(size=9).astype(np.float32)) for text in texts])

    teacher = TeacherTable(TEXTS, encode(TEXTS), {"run": "a"}, encode)
    found = ItemVectors.fit(config("tfidf+teacher"), TEXTS, TRAINED, teacher)
    assert found.size == 12
    found.save(tmp_path / "vectors")
    alone = ItemVectors.load(tmp_path / "vectors")
    np.testing.assert_array_equal(alone.of(TEXTS), found.table)
    with pytest.raises(InputError, match="no teacher is at hand"):
        alone.of(NEW[:1])
    np.testing.assert_allclose(ItemVectors.load(tmp_path / "vectors", teacher).of(NEW), found.of(NEW), atol=1e-6)


def test_a_key_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key")
    with serving(Server()) as address:
        found = ItemVectors.fit(config("endpoint", view_endpoint=address, view_endpoint_model="m"), TEXTS, TRAINED)
    found.save(tmp_path / "vectors")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 5
    assert not [path for path in written if b"secret" in path.read_bytes()]


@pytest.mark.parametrize(
    ("options", "texts", "trained", "said"),
    [
        ({"views": ""}, TEXTS, TRAINED, r"^views=: names no view"),
        ({"views": "tfidf/sentence"}, TEXTS, TRAINED, r"^views=tfidf/sentence: is a choice for validation"),
        ({"views": "tfidf+teacher"}, TEXTS, TRAINED, r"^views=teacher: no teacher is at hand"),
        ({}, TEXTS[:5], TRAINED, r"^views: 30 items and 5 texts"),
        ({}, TEXTS, np.zeros(30, dtype=bool), r"^views: fewer than two trained items have a text"),
        ({}, ["a film"] * 30, TRAINED, r"all trained items have the same vector"),
    ],
)
def test_mistakes_are_one_line(options: dict, texts: list[str], trained: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ItemVectors.fit(config(**options), texts, trained)


def test_a_mistake_in_one_view_is_told_before_another_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_vectors, "digest_rows", pytest.fail)
    with pytest.raises(InputError, match="view_endpoint_model=: is empty"):
        ItemVectors.fit(config("endpoint+tfidf"), TEXTS, TRAINED)


@pytest.mark.parametrize("name", [VALUES_FILE, ARRAYS_FILE])
@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_damage_is_one_line(name: str, content: bytes | None, tmp_path: Path) -> None:
    ItemVectors.fit(config(), TEXTS, TRAINED).save(tmp_path / "vectors")
    path = tmp_path / "vectors" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"holds no items' vectors \(.*\); make them again") as caught:
        ItemVectors.load(tmp_path / "vectors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../../tfidf", "..", "/etc", "nobody\nknows"])
def test_a_name_that_is_no_view_is_refused(name: str, tmp_path: Path) -> None:
    ItemVectors.fit(config(), TEXTS, TRAINED).save(tmp_path / "vectors")
    path = tmp_path / "vectors" / VALUES_FILE
    described = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(described | {"names": [name]}), encoding="utf-8")
    tensors = load_file(path.with_name(ARRAYS_FILE))
    save_file({key.replace("tfidf", name, 1): value for key, value in tensors.items()}, path.with_name(ARRAYS_FILE))
    with pytest.raises(InputError, match="names the view") as caught:
        ItemVectors.load(tmp_path / "vectors")
    assert "\n" not in str(caught.value)


def test_what_is_written_names_models_and_costs(several: ViewsConfig, tmp_path: Path) -> None:
    ItemVectors.fit(several, TEXTS, TRAINED).save(tmp_path / "vectors")
    said = json.loads((tmp_path / "vectors" / VALUES_FILE).read_text(encoding="utf-8"))
    assert said["identity"]["llm"]["reading"] == "echo"
    assert len(said["identity"]["sentence"]["weights"]) == 64
    assert set(said["costs"]) == {"llm", "sentence", "tfidf"}


class Letters(View):
    """Counts of two letters."""

    def vectors(self, texts):
        return np.array([[text.count("a"), text.count("e")] for text in texts], dtype=np.float32).reshape(-1, 2)

    def identity(self):
        return {}


def view(**methods) -> type[View]:
    """A view in which some methods are others."""
    return type("Own", (Letters,), methods | {"__module__": __name__})


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (view(vectors=lambda self, texts: {}[0]), r" \(test_item_vectors\.py:\d+\): KeyError: 0; mend it"),
        (view(fit=lambda self, texts: 1 / 0), r" \(test_item_vectors\.py:\d+\): ZeroDivisionError"),
        (view(__init__=lambda self: None), r" \(test_item_vectors\.py.*\): TypeError"),
        (view(vectors=lambda self, texts: [[1.0] for _ in texts]), r": gives a list for 3 texts"),
        (view(vectors=lambda self, texts: np.ones((2, 3), np.float32)), r": gives float32 \[2, 3\] for 3 texts"),
        (view(vectors=lambda self, texts: np.full((3, 2), np.nan, np.float32)), r": gives NaN or infinity"),
        (
            view(identity=lambda self: {"letters": {"a", "e"}}),
            r": identity is .*; give a dict of texts, numbers, lists",
        ),
    ],
)
def test_what_a_view_of_ones_own_gives_is_checked(kind: type[View], said: str) -> None:
    with registries_restored():
        VIEWS.register("own")(kind)
        with pytest.raises(InputError, match=f"^view 'own'{said}"):
            ItemVectors.fit(config("own"), ["Alien", "Heat", "Fargo"], np.ones(3, dtype=bool))


def test_a_view_of_ones_own_changes_no_text_of_others() -> None:
    texts, trained = ["Alien", "Heat", "Fargo"], np.ones(3, dtype=bool)
    with registries_restored():
        VIEWS.register("own")(view(fit=lambda self, texts: texts.clear()))
        ItemVectors.fit(config("own+tfidf"), texts, trained)
    assert texts == ["Alien", "Heat", "Fargo"]
