#!/usr/bin/env bash
# Makes up machines on this one, to run a command on all of them by mpirun: network namespaces, each with its own name
# and address, joined by a bridge. Without a command, measures how long processes on them take to exchange numbers.
#
#   sudo scripts/mpi_hosts.sh [--hosts 2] [--rate 1gbit] [-- COMMAND ...]
#
# --rate limits what each machine sends and receives (`tc ... tbf`). No latency is added: the machines share one kernel,
# cores and memory. Needs root, iproute2, Open MPI and, to measure, a build:
#   cargo build --release --package dualenc-train --features mpi,internals --example exchange_time
set -euo pipefail
cd "$(dirname "$0")/.."

hosts=2
rate=
while [ $# -gt 0 ]; do
  case "$1" in
    --hosts) hosts=$2; shift 2 ;;
    --rate) rate=$2; shift 2 ;;
    --) shift; break ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
if [ $# -eq 0 ]; then
  set -- "${CARGO_TARGET_DIR:-target}/release/examples/exchange_time"
fi

prefix="dualenc$$"
agent=$(mktemp)
down() {
  for ((i = 0; i < hosts; i++)); do
    ip netns delete "$prefix-$i" 2> /dev/null || true
    rm -rf "/etc/netns/$prefix-$i"
  done
  ip link delete "$prefix" 2> /dev/null || true
  rm -f "$agent"
}
trap down EXIT

ip link add "$prefix" type bridge
ip link set "$prefix" up
list=
for ((i = 0; i < hosts; i++)); do
  name="$prefix-$i"
  mkdir -p "/etc/netns/$name"
  {
    echo "127.0.0.1 localhost"
    for ((j = 0; j < hosts; j++)); do echo "10.77.0.$((j + 1)) $prefix-$j"; done
  } > "/etc/netns/$name/hosts"
  ip netns add "$name"
  # The kernel allows 15 letters.
  ip link add "v$i-$$" type veth peer name eth0 netns "$name"
  ip link set "v$i-$$" master "$prefix" up
  ip -n "$name" address add "10.77.0.$((i + 1))/24" dev eth0
  ip -n "$name" link set lo up
  ip -n "$name" link set eth0 up
  if [ -n "$rate" ]; then
    tc qdisc add dev "v$i-$$" root tbf rate "$rate" burst 256k latency 100ms
    tc -n "$name" qdisc add dev eth0 root tbf rate "$rate" burst 256k latency 100ms
  fi
  list="$list${list:+,}$name:1"
done

# What mpirun calls in place of ssh: HOST COMMAND...
cat > "$agent" << 'EOF'
#!/usr/bin/env bash
host=$1
shift
exec ip netns exec "$host" unshare --uts bash -c "hostname $host; $*"
EOF
chmod +x "$agent"

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_plm_rsh_agent="$agent" OMPI_MCA_orte_keep_fqdn_hostnames=true
export OMPI_MCA_btl=tcp,self OMPI_MCA_btl_tcp_if_include=10.77.0.0/24 OMPI_MCA_oob_tcp_if_include=10.77.0.0/24
export OMPI_MCA_hwloc_base_binding_policy=none
ip netns exec "$prefix-0" unshare --uts bash -c 'hostname "$0"; exec "$@"' "$prefix-0" mpirun --host "$list" -n "$hosts" "$@"
