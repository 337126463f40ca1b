"""One input on three containers that talk to each other: each counts its part of the primes, rank 0 adds them up.

alight run examples/cluster.py --below 200000
"""

import socket
import time

import alight

app = alight.App("cluster", image=alight.Image.debian_slim(python_version="3.11"))
PORT = 4000


@app.function()
@alight.clustered(size=3)
def count_primes(below: int) -> "tuple[int, list[int]]":
    """How many primes there are, and how many each rank found."""
    info = alight.experimental.get_cluster_info()
    size = len(info.container_ips)
    part = -(-below // size)
    mine = sum(is_prime(number) for number in range(2, below)[info.rank * part : (info.rank + 1) * part])
    if info.rank:
        send(mine)
        return 0, []
    found = [mine]
    with socket.create_server(("", PORT)) as server:
        for _ in range(size - 1):
            connection, _ = server.accept()
            with connection, connection.makefile() as file:
                found.append(int(file.readline()))
    return sum(found), found


def is_prime(number: int) -> bool:
    """By trying all divisors up to its root."""
    return all(number % one for one in range(2, int(number**0.5) + 1))


def send(number: int) -> None:
    """To rank 0, which may not listen yet."""
    while True:
        try:
            with socket.create_connection(("rank-0", PORT)) as connection:
                connection.sendall(f"{number}\n".encode())
            return
        except ConnectionRefusedError:
            time.sleep(0.05)


@app.local_entrypoint()
def main(below: int = 200_000) -> None:
    """Ask for the number of primes below ``below``."""
    count, found = count_primes.remote(below)
    print(f"{count} primes below {below}, found by three containers: {found}")
