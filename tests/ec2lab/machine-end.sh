#!/bin/sh
# shutdown, poweroff, reboot, halt and systemctl of a machine whose first process is not systemd: that one is told.
name=${0##*/}
if [ "$name" = systemctl ]; then
    for word; do
        case $word in
        poweroff | reboot | halt) name=$word ;;
        esac
    done
    if [ "$name" = systemctl ]; then
        echo "System has not been booted with systemd as init system (PID 1). Can't operate." >&2
        exit 1
    fi
fi
tell() {
    [ "$(id -u)" = 0 ] || { echo "Failed to set wall message, ignoring: Interactive authentication required." >&2; exit 1; }
    kill -s "$1" 1
}
case $name in
poweroff) tell USR1; exit ;;
reboot) tell USR2; exit ;;
halt) tell PWR; exit ;;
esac
signal=USR1 when=+1
for word; do
    case $word in
    -r | --reboot) signal=USR2 ;;
    -H | --halt) signal=PWR ;;
    -h | -P | --poweroff | -k | --no-wall) ;;
    -c) kill "$(cat /run/shutdown-planned 2>/dev/null)" 2>/dev/null; rm -f /run/shutdown-planned; exit 0 ;;
    now | +*) when=$word ;;
    esac
done
minutes=${when#+}
if [ "$when" = now ] || [ "$minutes" = 0 ]; then
    tell "$signal"
else
    setsid sh -c "sleep $((minutes * 60)); kill -s $signal 1" </dev/null >/dev/null 2>&1 &
    echo $! >/run/shutdown-planned
fi
