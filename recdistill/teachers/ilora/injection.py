"""Collaborative embeddings as input tokens of the LLM (LLaRA; iLoRA, NeurIPS 2024)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Projector(nn.Module):
    """Linear(D->H), GELU, Linear(H->H): the backbone's (layer-normed) item embedding as an input of the LLM.

    Args:
        backbone_size: D.
        hidden_size: H.
        scale: root mean square that a projected embedding has at first; the LLM's own is best.
    """

    scale: Tensor

    def __init__(self, backbone_size: int, hidden_size: int, scale: float) -> None:
        super().__init__()
        self.inner = nn.Linear(backbone_size, hidden_size)
        self.outer = nn.Linear(hidden_size, hidden_size)
        # A projection much larger than the LLM's token embeddings drowns the text around it.
        self.register_buffer("scale", torch.ones(()))
        probe = torch.randn(256, backbone_size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.scale.fill_(scale / float(self(probe).square().mean().sqrt()))

    def forward(self, items: Tensor) -> Tensor:
        """[..., D] to [..., H]."""
        normed = F.layer_norm(items, items.shape[-1:])
        return self.scale * self.outer(F.gelu(self.inner(normed)))


def embedding_scale(embedding: Tensor) -> float:
    """Root mean square of the entries of an embedding table [N, H]."""
    return float(embedding.float().square().mean().sqrt())
