"""The unmodified CuPy wheel on a CPU: see README.md, and emulate.py for what it offers."""
