"""The view ``sentence``: a sentence encoder's mean of token states, to unit length (Reimers and Gurevych 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recdistill.config.option import option
from recdistill.data.pinned_models import SENTENCE_MODELS
from recdistill.errors import InputError, one_line
from recdistill.registry import VIEWS
from recdistill.views.model_view import LoadedModel, ModelView
from recdistill.views.sentence_source import check_sentence_name, sentence_folder
from recdistill.views.token_states import mean_states
from recdistill.views.view import Float32Array, unit_length


@dataclass(frozen=True, kw_only=True)
class SentenceOptions:
    """Options of the view."""

    sentence_model: str = option(
        "minilm", "minilm, Hugging Face id or local path of a sentence encoder; its token states' mean counts",
        content=True,
    )  # fmt: skip
    text_tokens: int = option(256, "most tokens of an item's text that a model reads", least=4)


@VIEWS.register("sentence", options=SentenceOptions)
class SentenceView(ModelView):
    """Unit vectors of a sentence encoder, [n, H], computed in float32."""

    options: SentenceOptions
    model_option = "sentence_model"

    def check(self) -> None:
        """Raise InputError where the encoder's name cannot be one."""
        check_sentence_name(self.model_name)

    def load(self) -> LoadedModel:
        """The encoder and its tokenizer. Raises InputError."""
        from transformers import AutoModel, AutoTokenizer

        from recdistill.teachers.ilora.base_llm import silence_transformers, weights_fingerprint

        silence_transformers()
        check_sentence_name(self.model_name)
        folder = sentence_folder(self.model_name)
        try:
            model = AutoModel.from_pretrained(folder, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except Exception as error:  # transformers raises many kinds for a bad source
            raise InputError(
                f"sentence_model={self.model_name}: cannot be loaded ({one_line(error)}); "
                "give minilm, a Hugging Face id or a local path"
            ) from None
        if tokenizer.pad_token is None:
            raise InputError(
                f"sentence_model={self.model_name}: its tokenizer has no padding token; give a sentence encoder"
            )
        model.requires_grad_(False).eval()
        return LoadedModel(model.to(self.context.device), tokenizer, weights_fingerprint(model))

    def pinned(self) -> str:
        """What the alias stands for."""
        return SENTENCE_MODELS[self.model_name].sha256 if self.model_name in SENTENCE_MODELS else ""

    def terms(self) -> str:
        """The encoder's, where it has an alias."""
        return SENTENCE_MODELS[self.model_name].terms if self.model_name in SENTENCE_MODELS else ""

    def reading(self) -> dict[str, Any]:
        """How it is pooled."""
        return {"pooling": "mean, unit length", "text_tokens": self.options.text_tokens}

    def encode(self, texts: Sequence[str]) -> tuple[Float32Array, NDArray[np.int64]]:
        """Unit vectors float32 [n, H] and tokens read [n] of one batch."""
        loaded = self.model()
        most = getattr(loaded.model.config, "max_position_embeddings", None) or self.options.text_tokens
        room = int(min(self.options.text_tokens, most, loaded.tokenizer.model_max_length))
        rows = loaded.tokenizer(list(texts), truncation=True, max_length=room)["input_ids"]
        padding = int(loaded.tokenizer.pad_token_id)
        # A blank text has no token where the tokenizer adds none.
        rows = [row or [padding] for row in rows]
        states = mean_states(loaded.model, rows, [(0, len(row)) for row in rows], padding)
        return unit_length(states), np.array([len(row) for row in rows], dtype=np.int64)
