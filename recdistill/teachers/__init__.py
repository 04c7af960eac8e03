"""The LLM teacher: its base model, the gated LoRA of iLoRA and what they need."""
