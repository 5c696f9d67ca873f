#!/usr/bin/env bash
# Makes up machines on this one, to run a command on all of them, a process each: network namespaces with their own names
# and addresses, joined by a bridge. Without a command, measures how long processes on them take to exchange numbers.
#
#   sudo scripts/mpi_hosts.sh [--hosts 2] [--rate 1gbit] [--delay 500] [--launcher openmpi] [-- COMMAND ...]
#
# --rate      limits what each machine sends and receives (`tc ... tbf`).
# --delay     latency in one direction, in microseconds: packets then cross scripts/wire.c in place of the bridge. It adds
#             some tens of microseconds of its own, and carries about 10 Gbit/s.
# --launcher  openmpi: Open MPI's mpirun. mpich: MPICH's. slurm: a cluster of these machines, in which COMMAND runs as a
#             job that has all of them: `sbatch --wait COMMAND`, and prints what its log says.
#
# All machines share one kernel, cores and memory. Needs root, iproute2, the launcher, a C compiler for --delay, and to
# measure a build by the same MPI:
#   cargo build --release --package dualenc-train --features mpi,internals --example exchange_time
set -euo pipefail
cd "$(dirname "$0")/.."

hosts=2
rate=
delay=
launcher=openmpi
while [ $# -gt 0 ]; do
  case "$1" in
    --hosts) hosts=$2; shift 2 ;;
    --rate) rate=$2; shift 2 ;;
    --delay) delay=$2; shift 2 ;;
    --launcher) launcher=$2; shift 2 ;;
    --) shift; break ;;
    *) sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
case "$launcher" in openmpi | mpich | slurm) ;; *) echo "error: unknown launcher: $launcher" >&2; exit 2 ;; esac
if [ $# -eq 0 ]; then
  set -- "${CARGO_TARGET_DIR:-target}/release/examples/exchange_time"
fi

prefix="dualenc$$"
# Not in /tmp, of which machines of Slurm have their own.
work=$(mktemp -d -p /var/tmp)
daemons=()
down() {
  [ ${#daemons[@]} -eq 0 ] || kill "${daemons[@]}" 2> /dev/null || true
  wait
  for ((i = 0; i < hosts; i++)); do
    ip netns delete "$prefix-$i" 2> /dev/null || true
    rm -rf "/etc/netns/$prefix-$i"
  done
  ip link delete "$prefix" 2> /dev/null || true
  rm -rf "$work"
}
trap down EXIT

names=()
for ((i = 0; i < hosts; i++)); do names+=("$prefix-$i"); done
list=$(IFS=,; echo "${names[*]}")
for name in "${names[@]}"; do
  mkdir -p "/etc/netns/$name"
  {
    echo "127.0.0.1 localhost"
    for ((j = 0; j < hosts; j++)); do echo "10.77.0.$((j + 1)) ${names[j]}"; done
  } > "/etc/netns/$name/hosts"
  ip netns add "$name"
  ip -n "$name" link set lo up
done

join_by_bridge() {
  device=eth0
  ip link add "$prefix" type bridge
  ip link set "$prefix" up
  for ((i = 0; i < hosts; i++)); do
    # The kernel allows 15 letters.
    ip link add "v$i-$$" type veth peer name "$device" netns "${names[i]}"
    ip link set "v$i-$$" master "$prefix" up
    ip -n "${names[i]}" address add "10.77.0.$((i + 1))/24" dev "$device"
    ip -n "${names[i]}" link set "$device" up
    if [ -n "$rate" ]; then
      tc qdisc add dev "v$i-$$" root tbf rate "$rate" burst 256k latency 100ms
      tc -n "${names[i]}" qdisc add dev "$device" root tbf rate "$rate" burst 256k latency 100ms
    fi
  done
}

join_by_wire() {
  device=wire0
  local bits
  bits=$(numfmt --from=si "$(echo "${rate:-0}" | sed 's/bit$//; s/./\U&/g')")
  cc -O2 -o "$work/wire" scripts/wire.c
  coproc WIRE { exec "$work/wire" "$delay" "$bits" "${names[@]}"; }
  daemons+=("$WIRE_PID")
  read -r _ <&"${WIRE[0]}" || { echo "error: the wire did not start" >&2; exit 1; }
}

if [ -n "$delay" ]; then join_by_wire; else join_by_bridge; fi

# on HOST COMMAND...
on() { (become "$@"); }
# The same in place of this shell, so that a signal to it reaches the command.
become() { exec ip netns exec "$1" unshare --uts bash -c 'hostname "$0"; exec "$@"' "$@"; }

# What mpirun calls in place of ssh: [OPTION...] HOST COMMAND...
cat > "$work/agent" << 'EOF'
#!/usr/bin/env bash
while [[ "$1" == -* ]]; do shift; done
host=$1
shift
exec ip netns exec "$host" unshare --uts bash -c "hostname $host; $*"
EOF
chmod +x "$work/agent"

run_in_slurm() {
  cat > "$work/slurm.conf" << EOF
ClusterName=dualenc
SlurmctldHost=${names[0]}
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=pmix
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
NodeName=$list CPUs=$(nproc) SocketsPerBoard=1 CoresPerSocket=$(nproc) Gres=gpu:4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
  # GPUs in name, so that jobs can ask for them.
  for ((i = 0; i < 4; i++)); do mknod "$work/gpu$i" c 1 3; done
  echo "Name=gpu File=$work/gpu[0-3]" > "$work/gres.conf"
  printf '%s\n' CgroupPlugin=cgroup/v1 CgroupAutomount=yes "CgroupMountpoint=$work/cgroup" > "$work/cgroup.conf"
  export SLURM_CONF="$work/slurm.conf"
  mkdir -p "$work/state" "$work/cgroup"
  if ! munge -n > /dev/null 2>&1; then
    mkdir -p /run/munge
    chown munge: /run/munge
    runuser -u munge -- /usr/sbin/munged --foreground &
    daemons+=($!)
  fi
  become "${names[0]}" /usr/sbin/slurmctld -D > "$work/slurmctld.out" 2>&1 &
  daemons+=($!)
  for name in "${names[@]}"; do
    mkdir -p "$work/$name/tmp"
    # Slurm's PMIx names its files there by the job alone.
    become "$name" sh -c 'mount --bind "$1" /tmp; shift; exec "$@"' sh "$work/$name/tmp" /usr/sbin/slurmd -D -N "$name" > "$work/$name.out" 2>&1 &
    daemons+=($!)
  done
  for ((i = 0; i < 30; i++)); do
    [ "$(on "${names[0]}" sinfo -h -t idle -o %D 2> /dev/null)" != "$hosts" ] || break
    [ "$i" -lt 29 ] || { echo "error: Slurm did not start" >&2; tail "$work"/*.out >&2; exit 1; }
    sleep 1
  done
  local code=0
  on "${names[0]}" sbatch --wait --nodes="$hosts" --output="$work/job.log" --open-mode=append "$@" || code=$?
  cat "$work/job.log"
  return "$code"
}

case "$launcher" in
  openmpi)
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    export OMPI_MCA_plm_rsh_agent="$work/agent" OMPI_MCA_orte_keep_fqdn_hostnames=true
    export OMPI_MCA_btl=tcp,self OMPI_MCA_btl_tcp_if_include=10.77.0.0/24 OMPI_MCA_oob_tcp_if_include=10.77.0.0/24
    export OMPI_MCA_hwloc_base_binding_policy=none
    on "${names[0]}" "$(command -v mpirun.openmpi || command -v mpirun)" --host "$(printf '%s:1\n' "${names[@]}" | paste -sd,)" \
      -n "$hosts" "$@"
    ;;
  mpich)
    on "${names[0]}" "$(command -v mpirun.mpich || command -v mpirun)" -launcher rsh -launcher-exec "$work/agent" \
      -iface "$device" -hosts "$list" -n "$hosts" "$@"
    ;;
  slurm) run_in_slurm "$@" ;;
esac
