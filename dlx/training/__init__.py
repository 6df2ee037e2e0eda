"""How a network is trained: from the arguments of `fit` to the last update. No formula stands here.

Files: arguments, ranges, steps (one update), epochs, loop, state, divergence, memory, flat, interrupts, progress_bar.
They may import `dlx.data`, `dlx.scoring` and the equations, and nothing that writes a file.
"""
