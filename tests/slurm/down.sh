#!/usr/bin/env bash
# End what up.sh started and remove its folder. A process is ended by its own number, and only while it still is
# the program that the number was written for, with a file of the lab open.
set -u

LAB="$(realpath -m "${SSL_SLURM_LAB:-${TMPDIR:-/tmp}/ssl-slurm-$UID}")"
export SLURM_CONF="$LAB/etc/slurm.conf"
[ -d "$LAB/run" ] || exit 0

# ours PID PROGRAM
ours() {
  [[ "$(readlink "/proc/$1/exe" 2>/dev/null)" == */$2* ]] &&
    readlink "/proc/$1/fd/"* 2>/dev/null | grep -q "^$LAB/"
}

# stop PROGRAM PIDFILE...: ask them all, wait 10 s, then force those that are left
stop() {
  local program="$1" pids="" left pid file
  shift
  for file in "$@"; do
    pid="$(cat "$file" 2>/dev/null)" && [ -n "$pid" ] && ours "$pid" "$program" && pids="$pids $pid"
  done
  [ -n "$pids" ] || return 0
  kill $pids 2>/dev/null
  for _ in $(seq 100); do
    left=""
    for pid in $pids; do ours "$pid" "$program" && left="$left $pid"; done
    [ -n "$left" ] || return 0
    sleep 0.1
  done
  kill -9 $left 2>/dev/null
}

# is_a_task PID: a process that a slurmd of this lab started for a job
is_a_task() {
  { tr '\0' '\n' <"/proc/$1/environ"; } 2>/dev/null |
    awk -v conf="SLURM_CONF=$SLURM_CONF" '$0 == conf {a = 1} /^SLURMD_NODENAME=/ {b = 1} END {exit !(a && b)}'
}

pid="$(cat "$LAB/run/slurmctld.pid" 2>/dev/null)"
if [ -n "$pid" ] && ours "$pid" slurmctld; then # jobs first, while the daemons can end them properly
  timeout 10 scancel -Q --me 2>/dev/null
  for _ in $(seq 50); do
    [ -z "$(timeout 5 squeue -h --me -o %i 2>/dev/null)" ] && break
    sleep 0.1
  done
fi
stop slurmd "$LAB"/run/slurmd-*.pid
for pid in $(pgrep -x slurmstepd); do ours "$pid" slurmstepd && kill -9 "$pid" 2>/dev/null; done
for folder in /proc/[0-9]*; do # tasks that outlived a slurmd that a test killed
  pid="${folder#/proc/}"
  is_a_task "$pid" && kill -9 "$pid" 2>/dev/null
done
for program in slurmctld slurmdbd mariadbd munged; do stop $program "$LAB/run/$program.pid"; done
rm -rf -- "$LAB"
