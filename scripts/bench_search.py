"""Compare the exact search of `dualenc search` with numpy and faiss on the same embeddings.

    pip install numpy faiss-cpu
    python scripts/bench_search.py [--rows 1000000] [--dim 512] [--rounds 7] [--hnsw-rows 100000]

Embeddings are drawn around 20,000 centres, with queries from the same distribution, and written to runs/bench/search.
Every program uses two threads and finds the ten nearest rows; times are medians in milliseconds, after one round that
is not counted. `numpy` is a product in f32 and `argpartition`; `faiss` is IndexFlatIP. `IndexHNSWFlat` (M 32,
efConstruction 200) is built from the first --hnsw-rows rows only, since building takes long: its recall@10 is measured
against the exact result in the same rows. `--hnsw-rows 0` leaves it out.

On two cores with AVX-512, nothing else running, one run of five rounds:

    1000000 x 512, top 10             1 query  64 queries  recall@10
    numpy f32                          109 ms     1741 ms     1.0000
    faiss IndexFlatIP f32              168 ms     2746 ms     1.0000
    dualenc f32 (opens in 0.3 s)        93 ms      734 ms     1.0000
    dualenc f16 (opens in 0.2 s)        95 ms      649 ms     0.9984
    faiss HNSW of 50,000 rows, efSearch 64: 1 ms, 33 ms, recall 0.72; 256: 4 ms, 107 ms, recall 0.90; built in 61 s
"""

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

THREADS = "2"
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[name] = THREADS

import faiss  # noqa: E402  The number of threads is read when it is imported.
import numpy as np  # noqa: E402

TOP = 10
QUERIES = 64
BLOCK = 50_000


def generate(folder, count, dim):
    """Write rows and queries, unless they are there."""
    rows, queries = folder / f"rows-{count}x{dim}.npy", folder / f"queries-{dim}.npy"
    random = np.random.default_rng(0)
    centres = random.standard_normal((20_000, dim), dtype=np.float32)

    def draw(number):
        values = centres[random.integers(0, len(centres), number)]
        values = values + 0.7 * random.standard_normal((number, dim), dtype=np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    if not (rows.exists() and queries.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        np.save(queries, draw(QUERIES))
        partial = rows.with_suffix(".tmp")
        out = np.lib.format.open_memmap(partial, mode="w+", dtype="<f4", shape=(count, dim))
        for first in range(0, count, BLOCK):
            out[first : first + BLOCK] = draw(min(BLOCK, count - first))
        out.flush()
        partial.rename(rows)
    half = rows.with_name(f"half-{count}x{dim}.npy")
    if not half.exists():
        source = np.load(rows, mmap_mode="r")
        partial = half.with_suffix(".tmp")
        out = np.lib.format.open_memmap(partial, mode="w+", dtype="<f2", shape=(count, dim))
        for first in range(0, count, BLOCK):
            out[first : first + BLOCK] = source[first : first + BLOCK]
        out.flush()
        partial.rename(half)
    return rows, half, queries


def median(rounds, work):
    """The median time of `work`, in milliseconds, and its result."""
    result, times = work(), []
    for _ in range(rounds):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times), result


def with_numpy(rows, queries):
    """The nearest rows, and nearest first."""
    scores = queries @ rows.T
    top = np.argpartition(scores, -TOP, axis=1)[:, -TOP:]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1)
    return np.take_along_axis(top, order, axis=1)


def recall(found, expected):
    """Mean fraction of the expected rows that were found."""
    return float(np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found, expected, strict=True)]))


def with_dualenc(file, queries, rounds):
    """Times and rows of the bench of `crates/search`."""
    command = ["cargo", "bench", "-q", "-p", "dualenc-search", "--bench", "search", "--"]
    arguments = [str(path.resolve()) for path in (file, queries)] + [str(TOP), str(rounds + 1)]
    output = subprocess.run(command + arguments, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(output.strip().splitlines()[-1])
    assert str(found["threads"]) == THREADS, found["threads"]
    one, many = (1e3 * statistics.median(found[name][1:]) for name in ("one", "all"))
    return found["open"], one, many, np.array(found["rows"])


def vectors():
    """The widest vectors of the processor."""
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    return "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--hnsw-rows", type=int, default=100_000)
    arguments = parser.parse_args()
    folder = Path("runs/bench/search")
    files = generate(folder, arguments.rows, arguments.dim)
    count, rounds = arguments.rows, arguments.rounds
    print(f"{count} x {arguments.dim}, top {TOP}, {THREADS} threads, {vectors()}, load {os.getloadavg()[0]:.1f}")
    print(f"{'':28} {'1 query':>9} {f'{QUERIES} queries':>11}  recall@{TOP}")

    def line(name, one, many, found):
        print(f"{name:28} {one:6.0f} ms {many:8.0f} ms  {recall(found, expected):.4f}", flush=True)

    queries = np.load(files[2])
    rows = np.ascontiguousarray(np.load(files[0]))
    one, _ = median(rounds, lambda: with_numpy(rows, queries[:1]))
    many, expected = median(rounds, lambda: with_numpy(rows, queries))
    line("numpy f32", one, many, expected)
    faiss.omp_set_num_threads(int(THREADS))
    flat = faiss.IndexFlatIP(arguments.dim)
    flat.add(rows)
    one, _ = median(rounds, lambda: flat.search(queries[:1], TOP))
    many, (_, found) = median(rounds, lambda: flat.search(queries, TOP))
    line("faiss IndexFlatIP f32", one, many, found)
    del flat, rows
    for name, file in zip(("f32", "f16"), files, strict=False):
        opened, one, many, found = with_dualenc(file, files[2], rounds)
        line(f"dualenc {name} (opens in {opened:.1f} s)", one, many, found)
    if arguments.hnsw_rows:
        part = np.ascontiguousarray(np.load(files[0], mmap_mode="r")[: arguments.hnsw_rows])
        expected = with_numpy(part, queries)
        graph = faiss.IndexHNSWFlat(arguments.dim, 32, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = 200
        start = time.perf_counter()
        graph.add(part)
        took = time.perf_counter() - start
        for breadth in (64, 256):
            graph.hnsw.efSearch = breadth
            one, _ = median(rounds, lambda: graph.search(queries[:1], TOP))
            many, (_, found) = median(rounds, lambda: graph.search(queries, TOP))
            line(f"faiss HNSW, efSearch {breadth}", one, many, found)
        print(f"HNSW: {len(part)} rows, built in {took:.0f} s")


if __name__ == "__main__":
    main()
