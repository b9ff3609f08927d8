"""Writes the tides of one day of the year as a table: reads the uploaded week, needs tabulate from PyPI."""

import csv
import math
import sys
from platform import node

from tabulate import tabulate

day = int(sys.argv[1])
with open("data/tides.csv", newline="", encoding="utf-8") as file:
    week = list(csv.DictReader(file))
tide = week[day % len(week)]
height = float(tide["height in m"]) + 0.4 * math.cos(2 * math.pi * day / 14.77)  # spring and neap
rows = [["day of the year", day], ["like a", tide["day"]], ["high water", tide["high water"]]]
rows += [["height in m", f"{height:.2f}"], ["computed on", node()]]
table = tabulate(rows, tablefmt="rounded_outline")
print(table)
with open("forecast.txt", "w", encoding="utf-8") as out:
    out.write(table + "\n")
