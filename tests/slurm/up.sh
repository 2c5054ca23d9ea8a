#!/usr/bin/env bash
# A real SLURM on one machine for the tests: munged, mariadbd, slurmdbd, slurmctld and four slurmd, with no
# systemd and no cgroups; configuration, keys, spool, logs and pids all lie in one folder. Run again, it starts
# only what is not running. As root it installs Debian's packages; exit code 77 says that there is no SLURM here.
# A cluster is shared, so a lost node is played by its slurmd alone: its processes live on, as behind a broken
# switch. Preemption is by tier: `high` takes from `main` at once, and from `low` after 10 s of grace.
set -euo pipefail

LAB="$(realpath -m "${SSL_SLURM_LAB:-${TMPDIR:-/tmp}/ssl-slurm-$UID}")" # short: the sockets below it have 108 bytes for their paths
NODES="${SSL_SLURM_NODES:-4}"
CPUS="${SSL_SLURM_CPUS:-4}" # reported to SLURM, whatever the machine has
MEMORY_MB="${SSL_SLURM_MEMORY_MB:-4000}"
PORT="${SSL_SLURM_PORT:-$((18000 + UID % 100 * 20))}" # slurmctld, slurmdbd, mariadbd, then from +5 on the nodes
HOST="$(hostname -s)"
ME="$(id -un)"
PACKAGES="munge slurmctld slurmd slurmdbd slurm-client slurm-wlm-basic-plugins slurm-wlm-mysql-plugin
  mariadb-server-core mariadb-client-core"

no_slurm() {
  echo "up.sh: no SLURM on this machine: $1" >&2
  exit 77
}

is_installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

install_packages() {
  command -v dpkg-query >/dev/null || no_slurm "it has no Debian packages"
  local missing="" package guard=/usr/sbin/policy-rc.d made=""
  for package in $PACKAGES; do is_installed "$package" || missing="$missing $package"; done
  [ -n "$missing" ] || return 0
  [ "$UID" = 0 ] || no_slurm "ask root for: apt-get install$missing"
  if [ ! -e $guard ]; then # the packages must not start daemons of their own
    made=1
    printf '#!/bin/sh\nexit 101\n' >$guard
    chmod 755 $guard
  fi
  apt-get update -q >/dev/null 2>&1 || true
  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing >/dev/null 2>&1 || missing=""
  [ -z "$made" ] || rm -f $guard
  [ -n "$missing" ] || no_slurm "apt-get could not install $PACKAGES"
}

write_configuration() {
  umask 022 # munged refuses folders that others may write to
  mkdir -p "$LAB"/{etc,log,run,state,dev,spool,mysql,munge}
  chmod 755 "$LAB" "$LAB"/*
  chmod 700 "$LAB/munge"
  [ -s "$LAB/munge/key" ] || (umask 077 && head -c 128 /dev/urandom >"$LAB/munge/key")
  for n in $(seq "$NODES"); do mkdir -p "$LAB/spool/node$n"; done
  for n in 0 1; do ln -sfn /dev/null "$LAB/dev/gpu$n"; done # slurmd wants a character device
  cat >"$LAB/etc/slurm.conf" <<CONF
ClusterName=lab
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=$ME
SlurmdUser=$ME
SlurmctldPort=$PORT
AuthType=auth/munge
AuthInfo=socket=$LAB/run/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$LAB/state
SlurmdSpoolDir=$LAB/spool/%n
SlurmctldPidFile=$LAB/run/slurmctld.pid
SlurmdPidFile=$LAB/run/slurmd-%n.pid
SlurmctldLogFile=$LAB/log/slurmctld.log
SlurmdLogFile=$LAB/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=200
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,bf_resolution=1,max_rpc_cnt=0
KillWait=2
MinJobAge=300
CompleteWait=0
SlurmdTimeout=10
SlurmctldTimeout=10
UnkillableStepTimeout=120
InactiveLimit=0
Waittime=0
ReturnToService=2
TCPTimeout=2
MessageTimeout=10
JobRequeue=1
PrologFlags=Alloc
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT + 1))
AccountingStoragePass=$LAB/run/munge.socket
AccountingStorageTRES=gres/gpu
JobCompType=jobcomp/none
NodeName=node[1-$NODES] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[$((PORT + 6))-$((PORT + 5 + NODES))] CPUs=$CPUS RealMemory=$MEMORY_MB Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=node[1-$NODES] Default=YES MaxTime=INFINITE DefaultTime=10 PriorityTier=10 State=UP
PartitionName=low Nodes=node[1-$NODES] MaxTime=INFINITE DefaultTime=10 PriorityTier=1 GraceTime=10 State=UP
PartitionName=high Nodes=node[1-$NODES] MaxTime=INFINITE DefaultTime=10 PriorityTier=20 PreemptMode=OFF State=UP
CONF
  echo "NodeName=node[1-$NODES] Name=gpu File=$LAB/dev/gpu[0-1]" >"$LAB/etc/gres.conf"
  echo "CgroupAutomount=no" >"$LAB/etc/cgroup.conf"
  (umask 077 && cat >"$LAB/etc/slurmdbd.conf") <<CONF
AuthType=auth/munge
AuthInfo=socket=$LAB/run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((PORT + 1))
SlurmUser=$ME
PidFile=$LAB/run/slurmdbd.pid
LogFile=$LAB/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + 2))
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CONF
}

# alive PROGRAM PIDFILE: the process of that number still is that program
alive() {
  local pid
  pid="$(cat "$2" 2>/dev/null)" && [ -n "$pid" ] && [[ "$(readlink "/proc/$pid/exe" 2>/dev/null)" == */$1* ]]
}

# wait_for SECONDS COMMAND...: until the command succeeds
wait_for() {
  local tries=$(($1 * 10))
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    if [ $tries -le 0 ]; then
      tail -n 20 "$LAB"/log/*.log >&2 || true
      echo "up.sh: \`$*\` did not succeed in time; logs are in $LAB/log" >&2
      exit 1
    fi
    sleep 0.1
  done
}

sql() { mariadb --no-defaults -uroot -S "$LAB/run/mysql.sock" -e "$1"; }

start_database() {
  alive mariadbd "$LAB/run/mariadbd.pid" && return
  [ -d "$LAB/mysql/mysql" ] || mariadb-install-db --no-defaults --user="$ME" --datadir="$LAB/mysql" \
    --skip-test-db --auth-root-authentication-method=normal >"$LAB/log/mariadb-install.log" 2>&1
  setsid mariadbd --no-defaults --user="$ME" --datadir="$LAB/mysql" --socket="$LAB/run/mysql.sock" \
    --pid-file="$LAB/run/mariadbd.pid" --bind-address=127.0.0.1 --port=$((PORT + 2)) \
    --innodb-buffer-pool-size=64M --innodb-log-file-size=16M --innodb-lock-wait-timeout=900 \
    --innodb-flush-log-at-trx-commit=0 --sync-binlog=0 --skip-log-bin --performance-schema=OFF \
    </dev/null >"$LAB/log/mariadbd.log" 2>&1 &
  wait_for 60 sql "select 1"
  sql "create database if not exists slurm_acct_db"
  for from in localhost 127.0.0.1; do
    sql "create user if not exists 'slurm'@'$from' identified by 'slurm'; grant all on slurm_acct_db.* to 'slurm'@'$from'"
  done
}

start_accounting() {
  alive slurmdbd "$LAB/run/slurmdbd.pid" || slurmdbd
  wait_for 60 sacctmgr -n list cluster
  sacctmgr -nP list cluster format=cluster | grep -qx lab || sacctmgr -i add cluster lab >/dev/null
  if ! sacctmgr -nP list assoc user="$ME" format=account | grep -qx lab; then
    sacctmgr -i add account lab cluster=lab description=lab organization=lab >/dev/null
    sacctmgr -i add user "$ME" account=lab cluster=lab defaultaccount=lab >/dev/null
  fi
}

start_munge() {
  alive munged "$LAB/run/munged.pid" && return
  rm -f "$LAB"/run/munge.socket*
  munged --key-file="$LAB/munge/key" --socket="$LAB/run/munge.socket" --pid-file="$LAB/run/munged.pid" \
    --log-file="$LAB/log/munged.log" --seed-file="$LAB/munge/seed" --num-threads=4
  wait_for 10 munge --socket="$LAB/run/munge.socket" -n
}

all_nodes_up() { [ "$(sinfo -h -N -p main -t idle,mixed,alloc -o '%N %t' | grep -vc '\*')" = "$NODES" ]; }

install_packages
PATH="$PATH:/usr/sbin:/sbin"
write_configuration
export SLURM_CONF="$LAB/etc/slurm.conf"
echo "export SLURM_CONF='$SLURM_CONF'" >"$LAB/env.sh"
start_munge
start_database
start_accounting
alive slurmctld "$LAB/run/slurmctld.pid" || slurmctld
wait_for 30 scontrol ping
for n in $(seq "$NODES"); do alive slurmd "$LAB/run/slurmd-node$n.pid" || slurmd -N "node$n"; done
wait_for 60 all_nodes_up
echo "SLURM is up; for its commands: source $LAB/env.sh"
