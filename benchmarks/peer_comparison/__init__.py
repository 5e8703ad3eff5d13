"""The general optimisers of the field beside ours, at equal evaluations; see ``benchmarks/peers.py``."""
