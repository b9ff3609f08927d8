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

# What a shutdown asks for: processes are told, then the way of the end is in the exit status.
end() {
    status=$1
    sleep 0.1 # who has asked may return
    kill -TERM -1
    tries=0
    while set -- /proc/[0-9]*/stat && [ $# -gt 1 ] && [ $tries -lt 40 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    exit "$status"
}
trap 'end 100' USR1
trap 'end 101' USR2
trap 'end 102' PWR

mount --all --fstab "$directory/fstab"
echo "$name" >/proc/sys/kernel/hostname
echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6

read -r _
ip -batch "$directory/network"

cd "$directory/root"
pivot_root . .
umount -l .
cd /
# What a machine does before and after sshd, where it has been given something to do.
[ ! -e /etc/lab/before-sshd ] || /etc/lab/before-sshd </dev/null >&2 || true
[ -e /etc/ssh/lab-down ] || /usr/sbin/sshd -E /var/log/sshd.log || [ -e /etc/lab/before-sshd ]
echo up
exec </dev/null >/dev/null
[ ! -e /etc/lab/after-sshd ] || /etc/lab/after-sshd >&2 &
while :; do
    sleep infinity &
    wait
done
