"""What steps start from: data are read once, and again where a file has changed; texts by column in keys."""

from pathlib import Path

from small_data import write_csv, write_table

from recdistill.config import DataConfig
from recdistill.steps.inputs import data_of, texts_in_key


def test_data_are_read_again_where_a_file_has_grown(tmp_path: Path) -> None:
    config = DataConfig(**write_csv(tmp_path))
    before = data_of(config)
    assert data_of(config) is before
    path = Path(config.interactions)
    path.write_text(path.read_text() + "u0,i0,99999999\n")
    after = data_of(config)
    assert after.fingerprint != before.fingerprint
    assert data_of(config) is after


def test_columns_that_change_their_names_are_other_texts(tmp_path: Path) -> None:
    """The text of all columns is the same, that of ``item_text=title,genres`` is not."""
    config = DataConfig(**write_csv(tmp_path))
    items = len(data_of(config).item_ids)
    found = []
    for names in (("genres", "tags"), ("tags", "genres"), ("genres", "tags")):
        rows = [(f"i{item}", f"Film {item}", "crime", "heist") for item in range(items)]
        write_table(Path(config.items), [("item", "title", *names), *rows])
        found.append(texts_in_key(config, data_of(config)))
    assert found[0] != found[1]
    assert found[0] == found[2]
