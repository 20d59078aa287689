"""Proximal policy optimisation of a language policy: one idea a file, `update.py` puts them together."""
