"""The frozen backbone as a teacher, without an LLM: the control of what an LLM teaches."""
