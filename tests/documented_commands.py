"""The commands that the documents show, as words: of blocks of shell, and of code within a line."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *sorted(ROOT.glob("README*.md")),
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "website").glob("*.md")),
]
BLOCK = re.compile(r"^```(sh|bash|console|)\n(.*?)^```", re.DOTALL | re.MULTILINE)
#: Of a block that does not say that it is a shell's, the lines that count.
OURS = ("mlflow ", "recdistill ", "python -m recdistill ", "accelerate launch ", "make ")
INLINE = re.compile(r"(?<!`)`((?:mlflow run|recdistill|python -m recdistill|accelerate launch|make) [^`]+)`(?!`)")


@dataclass(frozen=True)
class Command:
    """A command of a document.

    Attributes:
        document: its name.
        words: as a shell splits it, without variables before it and without comments.
        in_line: whether it stands within a line of text, where it may be cut.
    """

    document: str
    words: tuple[str, ...]
    in_line: bool

    @property
    def text(self) -> str:
        """In one line."""
        return shlex.join(self.words)


def commands() -> Iterator[Command]:
    """All of them, in order."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        name = document.relative_to(ROOT).as_posix()
        for language, block in BLOCK.findall(text):
            for line in block.replace("\\\n", " ").splitlines():
                if not language and not line.startswith(OURS):
                    continue
                for part in re.split(r"&&|\|\|| \| ", line):
                    words = words_of(part)
                    if words:
                        yield Command(name, tuple(words), in_line=False)
        for found in INLINE.findall(BLOCK.sub("", text).replace("\n", " ")):
            yield Command(name, tuple(words_of(found)), in_line=True)


def words_of(line: str) -> list[str]:
    """Words of a line, without a comment, and without variables that are set before the command."""
    words = shlex.split(line, comments=True)
    while words and (re.fullmatch(r"\w+=.*", words[0]) or words[0] in ("$", "time")):
        words = words[1:]
    return words
