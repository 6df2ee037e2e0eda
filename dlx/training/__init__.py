"""How a network is trained: from the arguments of `fit` to the last update. No formula stands here.

Files: arguments, ranges, plan, steps (one update), batches, epochs, loop, state (where a training stands), divergence,
memory, flat (all parameters as one vector), interrupts, progress_bar.
They may import `dlx.data`, `dlx.scoring` and the equations, and nothing that writes a file.
"""
