"""Do rules carry over to a family of networks that they never saw? One family is left out at a time.

`benchmarks/transfer.py` runs it. One module a step: `folds`, `searching`, `rivals`, `champions`, `spending`,
`allocating`, `measuring`, `comparing`, `study`, `tables`, `pictures`, `report`.
"""
