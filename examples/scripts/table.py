"""Prints a CSV file as a table: needs the package tabulate from PyPI."""

import csv
import sys

from tabulate import tabulate

with open(sys.argv[1], newline="") as file:
    header, *rows = csv.reader(file)
table = tabulate(rows, headers=header, tablefmt="rounded_outline")
print(table)
with open("tides.txt", "w", encoding="utf-8") as out:
    out.write(table + "\n")
