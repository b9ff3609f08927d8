"""Writes the high waters of one month, day by day, and goes on where it was when its machine was taken back."""

import csv
import math
import os
import shutil
import sys
import time
from calendar import monthrange
from pathlib import Path
from platform import node

month = int(sys.argv[1])
days = monthrange(2026, month)[1]
constants = dict(line.split() for line in Path(os.environ["CLOUDSEND_ENV"], "constants").read_text().splitlines())
spring, period = float(constants["spring"]), float(constants["period"])
with open("data/tides.csv", newline="", encoding="utf-8") as file:
    week = list(csv.DictReader(file))

progress = Path("progress", "days.csv")
progress.parent.mkdir()
earlier = Path(os.environ.get("CLOUDSEND_RESUME_DIR", "nothing-to-resume"), progress)
if earlier.is_file():
    shutil.copyfile(earlier, progress)
    done = len(progress.read_text().splitlines())
    print(f"going on after day {done}")
else:
    progress.touch()
    done = 0

for day in range(done + 1, days + 1):
    tide = week[day % len(week)]
    height = float(tide["height in m"]) + spring * math.cos(2 * math.pi * day / period)
    time.sleep(0.05)  # stands for work
    with progress.open("a", encoding="utf-8") as out:  # a whole line at a time: what is there is finished
        out.write(f"{day},{tide['high water']},{height:.2f}\n")

unit = os.environ["TIDES_UNIT"]
Path("month.csv").write_text(f"day,high water,height in {unit}\n{progress.read_text()}", encoding="utf-8")
print(f"month {month}: {days} days on {node()}")
