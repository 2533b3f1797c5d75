"""Step 3: a function that computes blocks the loop, and health says where."""

import asyncio

import multiloop
from multiloop import health


def count_primes(limit):
    count = 0
    for number in range(2, limit):
        divisor = 2
        while divisor * divisor <= number and number % divisor:
            divisor += 1
        count += divisor * divisor > number
    return count


async def main():
    reported = asyncio.get_running_loop().create_future()
    health.on_blocked(lambda report: reported.done() or reported.set_result(report))
    print(count_primes(150_000), "primes")  # nothing else runs meanwhile

    report = await reported
    print("blocked for more than 0.1 s:", report.duration > 0.1)
    print("in", report.function)


multiloop.run(main)
