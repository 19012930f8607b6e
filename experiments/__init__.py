"""The main job: what pooling does, shown and measured on real data.

Run it with `python -m experiments`; see `experiments/README.md` for the questions and
the answers. Nothing in `jaxpool/` imports this package.
"""
