"""The formulas of DLLM2Rec (RecSys 2024) as plain loops over Python floats: slow, easy to check by eye."""

import math
from collections.abc import Sequence

Row = Sequence[float]


def propensity(item_count: Row) -> list[float]:
    total = sum(count + 1 for count in item_count)
    return [((count + 1) / total) ** 0.05 for count in item_count]


def dro(logits: Row, propensities: Row, item: int, beta: float) -> float:
    exponents = [
        p * ((z - 1) if i == item else z) ** 2 / beta for i, (z, p) in enumerate(zip(logits, propensities, strict=True))
    ]
    highest = max(exponents)
    return highest + math.log(math.fsum(math.exp(x - highest) for x in exponents))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def cross_entropy(logits: Row, item: int) -> float:
    highest = max(logits)
    return highest + math.log(math.fsum(math.exp(z - highest) for z in logits)) - logits[item]


def binary_cross_entropy(logits: Row, item: int, negative: int) -> float:
    return -(log_sigmoid(logits[item]) + log_sigmoid(-logits[negative]))


def normalised(values: Row) -> list[float]:
    total = math.fsum(values)
    return [value / total for value in values]


def candidate_weights(
    logits: Row,
    candidates: Sequence[int],
    distance: Row,
    gammas: tuple[float, float, float],
    temperature: float,
) -> list[float]:
    count = len(candidates)
    position = normalised([math.exp(-rank) for rank in range(1, count + 1)])
    softening = max(temperature, 1.0)
    confidence = normalised(
        [(math.exp(-d / softening) + 1e-8) ** max(1.0, 1 / temperature) for d in distance],
    )
    top = sorted(range(len(logits)), key=lambda i: -logits[i])[:count]
    consistency = [(1.0 if item in top else 0.0) + 1e-8 for item in candidates]
    return normalised(
        [
            gammas[0] * p + gammas[1] * c + gammas[2] * s
            for p, c, s in zip(position, confidence, consistency, strict=True)
        ]
    )


def kl_of_lists(logits: Row, candidates: Sequence[int], distance: Row, temperature: float) -> float:
    teacher = normalised([math.exp(-d / temperature) for d in distance])
    student = normalised([math.exp(logits[item] / temperature) for item in candidates])
    return temperature**2 * math.fsum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True))


def objective(
    logits: Sequence[Row],
    target: Sequence[int],
    negative: Sequence[int],
    candidates: Sequence[Sequence[int]],
    distance: Sequence[Row],
    distilled: Sequence[bool],
    propensities: Row,
    *,
    base_loss: str,
    alpha: float,
    beta: float,
    lam: float,
    gammas: tuple[float, float, float],
    temperature: float,
    ranking_loss: str,
    base_weight: float = 1.0,
) -> float:
    base, ranking = 0.0, 0.0
    for s, row in enumerate(logits):
        if base_loss == "ce":
            base += cross_entropy(row, target[s])
        else:
            base += binary_cross_entropy(row, target[s], negative[s]) / 2
        base += alpha * dro(row, propensities, target[s], beta)
        if not distilled[s]:
            continue
        if ranking_loss == "kl":
            ranking += kl_of_lists(row, candidates[s], distance[s], temperature)
            continue
        weights = candidate_weights(row, candidates[s], distance[s], gammas, temperature)
        for item, weight in zip(candidates[s], weights, strict=True):
            if (ranking_loss if ranking_loss in ("ce", "bce") else base_loss) == "ce":
                loss = cross_entropy(row, item)
            else:
                loss = binary_cross_entropy(row, item, negative[s])
            ranking += weight * (loss + alpha * dro(row, propensities, item, beta))
    return base_weight * base / len(logits) + lam * ranking / len(logits)
