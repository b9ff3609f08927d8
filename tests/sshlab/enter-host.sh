#!/bin/sh
# The first process of a host, PID 1 in namespaces of its own. It says its pid, waits until its network interface has
# been put into its namespace, starts sshd, says "up", and then only reaps.
# usage: enter-host.sh DIRECTORY NAME [CGROUP...]
set -e
directory=$1
name=$2
shift 2
for cgroup; do
    echo 0 >"$cgroup/cgroup.procs"
done
# ORDER: before the host's own /proc hides the pid by which the lab's owner knows this process.
read -r pid _ </proc/self/stat
echo "$pid"

mount --all --fstab "$directory/fstab"
echo "$name" >/proc/sys/kernel/hostname
echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6

read -r _
ip -batch "$directory/network"

cd "$directory/root"
pivot_root . .
umount -l .
cd /
[ ! -e /etc/ssh/lab-down ] && /usr/sbin/sshd -E /var/log/sshd.log
echo up
exec </dev/null >/dev/null
while :; do
    sleep infinity &
    wait
done
