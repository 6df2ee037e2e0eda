"""What is written to a disk and read again: networks, checkpoints, and what proves that they are whole.

Files: atomic, streams, container, schema, contents, fingerprint, resume, checkpoints, attempts, inspection.
They may import `dlx.training`, `dlx.data` and the equations, and know a network by its attributes alone.
"""
