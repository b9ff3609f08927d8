#!/bin/sh
# The dead man's switch: ends this rented machine when nobody uses it, whatever became of those who rented it.
# `deadman boot` arms it, at every boot and as often as one likes; `deadman watch` is the switch itself.
# Durations are those of /proc/uptime, which counts suspended time too and which no change of the date can alter.
# There is no `set -e` and no `set -u`: whatever fails, it goes on watching.

LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin
export LC_ALL PATH
umask 022

state=${CLOUDSEND_DEADMAN_STATE:-/var/lib/cloudsend} # outlives a boot
run=${CLOUDSEND_DEADMAN_RUN:-/run}                   # does not
proc=${CLOUDSEND_DEADMAN_PROC:-/proc}
units=${CLOUDSEND_DEADMAN_UNITS:-/etc/systemd/system}
console=${CLOUDSEND_DEADMAN_CONSOLE:-/dev/console}
imds=${CLOUDSEND_DEADMAN_IMDS:-http://169.254.169.254}
rented=$run/cloudsend        # the login user's: what the agent and the switch tell each other
mine=$run/cloudsend-deadman  # root's: what the switch remembers of this boot
unit=cloudsend-deadman.service

idle=600 life=86400 setting=life unadopted=1200 spot=0 tick=5 user=
# shellcheck source=/dev/null
[ -r "$state/deadman.conf" ] && . "$state/deadman.conf"

read_clock() {
    read -r up _ <"$proc/uptime" || return 1
    now=${up%%.*}
    is_number "$now"
}

is_number() {
    case $1 in '' | *[!0-9]*) return 1 ;; esac
}

read_number() { # FILE: its first word without a fraction, in $number; false where there is none
    number=
    [ -f "$1" ] || return 1
    read -r number _ <"$1" # false without a newline at the end, but the word is there
    number=${number%%.*}
    is_number "$number"
}

put() { # FILE TEXT: whole or not at all; a link that a user of the machine left in its place is not followed
    printf '%s\n' "$2" >"$mine/new" && mv -f "$mine/new" "$1"
}

keep() { # FILE TEXT: the same on the disk
    printf '%s\n' "$2" >"$1.new" && mv -f "$1.new" "$1"
}

begin() { # what this boot counts from, noted once
    boot=
    read -r boot <"$proc/sys/kernel/random/boot_id"
    known=
    [ -f "$mine/boot" ] && read -r known <"$mine/boot"
    if [ ! -d "$mine" ] || [ "$known" != "$boot" ]; then
        rm -rf "$mine" "$rented"
        mkdir -p "$mine"
        read_number "$state/lived" || number=0
        put "$mine/base" "$number"
        put "$mine/since" "$now"
        put "$mine/boot" "$boot"
    fi
    read_number "$mine/since" || number=$now
    since=$number
    read_number "$mine/base" || number=0
    base=$number
    read_number "$mine/last" || number=
    last=$number
    mark=
    [ -f "$mine/mark" ] && read -r mark <"$mine/mark"
    saved=$now
}

offer() { # the directory that says: this machine is rented. Its user may come into being only later in the boot
    [ -d "$rented" ] || { mkdir -m 700 "$rented" && owned=; }
    if [ -n "$user" ] && [ "$owned" != yes ] && id -u "$user" >/dev/null 2>&1; then
        chown "$user" "$rented" && owned=yes
    fi
    [ -f "$rented/armed" ] || put "$rented/armed" "idle=$idle life=$life unadopted=$unadopted"
}

look_for_notice() { # an announcement that the provider takes the machine back, also withdrawn ones
    [ "$spot" = 1 ] || return 0
    if [ -z "$token" ]; then
        token=$(curl -sf --noproxy '*' -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 21600' \
            "$imds/latest/api/token") || return 0
    fi
    code=$(curl -s --noproxy '*' -m 2 -o "$mine/notice" -w '%{http_code}' -H "X-aws-ec2-metadata-token: $token" \
        "$imds/latest/meta-data/spot/instance-action")
    case $code in
    200) mv -f "$mine/notice" "$rented/notice" && taken=yes ;;
    404)
        taken=
        [ -n "$notice" ] || rm -f "$rented/notice"
        ;;
    401) token= ;;
    esac
}

announce() { # that its life is nearly over, as a provider announces that it takes the machine; whose notice goes first
    lead=$((life / 10))
    [ "$lead" -ge 15 ] || lead=15
    [ "$lead" -le 120 ] || lead=120
    left=$((life - lived))
    [ "$left" -le "$lead" ] || return 0
    if [ -z "$notice" ]; then # the same for as long as it stands
        when=$(date -u -d "@$(($(date +%s) + left))" +%Y-%m-%dT%H:%M:%SZ)
        notice="{\"action\":\"$setting\",\"time\":\"$when\",\"uptime\":$((now + left))}"
    fi
    [ -n "$taken" ] || put "$rented/notice" "$notice"
}

works() { # an attempt is being executed: its runner, a session's leader among our agent's processes, has a child
    # shellcheck disable=SC2013 # there is no space in these names
    for file in $(grep -lsa 'agent-[0-9a-f]*\.pyz' "$proc"/[0-9]*/cmdline); do
        pid=${file%/cmdline}
        pid=${pid##*/}
        tr '\0' '\n' <"$file" 2>/dev/null | grep -qx serve || continue
        [ "$(field 4 "$pid")" = "$pid" ] || continue
        for other in "$proc"/[0-9]*; do
            [ "$(field 2 "${other##*/}")" = "$pid" ] && return 0
        done
    done
    return 1
}

field() { # NUMBER PID: of its stat, counted after the name; 2 is the parent, 4 the session
    [ -r "$proc/$2/stat" ] && read -r stat <"$proc/$2/stat" 2>/dev/null || return 1
    # shellcheck disable=SC2086 # it is a list of words
    set -- "$1" ${stat##*) }
    shift "$1"
    printf '%s' "$1"
}

decide() { # whether to end, and why, in $why
    why=
    lived=$((base + now - since))
    if [ "$lived" -ge "$life" ]; then
        why="it has lived for $lived of $life seconds"
        return 0
    fi
    if read_number "$rented/lease" && [ "$now" -ge "$number" ]; then
        why="its lease is over"
        return 0
    fi
    if [ ! -e "$rented/adopted" ]; then
        [ $((now - since)) -ge "$unadopted" ] && why="nobody has used it for $unadopted seconds since its boot"
        return 0
    fi
    seen=$(stat -c '%y %i' "$rented/active" 2>/dev/null)
    if [ -z "$last" ] || { [ -n "$seen" ] && [ "$seen" != "$mark" ]; }; then
        used
    fi
    if [ $((now - last)) -ge "$idle" ]; then
        if works; then # without its agent; when it is done, whoever comes for its results has time to
            used
        else
            why="it has been idle for $idle seconds"
        fi
    fi
}

used() {
    last=$now mark=$seen
    put "$mine/last" "$last"
    put "$mine/mark" "$mark"
}

end() {
    keep "$state/ended" "$why"
    if [ -z "$told" ]; then
        told=yes
        logger -t cloudsend "this machine ends itself: $why" 2>/dev/null
        (printf 'cloudsend: this machine ends itself: %s\n' "$why" >"$console") 2>/dev/null &
    fi
    # It is asked again at each tick. Not `halt`: a machine that is only halted is paid for.
    shutdown -h now || poweroff
}

watch() {
    until read_clock; do sleep 1; done
    begin
    put "$mine/pid" "$$"
    echo -1000 2>/dev/null >"$proc/$$/oom_score_adj"
    owned='' token='' told='' taken='' notice=''
    while :; do
        if read_clock; then
            offer
            look_for_notice
            decide
            announce
            if [ -n "$why" ] || [ $((now - saved)) -ge 30 ]; then
                saved=$now
                keep "$state/lived" "$lived"
            fi
            [ -n "$why" ] && end
        fi
        sleep "$tick"
    done
}

is_watching() {
    read_number "$mine/pid" && kill -0 "$number" 2>/dev/null &&
        tr '\0' '\n' <"$proc/$number/cmdline" 2>/dev/null | grep -qx watch
}

install_unit() {
    mkdir -p "$units/sysinit.target.wants"
    keep "$units/$unit" "[Unit]
Description=Ends this rented machine when nobody uses it
DefaultDependencies=no
After=systemd-remount-fs.service
RequiresMountsFor=$state
Conflicts=shutdown.target
Before=shutdown.target
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh $state/deadman watch
Restart=always
RestartSec=2
OOMScoreAdjust=-1000

[Install]
WantedBy=sysinit.target"
    ln -sfn "../$unit" "$units/sysinit.target.wants/$unit"
}

case $1 in
boot)
    mkdir -p "$state"
    if [ -d "$run/systemd/system" ]; then # systemd is PID 1
        install_unit
        systemctl daemon-reload
        systemctl start --no-block "$unit" && exit 0
    fi
    is_watching && exit 0
    setsid /bin/sh "$state/deadman" watch </dev/null >/dev/null 2>&1 &
    ;;
watch) watch ;;
*)
    echo 'usage: deadman boot|watch' >&2
    exit 2
    ;;
esac
