#!/bin/sh
# The last part of a boot: user scripts, once in the life of the instance.
lab=/var/lib/cloud/lab
export INSTANCE_ID=@INSTANCE@
if [ ! -e "$lab/finished" ]; then
    : >"$lab/finished"
    for script in "$lab"/scripts/*; do
        [ -e "$script" ] || continue
        "$script" || echo "cloud-init[1]: script ${script##*/} failed: exit $?"
    done 2>&1 | tee -a /var/log/cloud-init-output.log
fi
: >/run/cloud-init/done
mkdir -p /var/lib/cloud/instance
: >/var/lib/cloud/instance/boot-finished
echo "cloud-init[1]: finished, up $(cut -d' ' -f1 /proc/uptime) s"
