"""What a cell's result depends on beside the plan: the user's data, files and plugins, as they are now.

A finished cell keeps digests of these. Where they are other ones today, its result is of another study. Data sets that
are pinned never change, and have none.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from recdistill.config import DataConfig, config_of, narrow, option_table
from recdistill.config.lineage import chosen
from recdistill.config.own_files import part_digest
from recdistill.config.steps import STEPS
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.registry import SOURCES
from recdistill.study.plan import Cell, lineage

#: Options by which the cells of a row differ; no file depends on them.
OF_SEEDS = ("seed", "new_items_seed")
TEXTS = "item texts"


@dataclass(frozen=True)
class Contents:
    """Digests of what is the user's own.

    Attributes:
        files: of the files and parts of plugins that the options of a cell, and of those that it starts from, name; of
            the items' texts; by row and by option or part.
        undrawn: fingerprint of the data before new items are drawn; empty of a data set that is pinned.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    undrawn: str = ""


class AtHand:
    """The contents of cells as they are now; files and plugins are read once, data where they have changed.

    Args:
        data: the data set of options.
        texts: a digest of the items' texts as `TEXTS`, where the user's files hold any.
    """

    def __init__(
        self,
        data: Callable[[DataConfig], SequenceData],
        texts: Callable[[DataConfig, SequenceData], Mapping[str, str]],
    ) -> None:
        self._data = data
        self._texts = texts
        self._files: dict[str, dict[str, str]] = {}
        self._said: set[str] = set()

    def of(self, cell: Cell) -> Contents:
        """What a cell that is made now is made of. Raises InputError where the data cannot be read."""
        texts, undrawn = self.data(cell)
        return Contents(self.files(cell) | texts, undrawn)

    def files(self, cell: Cell) -> dict[str, str]:
        """Digests of the files and parts of plugins that a cell, and those that it starts from, use."""
        return {f"{one.row}: {name}": value for one in lineage(cell) for name, value in self._files_of(one).items()}

    def _files_of(self, cell: Cell) -> dict[str, str]:
        options = {name: value for name, value in cell.options.items() if name not in OF_SEEDS}
        key = json.dumps([cell.step, options], sort_keys=True)
        if key not in self._files:
            config = config_of(STEPS[cell.step], cell.options)
            found = {name: str(value) for name, value in chosen(config, (), option_table(type(config))).items()}
            for registry, name in config.parts_in_use():
                declared = registry.declaration(name)
                if not declared.is_ours:
                    found[f"{registry.kind} {name}"] = part_digest(declared)
            self._files[key] = found
        return self._files[key]

    def data(self, cell: Cell) -> tuple[dict[str, str], str]:
        """Of the user's own data the items' texts and the fingerprint before new items are drawn; of others nothing."""
        config = config_of(STEPS[cell.step], cell.options)
        assert isinstance(config, DataConfig)
        if SOURCES.declaration(config.dataset).about.get("pinned"):
            return {}, ""
        undrawn = {name: option_table(DataConfig)[name].default for name in ("force", "new_items", "new_items_seed")}
        options = narrow(config, DataConfig, **undrawn)
        data = self._data(options)
        # A file that has no further columns today may have had some.
        return {f"{cell.row}: {TEXTS}": self._texts(options, data).get(TEXTS, "")}, data.fingerprint

    def fits(self, cell: Cell, kept: Contents) -> bool:
        """Whether a cell that was made of ``kept`` would be made of the same today.

        What was not kept, as by earlier versions, and what cannot be read on this machine, is taken to be the same.
        """
        if not kept.files and not kept.undrawn:
            return True
        now = self.files(cell)
        if kept.undrawn:
            try:
                texts, undrawn = self.data(cell)
            except InputError as error:
                self._say(f"study: the data of {cell.data} are taken to be as they were ({error})")
            else:
                now |= texts
                if undrawn != kept.undrawn:
                    return False
        return all(now.get(name, value) == value for name, value in kept.files.items())

    def _say(self, line: str) -> None:
        """Print a line once."""
        if line not in self._said:
            self._said.add(line)
            print(line, flush=True)
