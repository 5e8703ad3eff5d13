"""Real networks, trained from scratch on data that Python and scikit-learn ship: what they are, and how.

`benchmarks/train_zoo.py` runs it. One module a step: `data`, `layers` and `architectures`, `catalogue`,
`training`, `allocating`, `measuring`, `shipping`, `facts`.
"""
