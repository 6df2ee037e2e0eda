"""Random steps on memory that overlaps, for what is made of a recorded step."""

import numpy as np


def overlapping(seed, dtype="float32"):
    """Arrays of which some are views of others."""
    rng = np.random.default_rng(seed)
    n, K = rng.integers(1, 6), rng.integers(1, 10)
    v, w = rng.standard_normal((2, 3 * n * K)).astype(dtype)
    return v, w, w[: 2 * n * K], rng.standard_normal((1, K)).astype(dtype), *v.reshape(3, n, K)


def random_step(seed):
    """A step of random operations, many of them in place, on these arrays."""
    plan = np.random.default_rng(seed + 1).integers(0, (9, 3, 60, 60), (12, 4)).tolist()
    plan = plan[: 2 + seed % 11]

    def step(kept, carry, constants, inputs):
        v, w, half, b, *matrices = kept
        values, vectors = [x * 1.0 for x in matrices], [v * 0.5]
        for kind, i, j, k in plan:
            M, x, y = matrices[i], values[j % len(values)], values[k % len(values)]
            if kind == 0:
                M += x
            elif kind == 1:
                values.append(x * y + b)
            elif kind == 2:
                values.append(np.tanh(x - M))
            elif kind == 3:
                np.add.reduce(x, axis=-2, keepdims=True, out=b)
            elif kind == 4:
                sums = np.add.reduce(M, axis=-1, keepdims=True)
                values.append(x - np.maximum.reduce(y, axis=-1, keepdims=True) + sums)
            elif kind == 5:
                v *= inputs[0]
                vectors.append(v + w)
            elif kind == 6:
                half -= 0.25
                w += vectors[j % len(vectors)]
            elif kind == 7:
                values.append((x @ (y * 1.0).T) @ M)
            else:
                np.matmul(x @ y.T, x, out=M)
        return carry, np.add.reduce(values[-1], axis=(-2, -1)) + np.add.reduce(vectors[-1], axis=-1)

    return step
