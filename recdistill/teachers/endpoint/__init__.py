"""The teacher behind a server: an LLM that is asked by HTTP to order candidates."""
