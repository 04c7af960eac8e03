"""The public names: there, few, and nothing heavy before they are used."""

import subprocess
import sys

import recdistill
from recdistill.registry import REGISTRIES


def test_every_public_name_is_there() -> None:
    assert dir(recdistill) == sorted(recdistill.__all__)
    assert len(recdistill.__all__) <= 33
    for name in recdistill.__all__:
        assert getattr(recdistill, name) is not None


def test_every_registry_has_a_public_name() -> None:
    public = {id(getattr(recdistill, name)) for name in recdistill.__all__}
    assert all(id(one) in public for one in REGISTRIES)


def test_importing_costs_nothing() -> None:
    program = "import sys, recdistill; sys.exit(bool({'torch', 'numpy', 'pandas', 'mlflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_name_stays_what_it_is_when_rooms_are_imported() -> None:
    import recdistill.api

    for name in recdistill.__all__:
        assert getattr(recdistill, name) is getattr(recdistill, name)
    assert recdistill.distill is recdistill.api.distill
    assert recdistill.compare is recdistill.api.compare
