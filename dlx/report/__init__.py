"""Texts about a network: `Network.report`, `Network.summary` and `Network.explain`.

Files: evidence (the figures of a network, its history and its data), rules (what the figures mean), summary (the table
of layers), explanation (how a step is computed). They may import `dlx.scoring`, `dlx.data` and the equations.
"""
