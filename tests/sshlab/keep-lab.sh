#!/bin/sh
# The first process of a lab, PID 1 of a namespace that holds all its hosts: when it ends, the kernel ends them all
# and gives back their mounts and interfaces. It ends when its stdin is closed, so also when the test run is killed.
# usage: keep-lab.sh DIRECTORY
set -e
# /proc is still that of the world outside: the pid by which the lab's owner knows this process.
read -r pid _ </proc/self/stat
mount -t tmpfs -o mode=755 lab "$1/layers"
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
ip link set lo up
echo "$pid"
read -r _ || exit 0
