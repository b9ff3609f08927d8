"""Counts the primes below a bound and writes how they thin out."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--below", type=int, required=True)
below = parser.parse_args().below

sieve = bytearray([1]) * below
sieve[0:2] = b"\0\0"
for n in range(2, int(below**0.5) + 1):
    if sieve[n]:
        sieve[n * n :: n] = bytes(len(range(n * n, below, n)))

with open("primes.csv", "w") as out:
    out.write("below,primes\n")
    for tenth in range(1, 11):
        bound = below * tenth // 10
        out.write(f"{bound},{sum(sieve[:bound])}\n")
print(f"{sum(sieve)} primes below {below}")
