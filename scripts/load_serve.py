"""Sends many requests to `dualenc serve` at a time, checks every answer, and prints throughput and latency.

    python scripts/load_serve.py http://127.0.0.1:8080 [--requests 2000] [--at-a-time 16] [--image FILE]

Loopback only. Needs Python's standard library, and a server with an index. A quarter of the requests are searches by
text, a quarter embeddings of texts, a quarter of an image, and a quarter pictures and health. Each answer must be equal to that of
the same request sent alone.
"""

import argparse
import base64
import http.client
import ipaddress
import json
import statistics
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

TEXTS = ["a red circle", "a green square", "blue stripes", "a dog on the beach", "nothing at all"]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--at-a-time", type=int, default=16)
    parser.add_argument("--image", type=Path, help="image to embed and search for [default: a picture of the index]")
    return parser.parse_args()


def ask(connection, request):
    """Status and body of the answer to `(method, path, content type, body)`."""
    method, path, kind, body = request
    connection.request(method, path, body=body, headers={"Content-Type": kind} if kind else {})
    answer = connection.getresponse()
    return answer.status, answer.read()


def main():
    arguments = parse()
    server = urlsplit(arguments.address)
    if not ipaddress.ip_address(server.hostname).is_loopback:
        raise SystemExit(f"{server.hostname} is not this machine: the test is for loopback only")

    def connect():
        return http.client.HTTPConnection(server.hostname, server.port, timeout=120)

    alone = connect()
    status, picture = ask(alone, ("GET", "/image/0", None, None))
    image = arguments.image.read_bytes() if arguments.image else picture
    if not arguments.image and status != 200:
        raise SystemExit("the index has no pictures: give --image FILE")
    as_json = "application/json"
    kinds = []
    for text in TEXTS:
        kinds += [
            ("POST", "/search", as_json, json.dumps({"text": text, "top": 5})),
            ("POST", "/embed", as_json, json.dumps({"texts": [text, text + "s"]})),
            ("POST", "/embed", as_json, json.dumps({"images": [base64.b64encode(image).decode()]})),
            ("GET", f"/image/{len(kinds) % 8}" if status == 200 else "/health", None, None),
        ]
    expected = [ask(alone, request) for request in kinds]
    for request, (status, body) in zip(kinds, expected):
        if status != 200:
            raise SystemExit(f"{request[:2]}: {status} {body[:200]}")

    times = {}
    wrong = []
    numbers = iter(range(arguments.requests))
    lock = threading.Lock()

    def work():
        connection = connect()
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            kind = number % len(kinds)
            begun = time.perf_counter()
            found = ask(connection, kinds[kind])
            took = time.perf_counter() - begun
            with lock:
                times.setdefault(" ".join(kinds[kind][:2]).split("/image")[0], []).append(took)
                if found != expected[kind]:
                    wrong.append((number, kinds[kind][:2], found[0], found[1][:200]))

    threads = [threading.Thread(target=work) for _ in range(arguments.at_a_time)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    every = [took for of_kind in times.values() for took in of_kind]
    print(f"{len(every)} requests, {arguments.at_a_time} at a time: {seconds:.2f} s, {len(every) / seconds:.1f} a second")
    print(f"{'':14}{'count':>7}{'p50 ms':>9}{'p95 ms':>9}{'max ms':>9}")
    for name, of_kind in [("all", every), *sorted(times.items())]:
        name = "pictures" if name.strip() == "GET" else name
        p95 = statistics.quantiles(of_kind, n=20)[-1] if len(of_kind) > 1 else of_kind[0]
        figures = [statistics.median(of_kind), p95, max(of_kind)]
        print(f"{name:14}{len(of_kind):>7}" + "".join(f"{figure * 1e3:>9.1f}" for figure in figures))
    if wrong or len(every) != arguments.requests:
        missing = arguments.requests - len(every)
        raise SystemExit(f"{len(wrong)} answers are wrong, {missing} are missing; the first: {wrong[:1]}")
    print("every answer is equal to that of the request alone")


if __name__ == "__main__":
    main()
