"""A YAML file that options are read from, each mistake in one line with its place.

PyYAML composes the nodes, which know their lines; values are read by the option they are for, so that ``1e-3`` is a
number and a title like ``on`` is not a boolean.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from recdistill.config.option import Option, option
from recdistill.errors import InputError


def setting(name: str, kind: Any, least: float | None = None) -> Option:
    """A value of the file that is no option of a step, read and checked like one."""
    return Option(name, kind, None, option(None, "", least=least).metadata)


@dataclass(frozen=True)
class FileNode:
    """A node of the file, and the file for messages."""

    path: str
    content: Node

    @property
    def line(self) -> int:
        """Counted from one."""
        return int(self.content.start_mark.line) + 1

    def fail(self, message: str) -> NoReturn:
        """Raise InputError with the place of this node."""
        raise InputError(f"{self.path}:{self.line}: {message}")

    def text(self, what: str) -> str:
        """The scalar's text."""
        if not isinstance(self.content, ScalarNode):
            self.fail(f"{what}: must be a single value")
        return str(self.content.value)

    def items(self, what: str) -> "list[FileNode]":
        """The list's nodes."""
        if not isinstance(self.content, SequenceNode):
            self.fail(f"{what}: must be a list, as in [a, b]")
        return [FileNode(self.path, node) for node in self.content.value]

    def entries(self, what: str, known: Iterable[str]) -> "Entries":
        """Key and value nodes by key, each key known and there once."""
        if not isinstance(self.content, MappingNode):
            self.fail(f"{what}: must hold lines of the form name: value")
        found: Entries = {}
        names = list(known)
        for key_node, value_node in self.content.value:
            key = FileNode(self.path, key_node)
            name = key.text(f"a name in {what}")
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
                key.fail(f"{name}: {what} has no such name" + (f"; the nearest is {near[0]}" if near else ""))
            if name in found:
                key.fail(f"{name}: is already in line {found[name][0].line}; keep one")
            found[name] = (key, FileNode(self.path, value_node))
        return found

    def value(self, one: Option) -> Any:
        """The scalar as a value of the option, which is allowed."""
        text = self.text(one.name)
        try:
            value = one.read(text)
            one.check(value)
        except InputError as error:
            self.fail(str(error))
        return value


#: Key and value of each line of a mapping, by key.
Entries = dict[str, tuple[FileNode, FileNode]]


def read_yaml(path: Path, option: str, document: str) -> FileNode:
    """The file's root node.

    Args:
        path: of the file that ``option`` names.
        option: name of the option, for messages.
        document: the page that describes such files.

    Raises InputError where it cannot be read, is empty, or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{option}={path}: cannot be read ({error.strerror}); give another file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}:1: is not UTF-8 text") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(said for said in (error.problem, error.context) if said)
        raise InputError(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {said}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{path}:{line}: not YAML: {error.reason}") from None
    if node is None:
        raise InputError(f"{path}:1: is empty; see {document}")
    return FileNode(str(path), node)
