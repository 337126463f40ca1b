"""A work queue: some containers take jobs from it, one asks for more jobs than it was given, none is done twice.

    alight run examples/work_queue.py

Each job is a number of the Collatz sequence; a worker puts the next number back as a new job until it comes to 1.
"""

import alight

app = alight.App("work-queue", image=alight.Image.debian_slim(python_version="3.11"))


@app.function()
def worker(jobs: alight.Queue, seen: alight.Dict, results: alight.Queue) -> int:
    """Take jobs until there has been none for a while. Returns how many."""
    done = 0
    while True:
        some = jobs.get_many(10, block=False)
        if not some:
            return done
        for number in some:
            done += 1
            if not seen.put(number, True, skip_if_exists=True):
                continue  # another one has been here
            if number == 1:
                results.put("reached 1")
            else:
                jobs.put(number // 2 if number % 2 == 0 else 3 * number + 1)


@app.local_entrypoint()
def main(first: int = 20) -> None:
    """Give out the first jobs, run three workers, and look at what they have seen."""
    with alight.Queue.ephemeral() as jobs, alight.Dict.ephemeral() as seen, alight.Queue.ephemeral() as results:
        jobs.put_many(list(range(1, first + 1)))
        done = list(worker.starmap([(jobs, seen, results)] * 3))
        print(f"{sum(done)} jobs; {seen.len()} numbers seen, the largest {max(seen.keys())}; {results.get()}")
        print(f"left: {jobs.len()}")
