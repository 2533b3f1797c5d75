"""Step 1: a program runs until nothing is left to wait for."""

import multiloop
from multiloop import timers


def main():
    timers.set_timeout(print, 0.2, "third: after 0.2 s")
    timers.set_timeout(print, 0.1, "second: after 0.1 s")
    print("first: main has returned, two timers are left")


multiloop.run(main)
print("last: nothing was left")
