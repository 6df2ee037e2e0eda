"""What a network says of itself: `Network.report` and `Network.summary`.

Files: evidence (the figures), rules (what they mean), summary (the table of layers).
They may import `dlx.scoring`, `dlx.data` and the equations.
"""
