"""iLoRA (NeurIPS 2024): gated LoRA on unmodified peft, the gates, injection, the base LLM."""
