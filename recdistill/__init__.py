"""Distil an LLM recommender (iLoRA) into a small sequential model (DLLM2Rec) as tracked MLflow runs."""

__version__ = "0.1.0"
