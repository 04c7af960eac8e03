"""A view by a model of transformers: which model it is, known without loading it once it has been loaded before."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recdistill.config.contents import content_digest
from recdistill.data.downloads import cache_dir
from recdistill.errors import InputError
from recdistill.registry import VIEWS
from recdistill.views.frozen_view import FrozenView
from recdistill.views.view import Arrays, ViewContext
from recdistill.whole_files import write_text

FOLDER = "models"


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A frozen model in evaluation mode, its tokenizer, and a digest of its weights.

    Attributes:
        model: of transformers; its first output is the last hidden state [B, T, H].
        tokenizer: of transformers, with a padding token.
        weights: `recdistill.teachers.ilora.base_llm.weights_fingerprint` of the model.
    """

    model: Any
    tokenizer: Any
    weights: str


class ModelView(FrozenView):
    """A view by a model that `load` reads; its weights' digest is part of the identity.

    The digest is kept beside the vectors under what the model's source says of itself (a pinned file's digest, a
    folder's content, a commit of the hub), so that vectors are found without reading gigabytes.
    """

    #: The option that names the model.
    model_option = ""

    def __init__(self, options: Any, context: ViewContext) -> None:
        super().__init__(options, context)
        self.model_name: str = getattr(options, self.model_option)
        self._model: LoadedModel | None = None
        self._weights, self._first_source = "", ""
        path = Path(self.model_name).expanduser()
        # Where a model lies is nobody's business but this machine's.
        self._shown = path.name if path.exists() else self.model_name

    @abstractmethod
    def load(self) -> LoadedModel:
        """Read the model onto the context's device. Raises InputError."""

    @abstractmethod
    def pinned(self) -> str:
        """What names the model's file for good where the name is an alias, else ''."""

    @abstractmethod
    def reading(self) -> dict[str, Any]:
        """How the model is read, as JSON values."""

    def identity(self) -> dict[str, Any]:
        """The model's name, its weights' digest, that of its source where it is not pinned, and how it is read."""
        weights = self.weights()
        return {"model": self._shown, "weights": weights} | self._told_source() | self.reading()

    def cache_identity(self) -> dict[str, Any]:
        """Weights and reading, and of a model that is not pinned its source, tokenizer and configuration included.

        What the model is called does not count.
        """
        weights = self.weights()
        return {"weights": weights} | self._told_source() | self.reading()

    def restore(self, identity: Mapping[str, Any], values: Mapping[str, Any], arrays: Arrays) -> None:
        """Take over which weights it was; the model is compared with them when it is first needed."""
        self._weights = str(identity.get("weights", ""))
        self._first_source = str(identity.get("source", ""))
        self._shown = str(identity.get("model", ""))
        super().restore(identity, values, arrays)

    def weights(self) -> str:
        """Digest of the model's weights; the model is loaded only where its source is seen for the first time."""
        if not self._weights:
            self._weights = self._remembered() or self.model().weights
        return self._weights

    def model(self) -> LoadedModel:
        """The model, loaded where it is not. Raises InputError where it is not the one that made the vectors."""
        if self._model is None:
            loaded = self.load()
            self._remember(loaded.weights)
            if self._weights not in ("", loaded.weights):
                raise InputError(
                    f"{self.model_option}={self.model_name}: is another model than the one that made the vectors so "
                    f"far, for views={VIEWS.name_of(type(self))}; give that one, or make the vectors again"
                )
            self._model = loaded
        return self._model

    def release(self) -> None:
        """Free the model's memory; it is loaded again where new texts come."""
        self._model = None

    def _told_source(self) -> dict[str, str]:
        """The source that the first vectors were made by, whatever became of it; nothing of a pinned model."""
        if self.pinned():
            return {}
        self._first_source = self._first_source or self._source()
        return {"source": self._first_source} if self._first_source else {}

    def _source(self) -> str:
        """A digest of what the source says of itself; '' where it is not on this machine yet."""
        path = Path(self.model_name).expanduser()
        said = self.pinned()
        if not said and path.exists():
            said = content_digest(self.model_option, path)
        elif not said:
            said = local_commit(self.model_name)
        return hashlib.sha256(said.encode()).hexdigest()[:20] if said else ""

    def _remembered(self) -> str:
        """The weights' digest that was kept for this source; '' where there is none."""
        source = self._source()
        try:
            kept = json.loads((cache_dir() / "views" / FOLDER / f"{source}.json").read_text(encoding="utf-8"))
            return str(kept["weights"]) if source else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _remember(self, weights: str) -> None:
        source = self._source()
        if source and self._remembered() != weights:
            path = cache_dir() / "views" / FOLDER / f"{source}.json"
            # What is not remembered is only slower.
            with suppress(OSError):
                write_text(path, json.dumps({"weights": weights}))


def local_commit(name: str) -> str:
    """The commit of a Hugging Face model that lies on this machine; '' where none does. No network."""
    from transformers import AutoConfig

    try:
        commit = getattr(AutoConfig.from_pretrained(name, local_files_only=True), "_commit_hash", None)
    except Exception:  # transformers raises many kinds; `load` says what is wrong
        return ""
    return f"{name}@{commit}" if commit else ""
