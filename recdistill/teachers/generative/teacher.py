"""The generative teacher."""

from dataclasses import dataclass
from typing import Literal

from recdistill.config.option import option
from recdistill.registry import TEACHERS


@dataclass(frozen=True, kw_only=True)
class GenerativeOptions:
    """Own options of a generative teacher."""

    answer: Literal["free", "constrained", "likelihood"] = option(
        "free", "free, constrained to the candidates' titles, or the likelihood of each (of these the most tokens)"
    )
    domain: Literal["item", "movie", "music", "game"] = option("item", "whose words the prompts are in")
    candidates: int = option(20, "titles to choose from in a prompt", least=2)
    curriculum: bool = option(
        True, "text alone at first, item embeddings in ever more batches; false: in all of them"
    )
    popularity_adjustment: float = option(
        0.0, "grounded distances are multiplied by (1 + popularity) to the power of minus this", least=0
    )


@TEACHERS.register("generative", options=GenerativeOptions)
class GenerativeTeacher:
    pass
