"""What steps start from: data are read once, and again where a file has changed; texts by column in keys."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from small_data import write_csv, write_table

from recdistill.config import DataConfig
from recdistill.steps.inputs import data_of, imported_teacher, texts_in_key


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


def test_a_file_in_a_partition_is_read_again_where_it_is_written_anew(tmp_path: Path) -> None:
    options = write_csv(tmp_path)
    log, part = pd.read_csv(options["interactions"]), tmp_path / "log" / "month=1"
    part.mkdir(parents=True)
    config = DataConfig(**options | {"interactions": str(part.parent)})
    for users in (30, 20):
        log[log["user"].isin([f"u{user}" for user in range(users)])].to_parquet(part / "a.parquet")
        assert len(data_of(config).user_ids) == users


def test_titles_beside_a_file_of_recbole_are_read_again_where_they_have_changed(tmp_path: Path) -> None:
    options = write_csv(tmp_path)
    types = {"user": "user_id:token", "item": "item_id:token", "timestamp": "timestamp:float"}
    pd.read_csv(options["interactions"]).rename(columns=types).to_csv(tmp_path / "x.inter", sep="\t", index=False)
    items = pd.read_csv(options["items"]).set_axis(["item_id:token", "title:token_seq"], axis=1)
    config = DataConfig(dataset="recbole", interactions=str(tmp_path / "x.inter"))
    for begin in ("Old", "New"):
        items.assign(**{"title:token_seq": f"{begin} film"}).to_csv(tmp_path / "x.item", sep="\t", index=False)
        assert data_of(config).titles[0] == f"{begin} film"


def test_teacher_files_are_read_again_where_they_have_changed(tmp_path: Path) -> None:
    data, found = data_of(DataConfig(**write_csv(tmp_path))), []
    for seed in (0, 1):
        drawn, count = np.random.default_rng(seed), len(data.train)
        ranking = np.stack([drawn.permutation(data.num_items)[:5] for _ in range(count)])
        np.savetxt(tmp_path / "myrank_train.txt", ranking, fmt="%d")
        np.savetxt(tmp_path / "confidence_train.txt", np.sort(drawn.random((count, 5)), axis=1))
        torch.save(torch.from_numpy(drawn.random((data.num_items, 8))).float(), tmp_path / "all_embeddings.pt")
        found.append(imported_teacher(str(tmp_path), data))
        assert found[-1].outputs.ranking.tolist() == ranking.tolist()
        assert imported_teacher(str(tmp_path), data) is found[-1]
    assert found[0].run.key != found[1].run.key
