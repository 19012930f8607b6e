"""Lessons on pooling, measurements of speed, and what compilers make of pools.

Run it with `python -m experiments [PART]`; `experiments/README.md` has the questions
and the answers. Nothing in `jaxpool/` imports this package.
"""
