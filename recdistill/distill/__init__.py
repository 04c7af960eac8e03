"""Distillation as pure functions: the losses of DLLM2Rec, and the policies that choose what is distilled."""
