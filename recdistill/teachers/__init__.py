"""LLM teachers: the protocol, training, outputs, and one folder a kind; iLoRA (NeurIPS 2024) in its own."""
