"""A data set as the files that DLLM2Rec's released code reads (RecSys 2024)."""

import pickle
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.data.sources.dllm2rec import FILES, STATISTICS_FILE
from recdistill.errors import InputError

ITEMS_FILE = "items.csv"
# The release has this number written into its sampling of negatives.
RELEASED_LENGTH = 10


def write_dllm2rec(folder: str | Path, data: SequenceData, length: int = RELEASED_LENGTH) -> None:
    """Write ``train_data.df``, ``val_data.csv``, ``test_data.csv``, ``data_statis.df`` and ``items.csv``.

    Row i of a file is sample i of its part: the last ``length`` items of its history, so that teacher files
    aligned with the samples are aligned with the rows. Histories longer than ``length`` are cut, and what is read
    back is then other data, with another fingerprint. The release reads the folder as it is with ``length`` 10,
    and does not look at ``items.csv`` (item, title, source_id), which ``dataset=dllm2rec`` takes as ``items``.

    Args:
        folder: where to, made if absent; other files in it stay.
        data: the data set.
        length: history items a row.

    Raises:
        InputError: the length is below 1.
    """
    if length < 1:
        raise InputError(f"length is {length}; give at least 1 history item a row ({RELEASED_LENGTH} for the release)")
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        complete = Path(scratch)
        write_pickled(complete / FILES["train"][0], columns_of(data.train, length, data.padding_id))
        write_pickled(complete / STATISTICS_FILE, {"seq_size": [length], "item_num": [data.num_items]})
        for part, samples in (("validation", data.validation), ("test", data.test)):
            frame = pd.DataFrame(columns_of(samples, length, data.padding_id))
            frame.to_csv(complete / FILES[part][1], index=False)
        items = {"item": range(data.num_items), "title": data.titles, "source_id": data.item_ids}
        pd.DataFrame(items).to_csv(complete / ITEMS_FILE, index=False)
        for path in sorted(complete.iterdir()):
            path.replace(folder / path.name)


def columns_of(samples: Samples, length: int, padding_id: int) -> dict[str, list[Any]]:
    """The columns of one file, as plain Python numbers and lists."""
    history, real = samples.windows_of(range(len(samples)), length, padding_id)
    return {"seq": history.tolist(), "len_seq": real.tolist(), "next": samples.targets.tolist()}


class PlainFrame:
    """Pickles as the call ``pandas.DataFrame(columns)``, which every version of pandas and NumPy can make."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns

    def __reduce__(self) -> tuple[Any, ...]:
        return pd.DataFrame, (self.columns,)


def write_pickled(path: Path, columns: dict[str, list[Any]]) -> None:
    """A frame of plain columns for ``pandas.read_pickle``."""
    path.write_bytes(pickle.dumps(PlainFrame(columns), protocol=4))
