#!/bin/sh
# The part of a boot that cloud-init does before sshd is started. What it says goes to the console.
lab=/var/lib/cloud/lab
export INSTANCE_ID=@INSTANCE@
mkdir -p /run/cloud-init
mkfifo -m 600 /dev/console 2>/dev/null
setsid cat <>/dev/console &
echo "cloud-init[1]: 'init' running, instance $INSTANCE_ID, up $(cut -d' ' -f1 /proc/uptime) s"
cat "$lab/problems"
for hook in "$lab"/boothooks/*; do
    [ -e "$hook" ] || continue
    "$hook" || echo "cloud-init[1]: boothook ${hook##*/} failed: exit $?"
done
sh "$lab/bootcmd.sh"
if [ ! -e "$lab/configured" ]; then
    sh "$lab/once.sh"
    : >"$lab/configured"
fi
echo "-----BEGIN SSH HOST KEY KEYS-----"
sed -n 's/^HostKey //p' /etc/ssh/sshd_config | while read -r key; do cat "$key.pub"; done
echo "-----END SSH HOST KEY KEYS-----"
