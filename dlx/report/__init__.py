"""Texts about a network: `Network.report` and `Network.summary`.

Files: evidence (the figures of a network, its history and its data), rules (what the figures mean), summary (the table
of layers). They may import `dlx.scoring`, `dlx.data` and the equations.
"""
