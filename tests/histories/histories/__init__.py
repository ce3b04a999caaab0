"""Random histories: plan.py invents one from a seed, runner.py lives it through with the real programs, record.py is what
was seen of it, and checker.py, which knows nothing of the other two, says what in it breaks the promise.
"""
