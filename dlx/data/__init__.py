"""Checks of what a user passes: features, targets and weights become rows on the backend, parameters become layers.

Files: samples (the one door for rows), features, streaming, targets, labels, gaps, columns, sparse, parameters,
placement.
They may import the equations, `backend` and `checks`, and nothing that trains.
"""
