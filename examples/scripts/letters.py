"""Counts the letters of a text: letters.py TEXT RESULT.csv"""

import sys
from collections import Counter

text, result = sys.argv[1:]
with open(text, encoding="utf-8") as file:
    letters = Counter(c for c in file.read().lower() if c.isalpha())
with open(result, "w", encoding="utf-8") as out:
    out.write("letter,count\n")
    out.writelines(f"{letter},{count}\n" for letter, count in letters.most_common())
print(f"{sum(letters.values())} letters, most of them {letters.most_common(1)[0][0]!r}")
