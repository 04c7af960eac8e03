"""The view ``llm``: a frozen causal LLM's states over an item's text, by a reading of `teachers.ilora.text_reading`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recdistill.config.option import option
from recdistill.data.pinned_models import LLMS
from recdistill.errors import InputError
from recdistill.registry import VIEWS
from recdistill.teachers.ilora.text_reading import TEMPLATES, TextReader
from recdistill.teachers.ranking.base_states import base_of
from recdistill.views.model_view import LoadedModel, ModelView
from recdistill.views.token_states import mean_states
from recdistill.views.vector_cache import Encoded
from recdistill.views.view import Float32Array, ViewContext


@dataclass(frozen=True, kw_only=True)
class LLMOptions:
    """Options of the view."""

    view_llm: str = option(
        "smollm2-135m",
        "smollm2-135m, gemma3-270m, a Hugging Face id or local path of the causal LLM that reads items' texts",
        content=True,
    )
    llm_reading: Literal["echo", "mean", "prompt"] = option(
        "echo", "echo: text given twice, states of the second time; mean: of its states; prompt: state that would say "
        "it in one word; with / between several the best on validation is taken",
        several=True,
    )  # fmt: skip
    text_tokens: int = option(256, "most tokens of an item's text that a model reads", least=4)


@VIEWS.register("llm", options=LLMOptions)
class LLMView(ModelView):
    """States of a frozen causal LLM, [n, H]."""

    options: LLMOptions
    model_option = "view_llm"

    def __init__(self, options: LLMOptions, context: ViewContext) -> None:
        super().__init__(options, context)
        if options.llm_reading not in TEMPLATES:
            raise InputError(
                f"llm_reading={options.llm_reading}: is a choice for validation; give one of {', '.join(TEMPLATES)}"
            )

    def check(self) -> None:
        """Raise InputError where the LLM's name cannot be one."""
        from recdistill.teachers.ilora.llm_source import check_llm_name

        _as_option(lambda: check_llm_name(self.model_name))

    def load(self) -> LoadedModel:
        """The frozen LLM and its tokenizer. Raises InputError."""
        from recdistill.teachers.ilora.llm_source import load_llm

        found = _as_option(lambda: load_llm(self.model_name, self.context.device))
        found.model.config.use_cache = False  # nothing is generated
        return LoadedModel(found.model, found.tokenizer, found.fingerprint)

    def pinned(self) -> str:
        """What the alias stands for."""
        return LLMS[self.model_name].sha256 if self.model_name in LLMS else ""

    def terms(self) -> str:
        """The LLM's, where it has an alias."""
        return LLMS[self.model_name].terms if self.model_name in LLMS else ""

    def reading(self) -> dict[str, Any]:
        """The reading and its words."""
        reading: str = self.options.llm_reading
        return {"reading": reading, "template": list(TEMPLATES[reading]), "text_tokens": self.options.text_tokens}

    def cache_identity(self) -> dict[str, Any]:
        """Weights, reading and the precision, which is the machine's."""
        from recdistill.teachers.ilora.base_llm import compute_dtype

        return super().cache_identity() | {"precision": str(compute_dtype(self.context.device))}

    def read_elsewhere(self, texts: Sequence[str]) -> Encoded | None:
        """What a ranking teacher over the same LLM keeps of the same texts, which it reads before it learns."""
        read = self._reader().all(texts)
        weight = next(self.model().model.get_input_embeddings().parameters())
        found = base_of(self.weights(), weight).states_of((read.tokens, read.start, read.read), len(texts)).read()
        if found is None or found.seconds is None:
            return None
        seconds = np.full(len(texts), found.seconds / len(texts), dtype=np.float32)
        return Encoded(found.states.float().numpy(), read.lengths, seconds)

    def encode(self, texts: Sequence[str]) -> tuple[Float32Array, NDArray[np.int64]]:
        """States float32 [n, H] and tokens read [n] of one batch."""
        loaded = self.model()
        read = self._reader()
        rows = [read(text) for text in texts]
        tokens = [ids for ids, _ in rows]
        parts = [(len(ids) - count, len(ids)) for ids, count in rows]
        states = mean_states(loaded.model, tokens, parts, int(loaded.tokenizer.pad_token_id))
        return states, np.array([len(ids) for ids in tokens], dtype=np.int64)

    def _reader(self) -> TextReader:
        loaded = self.model()
        context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
        return TextReader(loaded.tokenizer, self.options.llm_reading, self.options.text_tokens, context)


def _as_option(read: Any) -> Any:
    """What ``read`` gives; its mistakes are told of ``view_llm``, which is this view's name of the option ``llm``."""
    try:
        return read()
    except InputError as error:
        said = str(error)
        raise InputError(f"view_{said}" if said.startswith("llm=") else said) from None
