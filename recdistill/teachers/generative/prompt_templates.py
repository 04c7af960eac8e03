"""Prompt templates: the text of a candidate prompt around its titles, three templates in the words of each domain.

The release has three templates a domain as well, others than these, and picks one a batch.
"""

from dataclasses import asdict, dataclass

from recdistill.errors import InputError

HISTORY, CANDIDATES = "[history]", "[candidates]"


@dataclass(frozen=True)
class Words:
    """Words of a domain: for the person, the things chosen, the act of choosing, and the name of a thing."""

    person: str
    thing: str
    things: str
    choose: str
    chosen: str
    name: str


DOMAINS = {
    "item": Words("customer", "item", "items", "choose", "chosen", "title"),
    "movie": Words("viewer", "film", "films", "watch", "watched", "title"),
    "music": Words("listener", "artist", "artists", "play", "played", "name"),
    "game": Words("player", "game", "games", "play", "played", "title"),
}

# A title's piece begins with a blank, and so does an answer: no blank stands before either.
TEMPLATES = (
    "These {things} are what one {person} has {chosen}, the latest last:[history]\n"
    "The next {thing} is one of these:[candidates]\n"
    "Its {name} is:",
    "The {person} has {chosen} one {thing} after another. So far:[history]\n"
    "On offer now:[candidates]\n"
    "Which of the {things} on offer will the {person} {choose} next? Answer with its {name} alone.\n"
    "Answer:",
    "Recommend a {thing} to a {person}.\n"
    "Already {chosen}, in this order:[history]\n"
    "Pick exactly one out of this list:[candidates]\n"
    "The {name} of your pick:",
)


def prompt_templates(domain: str) -> tuple[tuple[str, str, str], ...]:
    """The text before the history, between history and candidates, and after those, for each template.

    Raises InputError for an unknown domain.
    """
    if domain not in DOMAINS:
        raise InputError(f"domain={domain}: must be one of {', '.join(DOMAINS)}")
    parts = []
    for template in TEMPLATES:
        head, _, rest = template.format(**asdict(DOMAINS[domain])).partition(HISTORY)
        middle, _, tail = rest.partition(CANDIDATES)
        parts.append((head, middle, tail))
    return tuple(parts)
