"""Which films an LLM has by heart: how often it says the year of a film, given its title alone.

``python benchmarks/known_films.py`` writes "The movie Toy Story (19" for each film of a data set whose titles end with
a year, and counts how often the LLM's most likely next tokens are the rest of it. A film that it knows by heart is no
new item to it, whatever was left out of training. Beside it stands what the most frequent year alone gets right, and
both for the films that most people have rated, and those that fewest have. Prints a table and a JSON line.
"""

import argparse
import json
import re
from collections import Counter

import numpy as np
import torch

from recdistill.config import DataConfig
from recdistill.data.load import load_data
from recdistill.teachers.ilora.llm_source import load_llm

FILM = re.compile(r"^(?P<title>.+) \((?P<year>\d{4})\)$")
ROWS = 32


@torch.inference_mode()
def said_right(llm: str, films: list[tuple[str, str]]) -> np.ndarray:
    """bool [n]: whether the tokens of a film's year, its century given, are each the most likely one."""
    base = load_llm(llm, torch.device("cpu"), causal_lm=True)
    start = [base.tokenizer.bos_token_id] if base.tokenizer.bos_token_id is not None else []
    prompts, rows = [], []
    for title, year in films:
        prompt = base.tokenizer(f"The movie {title} ({year[:2]}", add_special_tokens=False)["input_ids"]
        whole = base.tokenizer(f"The movie {title} ({year}", add_special_tokens=False)["input_ids"]
        # Where a tokenizer joins digits, the tokens that differ are the year's.
        same = next((at for at, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
        prompts.append(len(start) + same)
        rows.append([*start, *whole])
    right = np.zeros(len(films), dtype=bool)
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    for first in range(0, len(order), ROWS):
        batch = order[first : first + ROWS]
        tokens = torch.full((len(batch), max(len(rows[row]) for row in batch)), int(base.tokenizer.pad_token_id))
        for place, row in enumerate(batch):
            tokens[place, : len(rows[row])] = torch.tensor(rows[row])
        likely = base.model(input_ids=tokens)[0].argmax(dim=-1)
        for place, row in enumerate(batch):
            begin, end = prompts[row], len(rows[row])
            right[row] = bool((likely[place, begin - 1 : end - 1] == tokens[place, begin:end]).all())
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "", allow_abbrev=False)
    parser.add_argument("--dataset", default="ml-100k", choices=("ml-100k", "ml-latest-small"))
    parser.add_argument("--llm", default="smollm2-135m")
    parser.add_argument("--films", type=int, default=0, help="read so many, drawn once; 0: all")
    arguments = parser.parse_args()
    data = load_data(DataConfig(dataset=arguments.dataset))
    found = [(item, match) for item, title in enumerate(data.titles) if (match := FILM.match(title))]
    if arguments.films and arguments.films < len(found):
        drawn = np.random.default_rng(0).choice(len(found), arguments.films, replace=False)
        found = [found[place] for place in sorted(drawn)]
    films = [(match["title"], match["year"]) for _, match in found]
    right = said_right(arguments.llm, films)
    count = data.item_count[[item for item, _ in found]]
    third = len(films) // 3
    by_count = np.argsort(-count, kind="stable")
    groups = {"all": by_count, "a third, most rated": by_count[:third], "a third, least rated": by_count[-third:]}
    lines = []
    print(f"{'films':>24}{'number':>9}{'year said':>12}{'by the most frequent year':>28}")
    for name, members in groups.items():
        frequent = Counter(films[place][1] for place in members).most_common(1)[0][1] / len(members)
        lines.append({"films": name, "number": len(members), "said": right[members].mean(), "frequent": frequent})
        print(f"{name:>24}{len(members):>9,}{right[members].mean():>12.1%}{frequent:>28.1%}")
    print(json.dumps({"dataset": arguments.dataset, "llm": arguments.llm, "groups": lines}))


if __name__ == "__main__":
    main()
