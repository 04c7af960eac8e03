from recdistill.distillation.policies.popularity_inverse import popularity_inverse
from recdistill.distillation.selection import select


def test_takes_the_rarest_targets(signals):
    mask = select("popularity_inverse", signals, 0.3)
    count = signals.item_count[signals.target]
    assert count[mask].max() <= count[signals.eligible & ~mask].min()
    assert popularity_inverse(signals).tolist() == [-float(value) for value in count]
