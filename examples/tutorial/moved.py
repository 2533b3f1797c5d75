"""Step 6: the same computation in a pool of processes; the loop stays free."""

import multiloop
from multiloop import health, pool, timers


def count_primes(limit):
    count = 0
    for number in range(2, limit):
        divisor = 2
        while divisor * divisor <= number and number % divisor:
            divisor += 1
        count += divisor * divisor > number
    return count


async def main():
    beats = 0

    def beat():
        nonlocal beats
        beats += 1

    health.watch()  # would log a warning
    with timers.set_interval(beat, 0.01):
        print(await pool.run(count_primes, 150_000), "primes")
    print("the loop went on:", beats > 5)


if __name__ == "__main__":
    multiloop.run(main)
