"""What keeping freed memory in the process gives: a student trained with it and without, in turns.

``python benchmarks/freed_memory.py`` trains an undistilled student over MovieLens-100K, each time in a process of its
own with one thread, and prints CPU seconds, pages that the system handed out, and peak memory of both. Options of
``train_student`` follow, as ``student=gru4rec``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

#: A setting of the user's own that changes nothing: `recdistill.freed_memory` then leaves all as it is.
WITHOUT = {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}
CHILD = """
import json, resource, sys, time
import recdistill, torch
from recdistill.training.resources import peak_resident
torch.set_num_threads(1)
options = dict(pair.split("=", 1) for pair in sys.argv[2:])
data = recdistill.load_data()
first, started = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
trained = recdistill.train_student(data, epochs=int(sys.argv[1]), patience=0, **options)
after = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "seconds": time.process_time() - started,
    "pages": after.ru_minflt - first.ru_minflt,
    "mib": peak_resident() / 2**20,
}))
"""


def main() -> None:
    """Print both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("options", nargs="*", help="of the student, as student=gru4rec")
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"given back": [], "kept": []}
    for _ in range(arguments.turns):
        for name, lines in found.items():
            command = [sys.executable, "-c", CHILD, str(arguments.epochs), *arguments.options]
            environment = os.environ | (WITHOUT if name == "given back" else {})
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            lines.append(json.loads(done.stdout.splitlines()[-1]))
    best = {name: min(lines, key=lambda one: one["seconds"]) for name, lines in found.items()}
    for name, one in best.items():
        print(f"{name:10} {one['seconds']:.1f} CPU s, {one['pages']:,.0f} pages, peak {one['mib']:,.0f} MiB")
    ratios = [with_["seconds"] / without["seconds"] for without, with_ in zip(*found.values(), strict=True)]
    print(f"kept / given back: {statistics.median(ratios):.2f} of the CPU time")


if __name__ == "__main__":
    main()
