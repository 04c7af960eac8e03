import pytest
import torch

from recdistill.config import BaselineConfig
from recdistill.errors import InputError
from recdistill.training.device import device_of


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_where_there_is_one(there: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device_of(BaselineConfig()) == torch.device(device)
    assert device_of(BaselineConfig(device="cpu")) == torch.device("cpu")


def test_cuda_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device=cuda: torch finds no CUDA device here; set device=auto"):
        device_of(BaselineConfig(device="cuda"))
