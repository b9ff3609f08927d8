"""Stands for a training: a decay of a learning rate over epochs, and what is left of a loss at their end."""

import argparse
import os

parser = argparse.ArgumentParser()
parser.add_argument("--decay", choices=["exp", "anneal", "static"], required=True)
parser.add_argument("--epoch", type=int, required=True)
parser.add_argument("--dataset_size", type=int, required=True)
parser.add_argument("--machine", default="-")
parser.add_argument("--gpu", default="-")
asked = parser.parse_args()

rate, loss = 0.1, 1.0
for epoch in range(asked.epoch):
    loss -= rate * loss * (1 - 100 / asked.dataset_size) / 10
    if asked.decay == "exp":
        rate *= 0.999
    elif asked.decay == "anneal":
        rate = 0.1 * (1 - epoch / asked.epoch)

place = f"machine {asked.machine}, gpu {asked.gpu}"
print(f"{place}: this task sees the GPUs {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}")
print(f"CLOUDSEND_METRIC loss={loss:.6f} rate={rate:.6f}")
