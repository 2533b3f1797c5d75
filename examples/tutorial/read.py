"""Step 2: every asynchronous function starts at once, and can be awaited or called back."""

import sys

import multiloop
from multiloop import fs


def told(error, data):
    print("called back with", "nothing: " + error.strerror if error else f"{len(data)} bytes")


async def main(folder):
    await fs.write_file(f"{folder}/one.txt", "hello")

    fs.read_file(f"{folder}/one.txt", callback=told)
    fs.read_file(f"{folder}/none.txt", callback=told)

    first = fs.read_file(f"{folder}/one.txt", "utf-8")  # both are being read from here on
    second = fs.stat(f"{folder}/one.txt")
    print("awaited:", await first, (await second).size)


multiloop.run(main, sys.argv[1])
